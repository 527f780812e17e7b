"""Load and share models as a directory: config.json, model.safetensors and, when given, the tokenizer's files.

`from_pretrained` takes such a directory, a Hugging Face CLIP directory, a released CLIP-ViP file, or a hub id.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pydantic

from mama_ray.errors import UserError
from mama_ray.models.clip_vip import ClipVip, ClipVipConfig
from mama_ray.models.hf_clip import config_from_hf
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.interpolate import interpolate_positions, interpolate_temporal
from mama_ray.models.key_layouts import (
    NEW_KEYS,
    POSITION_KEY,
    TEMPORAL_KEY,
    LoadReport,
    config_of_release,
    load_state,
    strip_release_layout,
)
from mama_ray.models.weight_files import (
    WEIGHTS_NAME,
    State,
    read_json,
    read_safetensors,
    read_state,
    read_torch_file,
    write_json,
    write_safetensors,
)

logger = logging.getLogger(__name__)

MODEL_TYPE = "clip_vip"
HUB_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json"]
HUB_FILES += ["vocab.json", "merges.txt", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"]
HUB_FILES += ["processor_config.json", "video_preprocessor_config.json", "generation_config.json", "chat_template.*"]
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
# A half-precision file rounds a scale that stands at its bound.
LOGIT_SCALE_TOLERANCE = 0.01


@runtime_checkable
class Saveable(Protocol):
    """What a tokenizer must offer to travel with the model."""

    def save(self, directory: Path) -> None: ...


@dataclass(frozen=True)
class CapturedModel:
    """A model's weights and the content of its config.json, apart from the model."""

    state: State
    config: dict[str, Any]


def capture_pretrained(model: ClipVip, buffers: Buffers | None = None) -> CapturedModel:
    """Copy a model to host memory: `write_pretrained` may write it while the model trains on.

    `buffers` hold the copy before, which is no longer needed.
    """
    state = copy_to_host({"model": dict(model.state_dict())}, buffers)["model"]
    return CapturedModel(state, _content_of_config(model))


def write_pretrained(captured: CapturedModel, directory: str | Path, tokenizer: Saveable | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer; config.json comes last and makes the directory whole."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").unlink(missing_ok=True)
    write_safetensors(captured.state, directory / WEIGHTS_NAME)
    if tokenizer is not None:
        tokenizer.save(directory)
    write_json(captured.config, directory / "config.json")


def save_pretrained(model: ClipVip, directory: str | Path, tokenizer: Saveable | None = None) -> None:
    """Write a model that nothing changes meanwhile, as `write_pretrained` does, without a copy in memory."""
    write_pretrained(CapturedModel(dict(model.state_dict()), _content_of_config(model)), directory, tokenizer)


def _content_of_config(model: ClipVip) -> dict[str, Any]:
    # How a machine trades memory for time is not a property of the weights.
    return {"model_type": MODEL_TYPE, **model.config.model_dump(mode="json", exclude={"gradient_checkpointing"})}


def from_pretrained(
    source: str | Path, *, interpolate: bool = False, local_files_only: bool = False, **overrides: Any
) -> ClipVip:
    """Load a model from a directory, a released CLIP-ViP file (.pt, .safetensors) or a hub id.

    `overrides` replace fields of the stored config (`num_frames=32`, `image_size=288`, `gradient_checkpointing=True`);
    where stored embeddings then have another length, `interpolate=True` resamples them, else a UserError names them.
    """
    path = Path(source)
    if path.is_file():
        model, report = import_clip_vip_release(path, interpolate=interpolate, **overrides)
    else:
        directory = path if path.is_dir() else fetch_from_hub(str(source), local_files_only=local_files_only)
        model, report = _load_directory(directory, interpolate=interpolate, **overrides)
    for keys, fate in ((report.fresh, "not in the file, freshly initialised"), (report.interpolated, "interpolated")):
        if keys:
            logger.info("%s: %s: %s", source, fate, ", ".join(keys))
    return model


def import_hf_clip(
    directory: str | Path, *, interpolate: bool = False, num_frames: int = 12, num_proxies: int = 4, **overrides: Any
) -> tuple[ClipVip, LoadReport]:
    """Load a Hugging Face CLIPModel directory; the keys of `NEW_KEYS` start fresh and are reported so."""
    directory = Path(directory)
    config = config_from_hf(directory, num_frames=num_frames, num_proxies=num_proxies)
    state = read_state(directory)
    return _build(config, state, overrides, source=str(directory), interpolate=interpolate, may_be_fresh=NEW_KEYS)


