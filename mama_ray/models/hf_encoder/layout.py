"""Folders of transformers: their config and weights read as ours, and the export that transformers loads."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mama_ray.data.foreign_tokenizer import LONGEST_CONTEXT
from mama_ray.data.tokenizer_match import tokenizer_beside
from mama_ray.errors import UserError
from mama_ray.models.adapters import exported_state
from mama_ray.models.clip_vip.model import LogitScaleConfig
from mama_ray.models.hf_encoder.architectures import ARCHITECTURES, image_side, refuse_unknown, validated_config
from mama_ray.models.hf_encoder.model import HfEncoder, HfEncoderConfig, log_scale_start
from mama_ray.models.hf_encoder.preprocessor import FILES, pixel_fields, read_preprocessor, write_preprocessor
from mama_ray.models.weight_files import WEIGHTS_NAME, State, read_json, write_json, write_safetensors

PREFIX = "hf."
_NOT_OF_THE_WEIGHTS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures")
_PROCESSORS = {
    "clip": "CLIPImageProcessor", "metaclip_2": "CLIPImageProcessor", "siglip": "SiglipImageProcessor",
    "siglip2": "Siglip2ImageProcessor",
}  # fmt: skip


def config_fields_from_hf(directory: Path) -> dict[str, Any]:
    """Return the fields of our config for a folder of transformers; UserError for what is no dual encoder."""
    source = str(directory)
    content = read_json(directory / "config.json")
    refuse_unknown(content, source)
    hf = validated_config(content, source=source)
    model_type = content["model_type"]
    try:
        fields = _sizes(hf) | pixel_fields(read_preprocessor(directory), model_type, source=source)
        fields["pad_id"] = _pad_id(directory, hf) if ARCHITECTURES[model_type].text != "none" else 0
        content = _plain(hf)
        if (side := image_side(content)) is not None:
            fields["image_size"] = side  # the weights' own; a processor may make larger images for another model
    except (AttributeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{directory / 'config.json'} is not a usable config", got=str(error)) from error
    if "image_size" not in fields:
        raise UserError(f"{source} does not say the size of its images", wanted=f"size in {FILES[1]}")
    return fields | {"hf": content}


def _sizes(hf: Any) -> dict[str, Any]:
    text, vision = hf.text_config, getattr(hf, "vision_config", None)
    widths = {"siglip": vision, "siglip2": vision, "videoprism": vision, "pe_video": text}
    sizes = {
        "dim": widths[hf.model_type].hidden_size if hf.model_type in widths else hf.projection_dim,
        "vocab_size": text.vocab_size,
        "context_length": min(text.max_position_embeddings, LONGEST_CONTEXT),
    }
    if ARCHITECTURES[hf.model_type].has_fixed_frames:
        sizes["num_frames"] = hf.vision_config.num_frames
    if ARCHITECTURES[hf.model_type].scale is None:
        sizes["logit_scale"] = LogitScaleConfig(init=log_scale_start()).model_dump()
    return sizes


def _pad_id(directory: Path, hf: Any) -> int:
    tokenizer = tokenizer_beside(directory)
    if tokenizer is not None:
        return tokenizer.pad_id
    return hf.text_config.pad_token_id or 0


def _plain(hf: Any) -> dict[str, Any]:
    """Return a config's every field, also those at their defaults, which another version may have changed."""
    content = json.loads(hf.to_json_string(use_diff=False))
    return {name: value for name, value in content.items() if name not in _NOT_OF_THE_WEIGHTS}


def state_from_hf(state: State, model_type: str, names: set[str]) -> State:
    """Rename transformers' tensors to ours; `names` are those of our model."""
    architecture = ARCHITECTURES[model_type]
    ours: State = {}
    for name, tensor in state.items():
        if name.endswith("position_ids") and PREFIX + name not in names:
            continue  # a buffer that older versions saved
        if name == architecture.scale:
            # On the meta device only the shape matters.
            value = tensor if architecture.scale_is_log else tensor.float().log()
            ours["logit_scale"] = value.reshape(()) if value.numel() == 1 else value
        elif name == architecture.bias:
            ours["logit_bias"] = tensor.reshape(()) if tensor.numel() == 1 else tensor
        else:
            ours[PREFIX + name] = tensor
    return ours


def state_to_hf(state: State, model_type: str) -> State:
    """Return the tensors of our model under transformers' names; those of a pooling that was learned have none."""
    architecture = ARCHITECTURES[model_type]
    theirs = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    shape: tuple[int, ...] = () if model_type in ("clip", "metaclip_2") else (1,)
    if architecture.scale is not None:
        scale = state["logit_scale"]
        theirs[architecture.scale] = _of_shape(scale if architecture.scale_is_log else scale.exp(), shape)
    if architecture.bias is not None:
        theirs[architecture.bias] = _of_shape(state["logit_bias"], shape)
    return theirs


def _of_shape(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    return value.detach().reshape(shape)


@torch.no_grad()
def export_to_hf(model: HfEncoder, directory: str | Path, tokenizer: Any | None = None) -> None:
    """Write a folder that transformers loads, with the same features of one frame, or of videos; adapters are merged.

    UserError for a pooling that was learned: transformers has no place for it.
    """
    if model.config.temporal_layers:
        raise UserError(
            "transformers has no place for a learned pooling over time",
            got=f"temporal_layers {model.config.temporal_layers}",
            wanted="0",
            remedy="save_pretrained keeps it",
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config: HfEncoderConfig = model.config
    model_type = config.hf["model_type"]
    (directory / "config.json").unlink(missing_ok=True)  # a directory without it is not taken for a model
    write_safetensors(state_to_hf(exported_state(model), model_type), directory / WEIGHTS_NAME)
    name = FILES[0] if ARCHITECTURES[model_type].takes_videos else FILES[1]
    write_json(write_preprocessor(config, _PROCESSORS.get(model_type)), directory / name)
    if tokenizer is not None:
        tokenizer.save(directory)
    write_json({**config.hf, "architectures": [ARCHITECTURES[model_type].model_class]}, directory / "config.json")
