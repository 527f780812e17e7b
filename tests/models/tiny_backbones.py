"""A small config of every backbone, for what all of them promise."""

from mama_ray.config import with_overrides
from mama_ray.models.clip_vip.presets import PRESETS as CLIP_VIP_PRESETS
from mama_ray.models.hf_encoder.model import HfEncoderConfig
from mama_ray.models.timesformer.presets import PRESETS as TIMESFORMER_PRESETS
from mama_ray.models.vgt.presets import PRESETS as VGT_PRESETS
from mama_ray.models.violet.presets import PRESETS as VIOLET_PRESETS

_TIMESFORMER = with_overrides(
    TIMESFORMER_PRESETS["tsf_tiny"],
    {"video.width": 24, "video.num_layers": 2, "text.width": 16, "text.num_layers": 2, "dim": 12, "image_size": 16}
    | {"patch_size": 8, "num_frames": 3, "vocab_size": 40, "context_length": 10, "num_text_positions": 10},
)
_HF_TEXT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40,
    "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 39, "pad_token_id": 39,
}  # fmt: skip
_HF_IMAGE = {name: _HF_TEXT[name] for name in list(_HF_TEXT)[:4]} | {"patch_size": 8}
_HF_VIDEO = {
    "hidden_size": 16, "num_spatial_layers": 2, "num_temporal_layers": 1, "num_auxiliary_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16, "num_frames": 3, "tubelet_size": [1, 8, 8],
}  # fmt: skip


def _hf(model_type: str, vision: dict, **fields) -> HfEncoderConfig:
    """Random weights' config of an architecture of transformers."""
    hf = {"model_type": model_type, "text_config": _HF_TEXT, "vision_config": vision}
    sizes = {"dim": 16, "image_size": 16, "num_frames": 3, "vocab_size": 40, "context_length": 10, "pad_id": 39}
    return HfEncoderConfig(hf=hf, **(sizes | fields))


# A small config by model_type and, where a backbone has several forms, a word. A new one is a line here too.
TINY = {
    "clip_vip": with_overrides(
        CLIP_VIP_PRESETS["tiny"],
        {"video.width": 24, "video.num_layers": 2, "text.width": 16, "text.num_layers": 2, "dim": 12}
        | {"image_size": 16, "patch_size": 8, "num_frames": 3, "vocab_size": 40, "context_length": 10},
    ),
    "timesformer": _TIMESFORMER,
    "timesformer joint": with_overrides(_TIMESFORMER, {"attention": "joint"}),
    "timesformer distilbert": with_overrides(_TIMESFORMER, {"text_tower": "distilbert", "text_dropout": 0.0}),
    "vgt": with_overrides(
        VGT_PRESETS["vgt_tiny"],
        {"width": 16, "text.width": 16, "text.num_layers": 1, "box_width": 4, "frame_dim": 6, "region_dim": 8}
        | {"num_frames": 6, "num_clips": 3, "vocab_size": 40, "context_length": 10}
        | {"dropout": 0.0, "text.dropout": 0.0},
    ),
    # More frames than its table has places for do not fit, and so another frame count is refused like other weights.
    "violet": with_overrides(
        VIOLET_PRESETS["violet_tiny"],
        {"video.embed_dim": 8, "video.num_heads": (1, 2), "video.window": (2, 2, 2), "image_size": 32, "num_frames": 3}
        | {"fusion.width": 12, "fusion.num_layers": 1, "num_text_layers": 1, "dim": 12, "max_frames": 3}
        | {"vocab_size": 40, "context_length": 10, "num_positions": 12},
    ),
    "hf_encoder siglip2": _hf("siglip2", _HF_IMAGE | {"num_patches": 9}, temporal_layers=1),
    "hf_encoder siglip": _hf("siglip", _HF_IMAGE | {"image_size": 16}, temporal_layers=1),
    "hf_encoder clip": _hf("clip", _HF_IMAGE | {"image_size": 16}, dim=512, temporal_layers=1),
    "hf_encoder videoprism": _hf("videoprism", _HF_VIDEO),
}