def import_clip_vip_release(
    path: str | Path, *, interpolate: bool = False, **overrides: Any
) -> tuple[ClipVip, LoadReport]:
    """Load a released CLIP-ViP checkpoint; half precision becomes float32, sizes are read off the shapes."""
    path = Path(path)
    content = read_torch_file(path) if path.suffix in TORCH_SUFFIXES else read_safetensors(path)
    state = strip_release_layout(content, str(path))
    config = config_of_release(state, str(path))
    return _build(config, state, overrides, source=str(path), interpolate=interpolate)


def _load_directory(directory: Path, *, interpolate: bool, **overrides: Any) -> tuple[ClipVip, LoadReport]:
    content = read_json(directory / "config.json")
    model_type = content.pop("model_type", None)
    if model_type == "clip":
        return import_hf_clip(directory, interpolate=interpolate, **overrides)
    if model_type != MODEL_TYPE:
        raise UserError(f"{directory} holds another kind of model", got=model_type, wanted=f"{MODEL_TYPE!r} or 'clip'")
    config = _validated(content, source=str(directory / "config.json"))
    return _build(config, read_state(directory), overrides, source=str(directory), interpolate=interpolate)


def _build(
    config: ClipVipConfig,
    state: State,
    overrides: Mapping[str, Any],
    *,
    source: str,
    interpolate: bool,
    may_be_fresh: tuple[str, ...] = (),
) -> tuple[ClipVip, LoadReport]:
    config = _validated(config.model_dump() | dict(overrides), source=f"overrides of {source}")
    interpolated: tuple[str, ...] = ()
    if interpolate:
        state, interpolated = _interpolate(state, config)
    model = ClipVip(config)
    report = load_state(model, state, source=source, may_be_fresh=may_be_fresh, interpolated=interpolated)
    low, high = model.logit_scale_bounds
    if not low - LOGIT_SCALE_TOLERANCE <= model.logit_scale.item() <= high + LOGIT_SCALE_TOLERANCE:
        raise UserError(
            f"logit scale of {source} lies out of bounds",
            got=model.logit_scale.item(),
            wanted=f"a log scale from {low} to {high:.4f}",
            remedy="store the logarithm, or widen logit_scale.min and .max",
        )
    model.clamp_logit_scale_()
    return model, report


def _interpolate(state: State, config: ClipVipConfig) -> tuple[State, tuple[str, ...]]:
    """Resample the embeddings whose length differs from the config's; return the state and their keys."""
    resampled = {}
    if POSITION_KEY in state:
        resampled[POSITION_KEY] = interpolate_positions(state[POSITION_KEY], config.image_size // config.patch_size)
    if TEMPORAL_KEY in state:
        resampled[TEMPORAL_KEY] = interpolate_temporal(state[TEMPORAL_KEY].float(), config.num_frames)
    changed = tuple(key for key, tensor in resampled.items() if tensor.shape != state[key].shape)
    return state | {key: resampled[key] for key in changed}, changed


def _validated(content: Mapping[str, Any], *, source: str) -> ClipVipConfig:
    try:
        return ClipVipConfig.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{source} is not a valid model config",
            got=f"{'.'.join(map(str, first['loc']))} = {first['input']!r}",
            wanted=first["msg"],
        ) from error


def fetch_from_hub(repo_id: str, *, local_files_only: bool = False) -> Path:
    """Fetch config, safetensors and tokenizer of a hub repository, or find them in the local cache."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo_id) or repo_id.startswith("."):
        raise UserError(
            "no such model",
            got=repo_id,
            wanted="a directory, a file or a hub id such as 'openai/clip-vit-base-patch32'",
        )
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            huggingface_hub.snapshot_download(repo_id, allow_patterns=HUB_FILES, local_files_only=local_files_only)
        )
    # OSError holds every way a download fails: no network, no such repository, not in the cache, disk full.
    except (OSError, HFValidationError) as error:
        raise UserError(
            "model is neither a local path nor a reachable hub repository",
            got=f"{repo_id} ({type(error).__name__})",
            wanted="a directory, a file or a hub id",
            remedy="check the name and the network, or download it and pass the directory",
        ) from error
