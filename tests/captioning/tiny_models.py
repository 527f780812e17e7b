"""Captioners of random weights, tiny and whole: folders that transformers and vLLM load, with their processors."""

from pathlib import Path

import torch
from torch import nn

from mama_ray.captioning.narrator.folder import Narrator, save_narrator
from mama_ray.captioning.narrator.preset import CHAT_TEMPLATE, build_tiny_model, build_tiny_processor
from mama_ray.captioning.narrator.settings import NarratorInput
from mama_ray.captioning.prompts import PromptConfig

PROMPT = PromptConfig(text="describe the video")
WORDS = ["a red circle moves left", "a blue square grows, then a green triangle turns around", "nothing happens"]
_SIDE, _PATCH = 56, 14
_PINPOINTS = [[56, 112], [112, 56], [112, 112]]


def write_llava(folder: Path, *, seed: int = 0, chat_template: bool = True) -> Path:
    """Write the project's own narrator, untrained; pictures of 192 pixels are 64 tokens."""
    processor = build_tiny_processor(WORDS, PROMPT.text, vocab_size=384)
    if not chat_template:
        processor.chat_template = None
    torch.manual_seed(seed)
    model = _talkative(build_tiny_model(processor))
    save_narrator(Narrator(model, processor), folder, NarratorInput(prompt=PROMPT))
    return folder


def write_llava_next(folder: Path) -> Path:
    """Write a LLaVA-NeXT whose pictures are 56 pixels and, where they are larger, tiles of these."""
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    torch.manual_seed(0)
    tokenizer = special_tokenizer()
    config = LlavaNextConfig(
        vision_config=_clip_config(),
        text_config=llama_config(tokenizer),
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        **_image_token_ids(tokenizer, "image"),
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": _SIDE},
        crop_size={"height": _SIDE, "width": _SIDE},
        image_grid_pinpoints=_PINPOINTS,
    )
    processor = LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    return write_model(folder, LlavaNextForConditionalGeneration(config), processor)


def write_llava_onevision(folder: Path) -> Path:
    """Write a LLaVA-OneVision; its processor needs torchvision."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    torch.manual_seed(0)
    tokenizer = special_tokenizer("<video>")
    vision = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=_SIDE,
        patch_size=_PATCH,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(**llama_config(tokenizer).to_diff_dict() | {"model_type": "qwen2"}),
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        tie_word_embeddings=False,
        **_image_token_ids(tokenizer, "image"),
        **_image_token_ids(tokenizer, "video"),
    )
    size = {"height": _SIDE, "width": _SIDE}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=_PINPOINTS),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(_SIDE // _PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template=with_videos(CHAT_TEMPLATE, "<video>\n"),
    )
    return write_model(folder, LlavaOnevisionForConditionalGeneration(config), processor)


def with_videos(template: str, video: str) -> str:
    """Return a chat template that shows videos, too."""
    known = "{% elif part['type'] == 'text' %}"
    return template.replace(known, "{% elif part['type'] == 'video' %}" + video + known)


def special_tokenizer(*further: str):
    tokenizer = build_tiny_processor(WORDS, PROMPT.text, vocab_size=384).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", *further]})
    return tokenizer


def _clip_config():
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=_SIDE,
        patch_size=_PATCH,
        projection_dim=64,
    )


def llama_config(tokenizer):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _image_token_ids(tokenizer, kind: str) -> dict[str, int]:
    token_id = tokenizer.convert_tokens_to_ids(f"<{kind}>")
    return {f"{kind}_token_id": token_id, f"{kind}_token_index": token_id}


def _talkative(model: nn.Module) -> nn.Module:
    """Give random weights a size at which what is written depends on what is seen."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "position_embedding" not in name:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=2.0 * fan_in**-0.5, generator=generator)
    return model


def write_model(folder: Path, model, processor) -> Path:
    save_narrator(Narrator(_talkative(model), processor), folder, NarratorInput(prompt=PROMPT))
    return folder
