"""Models of transformers built small at random, none of their parameters at a value that hides an error."""

from collections.abc import Callable
from typing import Any

import torch

VOCAB, END, PAD, CONTEXT, FRAMES, SIDE = 40, 39, 1, 10, 3, 16
_TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_TEXT = _TOWER | {
    "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": END,
    "pad_token_id": PAD,
}  # fmt: skip
_IMAGE = _TOWER | {"patch_size": 8}
_VIDEO = {
    "hidden_size": 16, "num_spatial_layers": 2, "num_temporal_layers": 2, "num_auxiliary_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "image_size": SIDE, "num_frames": FRAMES,
    "tubelet_size": [1, 8, 8],
}  # fmt: skip


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    vision = _IMAGE | {"image_size": SIDE}
    text = _TEXT | {"hidden_act": "gelu"}  # as OpenCLIP's, which CLIP-ViP's import refuses
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


def _metaclip() -> Any:
    from transformers import MetaClip2Config, MetaClip2Model

    vision = _IMAGE | {"image_size": SIDE}
    return MetaClip2Model(MetaClip2Config(text_config=_TEXT, vision_config=vision, projection_dim=12))


def _siglip() -> Any:
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(SiglipConfig(text_config=_TEXT, vision_config=_IMAGE | {"image_size": SIDE}))


def _siglip2() -> Any:
    from transformers import Siglip2Config, Siglip2Model

    return Siglip2Model(Siglip2Config(text_config=_TEXT, vision_config=_IMAGE | {"num_patches": 4}))


def _videoprism() -> Any:
    from transformers import VideoPrismClipModel, VideoPrismConfig

    return VideoPrismClipModel(VideoPrismConfig(text_config=_TEXT, vision_config=_VIDEO))


def _pe_video() -> Any:
    from transformers import PeVideoConfig, PeVideoModel

    special = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": 0, "cls_token_id": 0, "sep_token_id": END}
    text = _TEXT | {"model_type": "modernbert"} | special
    sizes = {"img_size": SIDE, "depth": 1, "embed_dim": 16, "num_heads": 2}
    image = {"architecture": "vit_pe_core_base_patch16_224", "num_classes": 12, "model_args": sizes}
    video = _TOWER | {"head_dim": 8, "vision_config": image | {"do_pooling": True, "global_pool": "map"}}
    return PeVideoModel(PeVideoConfig(text_config=text, video_config=video))


BUILDERS: dict[str, Callable[[], Any]] = {
    "clip": _clip,
    "metaclip_2": _metaclip,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "videoprism": _videoprism,
    "pe_video": _pe_video,
}


def build(model_type: str, seed: int = 0) -> Any:
    """Build a model in float32 and evaluation mode."""
    torch.manual_seed(seed)
    model = BUILDERS[model_type]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "text_video_logit_scale":
                parameter.fill_(10.0)  # not the logarithm
            elif name.startswith("logit_"):
                parameter.copy_(torch.tensor(3.0 if "scale" in name else -4.0))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def build_sized(model_type: str, vocab_size: int, context: int, *, eos: int = 1) -> Any:
    """Build a CLIP or SigLIP 2 of 48 pixels for the texts of a tokenizer."""
    import transformers

    text = _TEXT | {"vocab_size": vocab_size, "max_position_embeddings": context, "eos_token_id": eos}
    torch.manual_seed(0)
    if model_type == "clip":
        vision = _IMAGE | {"image_size": 48}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        return transformers.CLIPModel(config).eval()
    vision = _IMAGE | {"num_patches": 36}
    return transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision)).eval()


def clips(num_frames: int = FRAMES, side: int = SIDE) -> torch.Tensor:
    """Four clips of noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, num_frames, side, side, 3), dtype=torch.uint8, generator=generator)


def texts() -> torch.Tensor:
    """Four texts of 3, 5, 7 and 10 tokens, ended and filled up."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(2, END, (4, CONTEXT), generator=generator)
    for row, length in enumerate((3, 5, 7, CONTEXT)):
        ids[row, length - 1] = END
        ids[row, length:] = PAD
    return ids


@torch.no_grad()
def theirs(model: Any, frames: torch.Tensor, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return transformers' own features of each frame (batch, frames, dim), or of each video, and of the texts.

    Pixels are normalised as the folders of these models say by default, in transformers' order of axes.
    """
    kind = model.config.model_type
    mean, std = 0.5, 0.5
    if kind in ("clip", "metaclip_2"):
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    elif kind == "videoprism":
        mean, std = 0.0, 1.0
    videos = (frames.permute(0, 1, 4, 2, 3).float() / 255 - mean) / std
    images = videos.flatten(0, 1)
    mask = (token_ids != PAD).long()
    if kind in ("clip", "metaclip_2", "siglip"):
        found = model(input_ids=token_ids, pixel_values=images)
    elif kind == "siglip2":
        rows = images.unfold(2, 8, 8).unfold(3, 8, 8)  # n c rows columns i j
        patches = rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        shapes = torch.tensor([[images.shape[-2] // 8, images.shape[-1] // 8]] * len(images))
        ones = torch.ones(patches.shape[:2], dtype=torch.long)
        found = model(input_ids=token_ids, pixel_values=patches, pixel_attention_mask=ones, spatial_shapes=shapes)
    elif kind == "videoprism":
        found = model(
            videos, token_ids, attention_mask=mask,
            interpolate_pos_encoding=frames.shape[1] != model.config.vision_config.num_frames,
        )  # fmt: skip
        return found.video_embeds, found.text_embeds
    else:
        found = model(input_ids=token_ids, pixel_values_videos=videos, attention_mask=mask)
        normalise = torch.nn.functional.normalize
        return normalise(found.video_embeds, dim=-1), normalise(found.text_video_embeds, dim=-1)
    return found.image_embeds.unflatten(0, frames.shape[:2]), found.text_embeds
