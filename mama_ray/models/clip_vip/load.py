"""What `models/pretrained.py` asks of CLIP-ViP; the files of others: Hugging Face's CLIP, the released checkpoints.

Every import tells what was not in the file and what was interpolated.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.hf_layout import config_from_hf
from mama_ray.models.clip_vip.key_layouts import (
    NEW_KEYS,
    POSITION_KEY,
    TEMPORAL_KEY,
    config_of_release,
    load_state,
    strip_release_layout,
)
from mama_ray.models.clip_vip.model import ClipVip, ClipVipConfig
from mama_ray.models.clip_vip.presets import PRESETS as PRESETS  # a part of what a backbone offers
from mama_ray.models.config_json import validated
from mama_ray.models.interpolate import interpolate_positions, interpolate_temporal
from mama_ray.models.weight_files import (
    LoadReport,
    State,
    read_json,
    read_state,
    read_weights_file,
)

# A half-precision file rounds a scale that stands at its bound.
LOGIT_SCALE_TOLERANCE = 0.01
_FEW_LAYERS, _FEW_WEIGHTS = 8, 10_000_000  # more than the weights have; they cost nothing to find out


def build_fresh(config: ClipVipConfig) -> ClipVip:
    """Build a model with new weights."""
    return ClipVip(config)


def load_directory(directory: Path, *, interpolate: bool = False, **overrides: Any) -> tuple[ClipVip, LoadReport]:
    """Load a directory of ours, or a Hugging Face CLIPModel's."""
    if _is_hf_clip(directory):
        return import_hf_clip(directory, interpolate=interpolate, **overrides)
    return _build(
        _own_config(directory), read_state(directory), overrides, source=str(directory), interpolate=interpolate
    )


def trained_overrides(directory: Path) -> dict[str, Any]:
    """Return what to replace in a directory's config so that the model has no new weights that change its features.

    CLIP's has no extra proxies, and new ones are random. Without them one frame has CLIP's own features.
    """
    return {"num_proxies": 1} if _is_hf_clip(directory) else {}


def describe_directory(directory: Path) -> ClipVipConfig:
    """Return the config that `load_directory` would give, with its errors: of the weights it reads names and shapes."""
    is_hf = _is_hf_clip(directory)
    config = config_from_hf(directory) if is_hf else _own_config(directory)
    state = read_state(directory, values_of=("logit_scale",))
    model = _require_fit(config, state, source=str(directory), may_be_fresh=NEW_KEYS if is_hf else ())
    _require_bounded(state["logit_scale"].float().item(), model.logit_scale_bounds, str(directory))
    return config


def _require_fit(config: ClipVipConfig, state: State, *, source: str, may_be_fresh: tuple[str, ...]) -> ClipVip:
    """Raise UserError where a config is not that of the weights, before the memory that it asks for is taken; returns
    the model without memory."""
    _require_layers(config, state, source)
    with torch.device("meta"):
        model = ClipVip(config)
        shapes = {name: tensor.to("meta") for name, tensor in state.items()}
        load_state(model, shapes, source=source, may_be_fresh=may_be_fresh)
    return model


def _require_layers(config: ClipVipConfig, state: State, source: str) -> None:
    """Raise UserError where the weights have other layers: a model of many takes long to build, even without memory."""
    for tower, size in (("vision_model", config.video), ("text_model", config.text)):
        layers = {m[1] for key in state if (m := re.match(rf"{tower}\.encoder\.layers\.(\d+)\.", key))}
        if size.num_layers > 2 * len(layers) + _FEW_LAYERS:
            got = f"{len(layers)} layers of {tower}"
            raise UserError(f"weights of {source} do not fit the model", got=got, wanted=size.num_layers)


