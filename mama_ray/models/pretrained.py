"""Load and share models as a directory: config.json, model.safetensors and, when given, the tokenizer's files.

`from_pretrained` takes such a directory, a Hugging Face CLIP directory, a released CLIP-ViP file, or a hub id.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.key_layouts import (
    LoadReport,
)
from mama_ray.models.clip_vip.load import build, import_clip_vip_release, import_hf_clip, validated
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.hub import fetch_from_hub
from mama_ray.models.weight_files import (
    WEIGHTS_NAME,
    State,
    read_json,
    read_state,
    write_json,
    write_safetensors,
)

logger = logging.getLogger(__name__)

MODEL_TYPE = "clip_vip"


@runtime_checkable
class Saveable(Protocol):
    """What a tokenizer must offer to travel with the model."""

    def save(self, directory: Path, /) -> None: ...


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


def _load_directory(directory: Path, *, interpolate: bool, **overrides: Any) -> tuple[ClipVip, LoadReport]:
    content = read_json(directory / "config.json")
    model_type = content.pop("model_type", None)
    if model_type == "clip":
        return import_hf_clip(directory, interpolate=interpolate, **overrides)
    if model_type != MODEL_TYPE:
        raise UserError(f"{directory} holds another kind of model", got=model_type, wanted=f"{MODEL_TYPE!r} or 'clip'")
    config = validated(content, source=str(directory / "config.json"))
    return build(config, read_state(directory), overrides, source=str(directory), interpolate=interpolate)
