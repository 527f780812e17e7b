"""The loop without Ray: lists in, records out."""

import itertools
from functools import partial

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train
from mama_ray.training.optim import learning_rate_at
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.training.toy_runs import BATCH, NUM_STEPS, batches, meta_stream, new_state
from tests.weighting.toys import ToyEncoder, random_batch


def test_the_loop_reports_every_step_and_stops_at_the_end_of_the_run():
    state, records = new_state(), []
    train(state, batches(0, NUM_STEPS + 3), meta_stream(0), report=records.append, measure_every=4)
    assert [record.step for record in records] == list(range(NUM_STEPS))
    assert [record.step for record in records if "meta/loss" in record.scalars] == list(range(0, NUM_STEPS, 2))
    assert [r.step for r in records if "meta/loss_before_lookahead" in r.scalars] == list(range(0, NUM_STEPS, 4))
    first = float(records[0].scalars["train/unweighted_loss"])
    assert float(records[-1].scalars["train/unweighted_loss"]) != first


def test_the_lookahead_is_measured_at_the_first_meta_step_of_each_window_whatever_their_lengths():
    state, records = new_state(), []
    train(state, batches(0, NUM_STEPS), meta_stream(0), report=records.append, measure_every=3)
    measured = [r.step for r in records if "meta/loss_before_lookahead" in r.scalars]
    assert measured == [step for step in (0, 4, 6, 10, 12) if step < NUM_STEPS] and len(measured) > 2


def test_one_meta_batch_is_taken_per_meta_step_and_none_between():
    taken = []

    def stream():
        for batch in meta_stream(0):
            taken.append(batch)
            yield batch

    train(new_state(), batches(0, NUM_STEPS), stream(), report=lambda record: None)
    assert len(taken) == NUM_STEPS // 2


def test_one_step_moves_weight_net():
    state = new_state()
    before = [parameter.clone() for parameter in state.weighting.parameters()]
    train(state, batches(0, 1), meta_stream(0), report=lambda record: None)
    assert all((now != then).any() for now, then in zip(state.weighting.parameters(), before, strict=True))


def test_the_weight_net_is_float32_beside_a_model_in_half_precision():
    state, records = new_state(autocast=partial(torch.autocast, "cpu", dtype=torch.bfloat16)), []
    state.model.to(torch.float32)
    train(state, batches(0, 2), meta_stream(0), report=records.append)
    moments = [value for kept in state.weight_optimizer.state.values() for value in kept.values()]
    assert {value.dtype for value in (*state.weighting.parameters(), *moments)} == {torch.float32}
    with torch.no_grad():  # the last step had no meta step, so the net is as it was then
        raw = state.weighting(records[-1].losses)
    assert torch.equal(records[-1].weights, raw / raw.sum())


def test_the_logit_scale_is_back_within_its_bounds_after_a_step():
    state = new_state()
    with torch.no_grad():
        state.model.logit_scale.fill_(state.model.logit_scale_bounds[1] + 1.0)
    train(state, batches(0, 1), meta_stream(0), report=lambda record: None)
    assert state.model.logit_scale.item() == state.model.logit_scale_bounds[1]


def test_training_lowers_the_loss_on_a_repeated_batch():
    state, records = new_state(), []
    train(state, [random_batch(0, BATCH)] * NUM_STEPS, meta_stream(0), report=records.append)
    losses = [float(record.scalars["train/unweighted_loss"]) for record in records]
    assert losses[-1] < losses[0]


def test_learning_rate_warms_up_and_falls_to_its_end():
    config = OptimConfig(lr=1.0, warmup_share=0.1, final_lr_share=0.1)
    rates = [learning_rate_at(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.1)


def test_batch_norm_over_workers_is_refused():
    model = ToyEncoder()
    model.norm = torch.nn.SyncBatchNorm(3)
    with pytest.raises(UserError, match="SyncBatchNorm"):
        build_state(
            model,
            objective=ContrastiveConfig(),
            weighting=WeightingConfig(),
            meta=MetaConfig(),
            optim=OptimConfig(),
            num_steps=1,
            global_batch_size=2,
        )
