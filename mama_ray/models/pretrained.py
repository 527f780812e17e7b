"""Load and share models as a directory: config.json, model.safetensors and, when given, the tokenizer's files.

`from_pretrained` takes such a directory, that of a dual encoder of Hugging Face, a released file (CLIP-ViP, LaViLa,
VGT, VIOLETv2), or a hub id. `hf:` before a directory or hub id means the model as transformers computes it;
`timesformer:` and `joint:` make another video model of CLIP's. Without a prefix CLIP's becomes a CLIP-ViP.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mama_ray.config import with_overrides
from mama_ray.errors import UserError, unknown_name
from mama_ray.models.adapters import exported_state
from mama_ray.models.clip_vip import load as clip_vip
from mama_ray.models.dual_encoder import Backbone, DualEncoder, DualEncoderConfig
from mama_ray.models.hf_encoder import load as hf_encoder
from mama_ray.models.hf_encoder.architectures import ARCHITECTURES, refuse_unknown
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.hub import HF_PREFIX, fetch_from_hub, prefix_of, without_prefix
from mama_ray.models.outline import without_memory
from mama_ray.models.timesformer import load as timesformer
from mama_ray.models.timesformer.from_clip import ClipStart
from mama_ray.models.timesformer.key_layouts import is_release as is_lavila_release
from mama_ray.models.vgt import load as vgt
from mama_ray.models.vgt.key_layouts import is_release as is_vgt_release
from mama_ray.models.violet import load as violet
from mama_ray.models.violet.key_layouts import is_release as is_violet_release
from mama_ray.models.weight_files import (
    WEIGHTS_NAME,
    LoadReport,
    State,
    read_json,
    read_weights_file,
    write_json,
    write_safetensors,
)
from mama_ray.storage.manifest import require_whole_model

logger = logging.getLogger(__name__)

# By the model_type in config.json; a new backbone is a folder and a line here. "clip" is Hugging Face's CLIPModel.
BACKBONES: dict[str, Backbone] = {
    "clip_vip": clip_vip,
    "hf_encoder": hf_encoder,
    **dict.fromkeys(ARCHITECTURES, hf_encoder),
    "clip": clip_vip,
    "timesformer": timesformer,
    "vgt": vgt,
    "violet": violet,
}

# By the prefix of a source: what a CLIP folder becomes.
_FROM_CLIP: dict[str, Backbone] = {"timesformer:": ClipStart("divided"), "joint:": ClipStart("joint")}


@runtime_checkable
class Saveable(Protocol):
    """What a tokenizer must offer to travel with the model."""

    def save(self, directory: Path, /) -> None: ...


@dataclass(frozen=True)
class CapturedModel:
    """A model's weights and the content of its config.json, apart from the model."""

    state: State
    config: dict[str, Any]


def capture_pretrained(model: DualEncoder, buffers: Buffers | None = None) -> CapturedModel:
    """Copy a model to host memory, its adapters merged: `write_pretrained` may write it while the model trains on.

    `buffers` hold the copy before, which is no longer needed.
    """
    state = copy_to_host({"model": exported_state(model)}, buffers)["model"]
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


def save_pretrained(model: DualEncoder, directory: str | Path, tokenizer: Saveable | None = None) -> None:
    """Write a model that nothing changes meanwhile, as `write_pretrained` does, without a copy in memory."""
    write_pretrained(CapturedModel(exported_state(model), _content_of_config(model)), directory, tokenizer)


def _content_of_config(model: DualEncoder) -> dict[str, Any]:
    # How a machine trades memory for time is not a property of the weights.
    return {"model_type": model.model_type, **model.config.model_dump(mode="json", exclude={"gradient_checkpointing"})}


def from_pretrained(
    source: str | Path,
    *,
    interpolate: bool = False,
    local_files_only: bool = False,
    trained_only: bool = False,
    **overrides: Any,
) -> DualEncoder:
    """Load a model from a directory, a released file (.pt, .safetensors) or a hub id.

    `overrides` replace fields of the stored config (`num_frames=32`, `image_size=288`, `gradient_checkpointing=True`);
    where stored embeddings then have another length, `interpolate=True` resamples them, else a UserError names them.
    A directory with a manifest, as checkpoints and their copies have, is compared with it first.
    `trained_only` is for who takes features and does not train: a part of the model that the source has no weights for
    is left out, as far as it would be random and change them.
    """
    prefix, name = prefix_of(str(source)), without_prefix(str(source))
    path = Path(name)
    if os.path.isfile(path) and not prefix:  # unlike Path's, it does not raise for what can be no path
        model, report = _import_release(path, interpolate=interpolate, **overrides)
    else:
        directory = path if os.path.isdir(path) else fetch_from_hub(name, local_files_only=local_files_only)
        backbone = _backbone_of(directory, prefix)
        require_whole_model(directory)
        kept = backbone.trained_overrides(directory) if trained_only else {}
        model, report = backbone.load_directory(directory, interpolate=interpolate, **(kept | overrides))
    for keys, fate in ((report.fresh, "not in the file, freshly initialised"), (report.interpolated, "interpolated")):
        if keys:
            logger.info("%s: %s: %s", source, fate, ", ".join(keys))
    model.new_weights = report.fresh
    return model


