"""The dual encoders of transformers that are known: what their towers take, and under which names they keep sizes.

One line per architecture; everything else of a model is transformers' own code, so its features are transformers' own.
Not here, because a tower sees the other's input or there is only one: X-CLIP (its texts see the video), BLIP, OWL-ViT.
transformers is imported inside the functions: only these folders need it, and it takes seconds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.models.hf_encoder.attention import ATTENTION, register_attention

_MOST_LAYERS = 200
FillRule = Literal["none", "fill", "mask"]
Pixels = Float[Tensor, "batch frames height width c"]


@dataclass(frozen=True)
class Architecture:
    """How one architecture of transformers is asked.

    Attributes:
        model_class: its name in transformers.
        takes_videos: the model sees all frames of a clip at once; else each frame by itself.
        video_features: the model and normalised pixels to features before their norm is taken: (batch, dim) of a model
            that takes videos, (batch * frames, dim) of one that takes images.
        text: "none": what stands behind the end token does not matter; "fill": texts are filled up to the context and
            the filling is seen, as in training; "mask": the filling is masked.
        text_features: model, token ids and mask (None unless `text` is "mask") to features before their norm is taken.
        scale: names of the parameters for the inverse temperature and the bias; None where it has none.
        scale_is_log: whether the file has the scale's logarithm.
        has_fixed_frames: whether the weights are for a number of frames, and others are interpolated.
    """

    model_class: str
    takes_videos: bool
    video_features: Callable[[Any, Pixels], Tensor]
    text: FillRule
    text_features: Callable[[Any, Int[Tensor, "texts tokens"], Tensor | None], Tensor]
    scale: str | None = "logit_scale"
    bias: str | None = None
    scale_is_log: bool = True
    has_fixed_frames: bool = False


def _images(model: Any, pixels: Pixels) -> Tensor:
    return model.get_image_features(rearrange(pixels, "b t h w c -> (b t) c h w").contiguous()).pooler_output


def _patches(model: Any, pixels: Pixels) -> Tensor:
    """SigLIP 2's NaFlex form: patches of any grid, in the order (row, column), each (row, column, channel)."""
    size = model.config.vision_config.patch_size
    patches = rearrange(pixels, "b t (rows i) (columns j) c -> (b t) (rows columns) (i j c)", i=size, j=size)
    # Every frame has the same grid, so nothing is padded and masked, and the shapes are not looked at.
    return model.vision_model(patches, pixel_attention_mask=None, spatial_shapes=None).pooler_output


def _videoprism(model: Any, pixels: Pixels) -> Tensor:
    videos = rearrange(pixels, "b t h w c -> b t c h w").contiguous()
    is_other = videos.shape[1] != model.config.vision_config.num_frames
    features = model.get_video_features(videos, interpolate_pos_encoding=is_other).pooler_output
    return features.flatten(0, 1)  # the pooling head's one query is an axis of its own


def _pe_video(model: Any, pixels: Pixels) -> Tensor:
    videos = rearrange(pixels, "b t h w c -> b t c h w").contiguous()
    return model.video_head(model.video_encoder(videos).pooler_output)


def _texts(model: Any, token_ids: Tensor, mask: Tensor | None) -> Tensor:
    return model.get_text_features(token_ids, attention_mask=mask).pooler_output


def _pe_texts(model: Any, token_ids: Tensor, mask: Tensor | None) -> Tensor:
    return model.text_video_head(model.text_model(token_ids, attention_mask=mask).last_hidden_state[:, 0])


# By the model_type in config.json.
ARCHITECTURES: dict[str, Architecture] = {
    "clip": Architecture("CLIPModel", False, _images, "none", _texts),
    "metaclip_2": Architecture("MetaClip2Model", False, _images, "none", _texts),
    "siglip": Architecture("SiglipModel", False, _images, "fill", _texts, bias="logit_bias"),
    "siglip2": Architecture("Siglip2Model", False, _patches, "fill", _texts, bias="logit_bias"),
    "videoprism": Architecture(
        "VideoPrismClipModel", True, _videoprism, "mask", _texts, scale=None, has_fixed_frames=True
    ),
    "pe_video": Architecture(
        "PeVideoModel",
        True,
        _pe_video,
        "mask",
        _pe_texts,
        scale="text_video_logit_scale",
        bias="text_video_logit_bias",
        scale_is_log=False,
    ),
}


