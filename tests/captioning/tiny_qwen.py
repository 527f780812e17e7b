"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL of random weights, tiny and whole; their processors need torchvision."""

from pathlib import Path
from typing import Any

import torch

from mama_ray.captioning.narrator.preset import CHAT_TEMPLATE
from tests.captioning.tiny_models import llama_config, special_tokenizer, with_videos, write_model

_SIDE, _PATCH = 56, 14
_START, _END, _IMAGE, _VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"


def write_qwen2_vl(folder: Path) -> Path:
    """Write a Qwen2-VL."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    vision = {
        "depth": 2, "embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2, "num_heads": 2, "patch_size": _PATCH,
        "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    tokenizer, config = _parts(Qwen2VLConfig, vision, {"rope_type": "default", "mrope_section": [4, 6, 6]})
    processor = Qwen2VLProcessor(**_processors(tokenizer, _PATCH))
    return write_model(folder, Qwen2VLForConditionalGeneration(config), processor)


def write_qwen2_5_vl(folder: Path) -> Path:
    """Write a Qwen2.5-VL."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    vision = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "patch_size": _PATCH,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56, "fullatt_block_indexes": [1],
        "out_hidden_size": 128, "tokens_per_second": 2,
    }  # fmt: skip
    tokenizer, config = _parts(Qwen2_5_VLConfig, vision, {"rope_type": "default", "mrope_section": [4, 6, 6]})
    processor = Qwen2_5_VLProcessor(**_processors(tokenizer, _PATCH))
    return write_model(folder, Qwen2_5_VLForConditionalGeneration(config), processor)


def write_qwen3_vl(folder: Path) -> Path:
    """Write a Qwen3-VL."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor

    vision = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 128, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True}
    tokenizer, config = _parts(Qwen3VLConfig, vision, rope, head_dim=32)
    parts = _processors(tokenizer, 16)
    size = {"shortest_edge": 64 * 64, "longest_edge": 64 * 64 * 64}  # of a whole video
    parts["video_processor"] = Qwen3VLVideoProcessor(size=size, patch_size=16)
    return write_model(folder, Qwen3VLForConditionalGeneration(config), Qwen3VLProcessor(**parts))


def _parts(config_class: type, vision: dict[str, Any], rope: dict[str, Any], **fields: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    tokenizer = special_tokenizer(_START, _END, _IMAGE, _VIDEO)
    text = {
        name: value
        for name, value in llama_config(tokenizer).to_dict().items()
        if name.endswith("_token_id") or name.startswith(("num_", "hidden_size", "vocab", "intermediate", "max_"))
    }
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (("image", _IMAGE), ("video", _VIDEO), ("vision_start", _START), ("vision_end", _END))
    }
    text |= {"rope_parameters": rope | {"rope_theta": 1e4}, **fields}
    return tokenizer, config_class(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)


def _processors(tokenizer: Any, patch_size: int) -> dict[str, Any]:
    from transformers import Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = {"min_pixels": _SIDE**2, "max_pixels": 4 * _SIDE**2, "patch_size": patch_size}
    template = CHAT_TEMPLATE.replace("<image>\n", _START + _IMAGE + _END)
    return {
        "image_processor": Qwen2VLImageProcessorPil(**pixels),
        "tokenizer": tokenizer,
        "video_processor": Qwen2VLVideoProcessor(**pixels),
        "chat_template": with_videos(template, _START + _VIDEO + _END),
    }