def _import_release(path: Path, *, interpolate: bool, **overrides: Any) -> tuple[DualEncoder, LoadReport]:
    """Load a released file, whose keys say whose it is."""
    content = read_weights_file(path)
    if is_lavila_release(content):
        return timesformer.import_lavila_release(path, content=content, interpolate=interpolate, **overrides)
    if is_vgt_release(content):
        return vgt.import_vgt_release(path, content=content, **overrides)
    if is_violet_release(content):
        return violet.import_violet_release(path, content=content, **overrides)
    return clip_vip.import_clip_vip_release(path, content=content, interpolate=interpolate, **overrides)


def model_type_of(source: Path) -> str:
    """Return the model_type of a directory's config.json, or whose a released file is by its keys.

    Raises UserError where the directory holds a model of another kind.
    """
    if source.is_dir():
        content = read_json(source / "config.json")
        _backbone_of(source)
        return str(content["model_type"])
    content = read_weights_file(source)
    of_release = {"timesformer": is_lavila_release, "vgt": is_vgt_release, "violet": is_violet_release}
    return next((name for name, is_its in of_release.items() if is_its(content)), "clip_vip")


def describe_model(directory: Path, *, prefix: str = "") -> DualEncoderConfig:
    """Return the config of the model in a directory, with the errors of `from_pretrained`, without its weights.

    `prefix` is what the directory was named with.
    """
    require_whole_model(directory)
    return _backbone_of(directory, prefix).describe_directory(directory)


def outline_preset(name: str) -> DualEncoder:
    """Build a preset's model without memory for its weights: their names and shapes."""
    with without_memory():
        return from_preset(name, {})


def outline_model(directory: Path, *, prefix: str = "") -> DualEncoder:
    """Build the model of a directory without memory for its weights, with the errors of `describe_model`."""
    config = describe_model(directory, prefix=prefix)
    with without_memory():
        return _backbone_of(directory, prefix).build_fresh(config)


def _backbone_of(directory: Path, prefix: str = "") -> Backbone:
    content = read_json(directory / "config.json")
    model_type = content.get("model_type")
    if prefix in _FROM_CLIP:
        return _FROM_CLIP[prefix]
    if prefix == HF_PREFIX and model_type != "hf_encoder":
        refuse_unknown(content, str(directory))
        return hf_encoder
    if not isinstance(model_type, str) or model_type not in BACKBONES:
        wanted = " or ".join(map(repr, BACKBONES))
        raise UserError(f"{directory} holds another kind of model", got=model_type, wanted=wanted)
    return BACKBONES[model_type]


def preset(name: str) -> DualEncoderConfig:
    """Return the config of a preset; UserError for an unknown name."""
    return _backbone_with(name).PRESETS[name]


def model_type_of_preset(name: str) -> str:
    """Return the model_type in config.json of a preset's models; UserError for an unknown name."""
    backbone = _backbone_with(name)
    return next(model_type for model_type, one in BACKBONES.items() if one is backbone)


def from_preset(name: str, overrides: Mapping[str, Any]) -> DualEncoder:
    """Build a preset's model with new weights; `overrides` replace fields of its config, by dotted key."""
    backbone = _backbone_with(name)
    return backbone.build_fresh(with_overrides(backbone.PRESETS[name], overrides))


def with_new_weights(model: DualEncoder) -> DualEncoder:
    """Build a model of the same backbone and config with new weights."""
    return BACKBONES[model.model_type].build_fresh(model.config)


def _backbone_with(preset_name: str) -> Backbone:
    backbones = {name: backbone for backbone in BACKBONES.values() for name in backbone.PRESETS}
    if preset_name not in backbones:
        raise unknown_name("model preset", preset_name, backbones)
    return backbones[preset_name]
