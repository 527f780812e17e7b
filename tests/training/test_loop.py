"""The loop without Ray: lists in, records out; resuming is bit-exact; checkpoints are whole or do not exist."""

import itertools
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mama_ray.errors import UserError
from mama_ray.objectives.contrastive import ContrastiveConfig
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import load_state, save_state
from mama_ray.training.loop import train
from mama_ray.training.manifest import (
    MANIFEST,
    UPLOADING,
    latest_valid_checkpoint,
    list_checkpoints,
    resolve_checkpoint,
    step_directory,
    verify_manifest,
    write_manifest,
)
from mama_ray.training.optim import OptimConfig, learning_rate_at
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.features import Autocast
from mama_ray.weighting.step import MetaConfig
from mama_ray.weighting.weight_net import WeightingConfig
from tests.weighting.toys import ToyEncoder, random_batch

NUM_STEPS, BATCH = 12, 8


def new_state(*, autocast: Autocast = nullcontext, **optim) -> TrainState:
    return build_state(
        ToyEncoder(),
        objective=ContrastiveConfig(margin=0.2),
        weighting=WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=2),
        optim=OptimConfig(lr=0.01, **optim),
        num_steps=NUM_STEPS,
        global_batch_size=BATCH,
        autocast=autocast,
    )


def batches(first: int, stop: int):
    return [random_batch(step, BATCH) for step in range(first, stop)]


def meta_stream(first: int):
    return [random_batch(100 + number, 4) for number in range(first, NUM_STEPS)]


def save_checkpoint(state: TrainState, run: Path, *, selection: float | None = None) -> Path:
    directory = run / "checkpoints" / step_directory(state.step)
    directory.mkdir(parents=True)
    save_file(state.model.state_dict(), directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    recorded = None if selection is None else {"metric": "val/t2v_R@1", "value": selection}
    save_state(state, directory, selection=recorded)
    write_manifest(directory, step=state.step, selection=recorded)
    return directory


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path, ema_decay):
    whole = new_state(ema_decay=ema_decay)
    records = []
    train(whole, batches(0, NUM_STEPS), meta_stream(0), report=records.append)
    first = new_state(ema_decay=ema_decay)
    train(first, batches(0, 5), meta_stream(0), report=records.append)
    directory = save_checkpoint(first, tmp_path)
    second = new_state(ema_decay=ema_decay)
    load_state(second, directory)
    assert second.step == 5 and second.samples_seen == 5 * BATCH
    resumed = []
    train(second, batches(5, NUM_STEPS), meta_stream(3), report=resumed.append)
    for ours, theirs in ((second.model, whole.model), (second.weighting, whole.weighting)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    for name, value in second.evaluated_model.state_dict().items():
        assert torch.equal(value, whole.evaluated_model.state_dict()[name]), name
    assert [record.step for record in resumed] == list(range(5, NUM_STEPS))
    assert torch.equal(resumed[-1].losses, records[NUM_STEPS - 1].losses)


def test_the_loop_reports_every_step_and_stops_at_the_end_of_the_run():
    state, records = new_state(), []
    train(state, batches(0, NUM_STEPS + 3), meta_stream(0), report=records.append, measure_every=4)
    assert [record.step for record in records] == list(range(NUM_STEPS))
    assert [record.step for record in records if "meta/loss" in record.scalars] == list(range(0, NUM_STEPS, 2))
    assert [r.step for r in records if "meta/loss_before_lookahead" in r.scalars] == list(range(0, NUM_STEPS, 4))
    first = float(records[0].scalars["train/unweighted_loss"])
    assert float(records[-1].scalars["train/unweighted_loss"]) != first


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
    state.model.float()
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


def test_resuming_with_another_batch_size_is_refused(tmp_path):
    state = new_state()
    directory = save_checkpoint(state, tmp_path)
    other = new_state()
    other.global_batch_size = 16
    with pytest.raises(UserError, match="global_batch_size"):
        load_state(other, directory)


def test_a_model_with_dropout_is_refused():
    model = ToyEncoder()
    model.dropout = torch.nn.Dropout(0.1)
    with pytest.raises(UserError, match="dropout"):
        build_state(
            model,
            objective=ContrastiveConfig(),
            weighting=WeightingConfig(),
            meta=MetaConfig(),
            optim=OptimConfig(),
            num_steps=1,
            global_batch_size=2,
        )


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with checkpoints of steps 1, 2 and 3, the second one best by validation."""
    state = new_state()
    for step, score in ((1, 10.0), (2, 30.0), (3, 20.0)):
        state.step = step
        save_checkpoint(state, tmp_path, selection=score)
    return tmp_path


def test_selection_reads_validation_only(run):
    assert resolve_checkpoint(Place.of(run)).name == step_directory(2)
    evaluation = run / "evaluation"  # a better test result changes nothing
    evaluation.mkdir()
    (evaluation / "embedded.json").write_text(json.dumps({"step": 3, "t2v_R@1": 99.0}))
    assert resolve_checkpoint(Place.of(run)).name == step_directory(2)


def test_the_newest_whole_checkpoint_is_taken(run):
    assert latest_valid_checkpoint(Place.of(run)).step == 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete_file", "delete_manifest", "garble_manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_named(run, damage, caplog):
    newest = run / "checkpoints" / step_directory(3)
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "truncate":
        weights.write_bytes(content[:-10])
    elif damage == "flip":
        content[-5] ^= 1
        weights.write_bytes(content)
    elif damage == "delete_file":
        (newest / "optimizer.pt").unlink()
    elif damage == "delete_manifest":
        (newest / MANIFEST).unlink()
    else:
        (newest / MANIFEST).write_text("{")
    assert verify_manifest(Place.of(newest)) is not None
    assert latest_valid_checkpoint(Place.of(run)).step == 2
    assert step_directory(3) in caplog.text


def test_an_upload_cut_off_half_way_is_no_checkpoint(run):
    newest = run / "checkpoints" / step_directory(3)
    (newest / MANIFEST).unlink()
    (newest / UPLOADING).touch()
    assert [ref.step for ref in list_checkpoints(Place.of(run))] == [1, 2]


def test_a_run_whose_checkpoints_are_all_damaged_never_starts_afresh(run):
    for path in (run / "checkpoints").iterdir():
        (path / "train_state.json").write_text("{}")
    with pytest.raises(UserError, match="every checkpoint"):
        latest_valid_checkpoint(Place.of(run))
    assert latest_valid_checkpoint(Place.of(run / "elsewhere")) is None


def test_a_checkpoint_that_carries_code_is_not_loaded(run):
    """The optimiser's file is read with weights_only: a pickled object in its place is refused, not run."""

    class Trap:
        def __reduce__(self):
            return (Path(run / "sprung").touch, ())

    directory = run / "checkpoints" / step_directory(3)
    torch.save({"state": Trap(), "param_groups": []}, directory / "optimizer.pt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        load_state(new_state(), directory)
    assert not (run / "sprung").exists()
