"""What a job's config says reaches the step that a Train worker takes; no Ray runs here."""

import pytest
import torch

from mama_ray.config import parse_config
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.worker import _build_state
from tests.weighting.toys import ToyEncoder, random_batch


def first_losses(*words: str) -> torch.Tensor:
    job = parse_config(TrainJob, ["--global_batch_size", "8", "--weighting.kind", "uniform", *words])
    state = _build_state(job, ToyEncoder(), torch.device("cpu"), 1)
    return state.weighted_step.compute_gradients(random_batch(1, 8)).losses


@pytest.mark.parametrize(
    "words",
    [
        ("--objective.margin", "0.1"),
        ("--objective.margin", "0.4"),
        ("--objective.direction_reduction", "sum"),
    ],
)
def test_margin_from_config_changes_the_loss(words):
    assert (first_losses(*words) != first_losses()).any()
