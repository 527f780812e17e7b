"""What `models/pretrained.py` asks of VIOLET, and the flat file of its release, read and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.models.config_json import validated
from mama_ray.models.outline import without_memory
from mama_ray.models.violet.key_layouts import ReleasedModel, ReleaseForm, read_release
from mama_ray.models.violet.model import Violet, VioletConfig
from mama_ray.models.violet.presets import PRESETS as PRESETS  # a part of what a backbone offers
from mama_ray.models.weight_files import (
    TORCH_SUFFIXES,
    LoadReport,
    State,
    compare_states,
    read_json,
    read_state,
    read_weights_file,
    write_safetensors,
)
from mama_ray.storage.places import whole_file

# A half-precision file rounds a scale that stands at its bound.
LOGIT_SCALE_TOLERANCE = 0.01
# What folders say nothing of that were written before these were fields: how such models learned.
_OF_EARLIER_FOLDERS = {"question_form": "fitted", "resize": "squash", "interpolation": "bicubic"}


def build_fresh(config: VioletConfig) -> Violet:
    """Build a model with new weights."""
    return Violet(config)


def load_directory(directory: Path, *, interpolate: bool = False, **overrides: Any) -> tuple[Violet, LoadReport]:
    """Load a directory of ours. No frame count or image size needs to be resampled: places come from tables."""
    config = _with_overrides(_own_config(directory), overrides, source=str(directory))
    state = read_state(directory)
    report = _require_fit(config, state, source=str(directory))
    model = Violet(config)
    model.load_state_dict(state)
    model.clamp_logit_scale_()
    return model, report


def trained_overrides(directory: Path) -> dict[str, Any]:
    """Return nothing: a directory has all weights of its model."""
    return {}


def describe_directory(directory: Path) -> VioletConfig:
    """Return the config that `load_directory` would give, with its errors: of the weights it reads names and shapes."""
    config = _own_config(directory)
    _require_fit(config, read_state(directory, values_of=("logit_scale",)), source=str(directory))
    return config


def import_violet_release(
    path: str | Path,
    *,
    content: Any = None,
    config: VioletConfig = PRESETS["violet_v2"],
    without_adapters: bool = False,
    **overrides: Any,
) -> tuple[Violet, LoadReport]:
    """Load a released VIOLETv2 file (.pt or safetensors); half precision becomes float32.

    Args:
        path: the file.
        content: its content, where it has been read already.
        config: of the weights. A file without the order embedding, the task embeddings or the head that predicts words
            loads with order_embedding=False, num_task_embeddings=0 or mlm_head=False.
        without_adapters: leave out the adapters of MAMA's fork, and take the backbone alone.
        overrides: replace fields of the config.

    The parts of the dual encoder are no part of the release: they start fresh, and the report names them.
    """
    model, report, _ = import_with_form(
        path, content=content, config=config, without_adapters=without_adapters, **overrides
    )
    return model, report


def import_with_form(
    path: str | Path,
    *,
    content: Any = None,
    config: VioletConfig = PRESETS["violet_v2"],
    without_adapters: bool = False,
    **overrides: Any,
) -> tuple[Violet, LoadReport, ReleaseForm]:
    """Load a released file as `import_violet_release` does, and say how `export_violet_release` writes it again."""
    config = _with_overrides(config, overrides, source=str(path))
    content = read_weights_file(Path(path)) if content is None else content
    expected = _shapes_of(config)
    weights, form, report = read_release(expected, content, source=str(path), without_adapters=without_adapters)
    model = Violet(config)
    model.load_state_dict(model.state_dict() | weights)
    return model, report, form


def export_violet_release(model: Violet, path: str | Path, form: ReleaseForm | None = None) -> None:
    """Write a model as a flat file of the release, .pt or safetensors: an unchanged import has its bytes again.

    Args:
        model: its parts of the dual encoder are left out.
        path: where to.
        form: of the file that it came from; by default float32 with the buffers of Video Swin.
    """
    released, path = ReleasedModel(model, form), Path(path)
    if path.suffix not in TORCH_SUFFIXES:
        write_safetensors(released.state_dict(), path)
        return
    with whole_file(path) as temporary:
        torch.save(released.state_dict(), temporary)


def _shapes_of(config: VioletConfig) -> Violet:
    """Build a model without memory."""
    with without_memory():
        return Violet(config)


def _require_fit(config: VioletConfig, state: State, *, source: str) -> LoadReport:
    """Raise UserError where a config is not that of the weights, before the memory that it asks for is taken."""
    model = _shapes_of(config)
    wanted = model.state_dict()
    report = compare_states(wanted, state)
    report.raise_if_incomplete(source)
    _require_bounded(state["logit_scale"], model.logit_scale_bounds, source)
    return report


def _require_bounded(scale: Tensor, bounds: tuple[float, float], source: str) -> None:
    low, high = bounds
    if not low - LOGIT_SCALE_TOLERANCE <= scale.item() <= high + LOGIT_SCALE_TOLERANCE:
        raise UserError(
            f"logit scale of {source} lies out of bounds",
            got=scale.item(),
            wanted=f"a log scale from {low} to {high:.4f}",
            remedy="store the logarithm, or widen logit_scale.min and .max",
        )


def _own_config(directory: Path) -> VioletConfig:
    path = directory / "config.json"
    content = _OF_EARLIER_FOLDERS | read_json(path)
    content.pop("model_type")
    return validated(VioletConfig, content, source=str(path))


def _with_overrides(config: VioletConfig, overrides: Mapping[str, Any], *, source: str) -> VioletConfig:
    return (
        validated(VioletConfig, config.model_dump() | dict(overrides), source=f"overrides of {source}")
        if overrides
        else config
    )