def image_side(content: dict[str, Any]) -> int | None:
    """Return the side in pixels of the images that a config's weights are for; None where it does not say.

    SigLIP 2's NaFlex form has positions for patches of any grid; a square of as many as they are is taken.
    """
    vision = content.get("vision_config", {})
    if content["model_type"] == "siglip2":
        return isqrt(vision["num_patches"]) * vision["patch_size"]
    side = vision.get("image_size")
    sides = set(side) if isinstance(side, list | tuple) else {side}
    if len(sides) != 1:
        raise ValueError(f"image_size: got {side}, wanted a square")
    return sides.pop()


def refuse_unknown(content: dict[str, Any], source: str) -> None:
    """Raise UserError for a config.json that is no dual encoder's of the table, or wants code of its own to run."""
    if any(isinstance(part, dict) and "auto_map" in part for part in (content, *content.values())):
        raise UserError(
            f"{source} wants to run code that comes with it (auto_map in config.json), which is never done",
            got=str(content.get("model_type")),
            wanted="a model whose code is in transformers",
            remedy="look for the model's folder in transformers' own layout",
        )
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise UserError(
            f"{source} holds no dual encoder of transformers that is known here",
            got=f"model_type {model_type}",
            wanted=" or ".join(ARCHITECTURES),
        )


@contextmanager
def _config_errors(model_type: str, source: str) -> Iterator[None]:
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{source} needs a library that is not installed", got=_first_line(error), remedy="pip install timm"
        ) from error
    # What transformers raises for fields of a wrong kind or size.
    except (
        StrictDataclassError, TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RuntimeError,
        AssertionError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{source} is not a usable config",
            got=_first_line(error),
            wanted=f"the fields of transformers' {ARCHITECTURES[model_type].model_class}",
        ) from error


def validated_config(content: dict[str, Any], *, source: str) -> Any:
    """Return a config.json as transformers' config object; UserError where it is none."""
    import transformers

    with _config_errors(content["model_type"], source):
        config = transformers.CONFIG_MAPPING[content["model_type"]].from_dict(content)
    for part in (config, config.text_config, getattr(config, "vision_config", None)):
        for name, value in vars(part).items() if part is not None else ():
            if name.endswith("_layers") and isinstance(value, int) and value > _MOST_LAYERS:
                raise UserError(f"{name} of {source}", got=value, wanted=f"at most {_MOST_LAYERS}")
    return config


def build_hf_model(content: dict[str, Any], *, source: str) -> Any:
    """Build transformers' model of a config, with new weights and our attention; UserError where it cannot be."""
    import transformers

    architecture = ARCHITECTURES[content["model_type"]]
    config = validated_config(content, source=source)
    register_attention()
    with _config_errors(content["model_type"], source):
        model = getattr(transformers, architecture.model_class)(config)
        model.set_attn_implementation(ATTENTION)
    for name in (architecture.scale, architecture.bias):
        if name is not None:
            delattr(model, name)  # ours stand in their place
    if content["model_type"] == "siglip2":
        model.vision_model.embeddings.resize_positional_embeddings = _one_grid
    return model


def _one_grid(positions: Float[Tensor, "rows columns dim"], spatial_shapes: None, max_length: int) -> Tensor:
    """Return SigLIP 2's position embeddings for a square grid of `max_length` patches, (1, patches, dim).

    transformers resamples them for every image by itself, and in float32; all of ours have one grid.
    """
    side = isqrt(max_length)
    if positions.shape[:2] == (side, side):
        return positions.flatten(0, 1)[None]
    grid = rearrange(positions, "rows columns dim -> 1 dim rows columns")
    grid = grid.to(torch.promote_types(grid.dtype, torch.float32))  # no half precision on a CPU
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bilinear", antialias=True)
    return rearrange(grid, "1 dim rows columns -> 1 (rows columns) dim").to(positions.dtype)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
