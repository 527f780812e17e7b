"""A run that learns to answer, with dropout and batch statistics: it resumes bit for bit, its head at its own rate."""

from pathlib import Path

import pytest
import torch

from mama_ray.models.heads.folder import capture_head, write_head
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.checkpoint import load_state
from mama_ray.training.loop import train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.training.toy_runs import save_checkpoint
from tests.weighting.answering_toys import ETA, NoisyHead, question_batch
from tests.weighting.test_directional import small_clip
from tests.weighting.toys import DTYPE

NUM_STEPS, SIZE, ANSWERS = 6, 6, ("a", "b", "c", "d")


def new_state(**options) -> TrainState:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = NoisyHead().to(DTYPE)
    return build_state(
        small_clip(),
        head=head,
        task=AnsweringObjective(),
        eta=ETA,
        objective=ContrastiveConfig(margin=0.2),
        weighting=WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=2),
        optim=OptimConfig(lr=0.01, ema_decay=0.5),
        num_steps=NUM_STEPS,
        global_batch_size=SIZE,
        **options,
    )


def run(state: TrainState, stop: int) -> None:
    batches = [question_batch(step, SIZE) for step in range(state.step, stop)]
    train(state, batches, [question_batch(100 + step, 3) for step in range(state.step, stop, 2)], report=lambda _: None)


def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path: Path):
    whole, first, second = new_state(), new_state(), new_state()
    run(whole, NUM_STEPS)
    run(first, 4)
    directory = save_checkpoint(first, tmp_path)
    write_head(capture_head(first.evaluated_head, ANSWERS), directory)
    load_state(second, directory)
    torch.manual_seed(99)  # the generator as it stands has no say in what dropout draws
    run(second, NUM_STEPS)
    ours, theirs = (
        {**state.feature_model.state_dict(), **state.weighting.state_dict(), **state.head_ema.state_dict()}
        for state in (whole, second)
    )
    assert any("running_mean" in name for name in ours)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("share", [0.0, 10.0])
def test_the_head_has_a_share_of_the_learning_rate(share):
    state, plain = new_state(head_lr_scale=share), new_state()
    before = {name: value.clone() for name, value in state.feature_model.named_parameters()}
    run(state, 1)
    run(plain, 1)
    for name, value in plain.feature_model.named_parameters():
        own = state.feature_model.get_parameter(name)
        if not name.startswith("head."):
            assert torch.equal(own, value)
        elif share == 0:
            assert torch.equal(own, before[name])
        elif not torch.equal(value, before[name]):
            assert not torch.equal(own, value)
