"""What `models/pretrained.py` asks of transformers' dual encoders: folders of theirs, and of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mama_ray.errors import UserError
from mama_ray.models.config_json import validated
from mama_ray.models.hf_encoder.layout import config_fields_from_hf, state_from_hf
from mama_ray.models.hf_encoder.model import HfEncoder, HfEncoderConfig
from mama_ray.models.hf_encoder.presets import PRESETS as PRESETS  # a part of what a backbone offers
from mama_ray.models.interpolate import interpolate_temporal
from mama_ray.models.weight_files import LoadReport, State, compare_states, read_json, read_state

TEMPORAL_KEY = "pooling.temporal_embedding"
_LOGIT_SCALE_TOLERANCE = 0.01  # a half-precision file rounds a scale that stands at its bound


def build_fresh(config: HfEncoderConfig) -> HfEncoder:
    """Build a model with new weights."""
    return HfEncoder(config)


def trained_overrides(directory: Path) -> dict[str, Any]:
    """Return {}: what is new in a model, the pooling over time, leaves the features as they are."""
    return {}


def load_directory(directory: Path, *, interpolate: bool = False, **overrides: Any) -> tuple[HfEncoder, LoadReport]:
    """Load a directory of ours, or one of transformers' dual encoders."""
    stored, is_own = _stored_fields(directory)
    config = validated(
        HfEncoderConfig, stored | overrides, source=f"overrides of {directory}" if overrides else str(directory)
    )
    state = read_state(directory)
    skeleton = _skeleton(config)
    may_be_fresh = _may_be_fresh(skeleton, stored, is_own)
    state = state if is_own else state_from_hf(state, config.hf["model_type"], set(skeleton.state_dict()))
    interpolated: tuple[str, ...] = ()
    if interpolate and TEMPORAL_KEY in state and state[TEMPORAL_KEY].shape[1] != config.num_frames:
        state = state | {TEMPORAL_KEY: interpolate_temporal(state[TEMPORAL_KEY].float(), config.num_frames)}
        interpolated = (TEMPORAL_KEY,)
    report = _fit(skeleton, state, source=str(directory), may_be_fresh=may_be_fresh, interpolated=interpolated)
    model = HfEncoder(config)  # only now: the memory that a config asks for is that of the weights
    model.load_state_dict(dict(model.state_dict()) | state)
    _require_bounded(model.logit_scale.item(), model.logit_scale_bounds, str(directory))
    model.clamp_logit_scale_()
    return model, report


def describe_directory(directory: Path) -> HfEncoderConfig:
    """Return the config that `load_directory` would give, with its errors: of the weights it reads names and shapes."""
    stored, is_own = _stored_fields(directory)
    config = validated(HfEncoderConfig, stored, source=str(directory))
    skeleton = _skeleton(config)
    scale = skeleton.architecture.scale
    kept = ("logit_scale",) if is_own or scale is None else (scale,)
    state = read_state(directory, values_of=kept)
    state = state if is_own else state_from_hf(state, config.hf["model_type"], set(skeleton.state_dict()))
    _fit(skeleton, state, source=str(directory), may_be_fresh=_may_be_fresh(skeleton, stored, is_own))
    if "logit_scale" in state:
        _require_bounded(state["logit_scale"].float().item(), skeleton.logit_scale_bounds, str(directory))
    return config


def _stored_fields(directory: Path) -> tuple[dict[str, Any], bool]:
    """Return the fields of the config for a directory, and whether it is one of ours."""
    content = read_json(directory / "config.json")
    if content.get("model_type") != HfEncoder.model_type:
        return config_fields_from_hf(directory), False
    content.pop("model_type")
    return content, True


def _skeleton(config: HfEncoderConfig) -> HfEncoder:
    """Build the model without memory."""
    with torch.device("meta"):
        return HfEncoder(config)


def _may_be_fresh(skeleton: HfEncoder, stored: Mapping[str, Any], is_own: bool) -> set[str]:
    names = set()
    if not stored.get("temporal_layers"):  # layers that the caller asks for
        names |= {name for name in skeleton.state_dict() if name.startswith("pooling.")}
    if not is_own and skeleton.architecture.scale is None:
        names.add("logit_scale")
    return names


def _fit(
    skeleton: HfEncoder,
    state: State,
    *,
    source: str,
    may_be_fresh: set[str],
    interpolated: tuple[str, ...] = (),
) -> LoadReport:
    """Compare names and shapes with the model's; UserError unless they are the same but for `may_be_fresh`."""
    report = compare_states(skeleton.state_dict(), state, may_be_fresh=may_be_fresh, interpolated=interpolated)
    report.raise_if_incomplete(source)
    return report


def _require_bounded(scale: float, bounds: tuple[float, float], source: str) -> None:
    low, high = bounds
    if not low - _LOGIT_SCALE_TOLERANCE <= scale <= high + _LOGIT_SCALE_TOLERANCE:
        raise UserError(
            f"logit scale of {source} lies out of bounds", got=scale, wanted=f"a log scale from {low} to {high:.4f}"
        )