def _num_weights(config: ClipVipConfig) -> int:
    """About how many weights a model has."""
    towers = (config.video, config.text)
    places = (config.image_size // config.patch_size) ** 2 + config.num_frames + config.num_proxies
    places += 3 * config.patch_size**2
    inputs = config.video.width * places + config.text.width * (config.vocab_size + config.context_length)
    return inputs + sum(tower.width**2 * (4 + 2 * tower.mlp_ratio) * tower.num_layers for tower in towers)


def _is_hf_clip(directory: Path) -> bool:
    return read_json(directory / "config.json").get("model_type") == "clip"


def _own_config(directory: Path) -> ClipVipConfig:
    path = directory / "config.json"
    content = read_json(path)
    content.pop("model_type")
    return validated(ClipVipConfig, content, source=str(path))


def import_hf_clip(
    directory: str | Path, *, interpolate: bool = False, num_frames: int = 12, num_proxies: int = 4, **overrides: Any
) -> tuple[ClipVip, LoadReport]:
    """Load a Hugging Face CLIPModel directory; the keys of `NEW_KEYS` start fresh and are reported so."""
    directory = Path(directory)
    config = config_from_hf(directory, num_frames=num_frames, num_proxies=num_proxies)
    state = read_state(directory)
    return _build(config, state, overrides, source=str(directory), interpolate=interpolate, may_be_fresh=NEW_KEYS)


def import_clip_vip_release(
    path: str | Path, *, content: Any = None, interpolate: bool = False, **overrides: Any
) -> tuple[ClipVip, LoadReport]:
    """Load a released CLIP-ViP checkpoint; half precision becomes float32, sizes are read off the shapes.

    `content` is the file's, where it has been read already.
    """
    path = Path(path)
    state = strip_release_layout(read_weights_file(path) if content is None else content, str(path))
    config = config_of_release(state, str(path))
    return _build(config, state, overrides, source=str(path), interpolate=interpolate)


def _build(
    config: ClipVipConfig,
    state: State,
    overrides: Mapping[str, Any],
    *,
    source: str,
    interpolate: bool,
    may_be_fresh: tuple[str, ...] = (),
) -> tuple[ClipVip, LoadReport]:
    """Build a model of `config` with `overrides` and fill it from a state dict; the report says what came from where.

    Keys of `may_be_fresh` may be absent; every other that is missing or of another shape is a UserError.
    """
    config = validated(ClipVipConfig, config.model_dump() | dict(overrides), source=f"overrides of {source}")
    interpolated: tuple[str, ...] = ()
    if interpolate:
        state, interpolated = _interpolate(state, config)
    _require_layers(config, state, source)
    if _num_weights(config) > 2 * sum(tensor.numel() for tensor in state.values()) + _FEW_WEIGHTS:
        _require_fit(config, state, source=source, may_be_fresh=may_be_fresh)
    model = ClipVip(config)
    report = load_state(model, state, source=source, may_be_fresh=may_be_fresh, interpolated=interpolated)
    _require_bounded(model.logit_scale.item(), model.logit_scale_bounds, source)
    model.clamp_logit_scale_()
    return model, report


def _require_bounded(scale: float, bounds: tuple[float, float], source: str) -> None:
    low, high = bounds
    if not low - LOGIT_SCALE_TOLERANCE <= scale <= high + LOGIT_SCALE_TOLERANCE:
        raise UserError(
            f"logit scale of {source} lies out of bounds",
            got=scale,
            wanted=f"a log scale from {low} to {high:.4f}",
            remedy="store the logarithm, or widen logit_scale.min and .max",
        )


def _interpolate(state: State, config: ClipVipConfig) -> tuple[State, tuple[str, ...]]:
    """Resample the embeddings whose length differs from the config's; return the state and their keys."""
    resampled = {}
    if POSITION_KEY in state:
        resampled[POSITION_KEY] = interpolate_positions(state[POSITION_KEY], config.image_size // config.patch_size)
    if TEMPORAL_KEY in state:
        resampled[TEMPORAL_KEY] = interpolate_temporal(state[TEMPORAL_KEY].float(), config.num_frames)
    changed = tuple(key for key, tensor in resampled.items() if tensor.shape != state[key].shape)
    return state | {key: resampled[key] for key in changed}, changed
