"""Training runs of a toy encoder, and their checkpoints, for the tests of this folder."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.checkpoint import save_state
from mama_ray.training.manifest import (
    step_directory,
    write_manifest,
)
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState, build_state
from mama_ray.weighting.features import Autocast
from mama_ray.weighting.settings import InnerStepConfig, MetaConfig, WeightingConfig
from tests.weighting.toys import ToyEncoder, random_batch, with_columns, with_generated

NUM_STEPS, BATCH = 12, 8


def new_state(
    *,
    autocast: Autocast = nullcontext,
    objective: ContrastiveConfig | None = None,
    inner: InnerStepConfig | None = None,
    meta: dict[str, Any] | None = None,
    weighting: WeightingConfig | None = None,
    **optim,
) -> TrainState:
    return build_state(
        ToyEncoder(),
        objective=objective or ContrastiveConfig(margin=0.2),
        weighting=weighting or WeightingConfig(hidden_dim=8),
        meta=MetaConfig(meta_every=2, inner=inner or InnerStepConfig(), **(meta or {})),
        optim=OptimConfig(lr=0.01, **optim),
        num_steps=NUM_STEPS,
        global_batch_size=BATCH,
        autocast=autocast,
        num_samples=BATCH,
    )


def batches(first: int, stop: int):
    return [with_columns(random_batch(step, BATCH), step) for step in range(first, stop)]


def paired_batches(first: int, stop: int):
    """The same with generated captions."""
    return [with_generated(batch, step) for step, batch in enumerate(batches(first, stop), start=first)]


def meta_stream(first: int):
    return [random_batch(100 + number, 4) for number in range(first, NUM_STEPS)]


def save_checkpoint(state: TrainState, run: Path, *, selection: float | None = None) -> Path:
    directory = run / "checkpoints" / step_directory(state.step)
    directory.mkdir(parents=True)
    save_file(state.evaluated_model.state_dict(), directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    recorded = None if selection is None else {"metric": "val/t2v_R@1", "value": selection}
    save_state(state, directory, selection=recorded)
    write_manifest(directory, step=state.step, selection=recorded)
    return directory
