"""Runs of classifiers and of ranking losses on toys: they resume bit for bit, with SGD too, heads at their own rate."""

from pathlib import Path

import pytest
import torch

from mama_ray.models.heads.classes import ClassHeads, capture_class_head, write_class_head
from mama_ray.objectives.classification import ClassificationObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.checkpoint import load_state
from mama_ray.training.loop import train
from mama_ray.training.optim import learning_rate_at
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from tests.training.toy_runs import save_checkpoint
from tests.weighting.test_class_model import SIZES, class_batch, class_model
from tests.weighting.toys import ToyEncoder

NUM_STEPS, SIZE = 6, 6
CASES = {
    "three heads, sgd": {"task": True, "optim": {"optimizer": "sgd", "weight_decay": 4e-5}},
    "heads and contrast": {"task": True, "optim": {"ema_decay": 0.5}, "objective": ContrastiveConfig()},
    "multi_similarity": {"optim": {}, "objective": ContrastiveConfig(loss="multi_similarity")},
    "max_margin, sgd": {"optim": {"optimizer": "sgd"}, "objective": ContrastiveConfig(loss="max_margin")},
}


def new_state(*, task: bool = False, optim: dict, objective: ContrastiveConfig | None = None, **options) -> TrainState:
    of_task = {}
    if task:
        of_task = {"head": class_model().head, "task": ClassificationObjective(tuple(SIZES.items()), 0.1)}
    return build_state(
        class_model().model if task else ToyEncoder(),
        objective=objective,
        weighting=WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=2),
        optim=OptimConfig(lr=0.01, **optim),
        num_steps=NUM_STEPS,
        global_batch_size=SIZE,
        **of_task,
        **options,
    )


def run(state: TrainState, stop: int) -> None:
    batches = [class_batch(step, SIZE) for step in range(state.step, stop)]
    train(state, batches, [class_batch(100 + step, 4) for step in range(state.step, stop, 2)], report=lambda _: None)


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path: Path, case):
    whole, first, second = (new_state(**CASES[case]) for _ in range(3))
    before = {name: value.clone() for name, value in whole.feature_model.state_dict().items()}
    run(whole, NUM_STEPS)
    run(first, 4)
    directory = save_checkpoint(first, tmp_path)
    if isinstance(first.evaluated_head, ClassHeads):
        write_class_head(capture_class_head(first.evaluated_head, ("0:1",)), directory)
    load_state(second, directory)
    run(second, NUM_STEPS)
    ours, theirs = ({**s.feature_model.state_dict(), **s.weighting.state_dict()} for s in (whole, second))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert any(not torch.equal(value, before[name]) for name, value in ours.items() if name in before)


def test_the_heads_have_a_share_of_the_learning_rate_of_their_own_at_every_step():
    """LaViLa's release gives the towers' rate to all; its text gives heads ten times as much."""
    state = new_state(task=True, optim={"optimizer": "sgd"}, head_lr_scale=10.0)
    run(state, NUM_STEPS - 1)
    rates = {id(value): group["lr"] for group in state.optimizer.param_groups for value in group["params"]}
    (of_heads,) = {rates[id(value)] for value in state.head.parameters()}
    (of_model,) = {rates[id(value)] for value in state.model.parameters()}
    assert of_heads == pytest.approx(10 * of_model) and 0 < of_model < 0.01


def test_a_rate_that_neither_rises_nor_falls_is_constant_to_the_bit():
    config = OptimConfig(lr=3e-5, warmup_share=0.0, final_lr_share=1.0)
    assert {learning_rate_at(step, 1000, config) for step in range(1000)} == {3e-5}


def test_sgd_is_torchs_own_with_decay_on_matrices_alone():
    state = new_state(optim={"optimizer": "sgd", "momentum": 0.8, "warmup_share": 0.0}, objective=ContrastiveConfig())
    assert isinstance(state.optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in state.optimizer.param_groups} == {0.8}
    decays = {value.ndim: g["weight_decay"] for g in state.optimizer.param_groups for value in g["params"]}
    assert decays == {0: 0.0, 1: 0.0, 2: 0.05}
