"""A TimeSformer of a few thousand float64 parameters, none at a value that hides an error, and files of the release."""

from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from mama_ray.config import with_overrides
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.timesformer.model import Timesformer, TimesformerConfig
from mama_ray.models.timesformer.presets import PRESETS

SMALL = with_overrides(
    PRESETS["tsf_tiny"],
    {"video.width": 24, "video.num_layers": 2, "video.num_heads": 3, "text.width": 16, "text.num_layers": 2, "dim": 6}
    | {"image_size": 32, "patch_size": 16, "vocab_size": 40, "context_length": 10, "num_text_positions": 12}
    | {"text_dropout": 0.0},
)
# Heads of a release are 64 wide, so one that small has a single one.
RELEASED = {
    "clip": with_overrides(SMALL, {"video.num_heads": 1, "text.num_heads": 1}),
    "distilbert": with_overrides(
        SMALL, {"video.num_heads": 1, "text.num_heads": 1, "text_tower": "distilbert", "text_dropout": 0.1}
    ),
}


def small_timesformer(overrides: dict[str, Any] | None = None, *, seed: int = 0) -> Timesformer:
    torch.manual_seed(seed)
    model = Timesformer(with_overrides(SMALL, overrides or {})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def loaded(source: str | Path, **options: Any) -> Timesformer:
    model = from_pretrained(source, **options)
    assert isinstance(model, Timesformer)
    return model


def some_frames(num_frames: int = 4, num_clips: int = 3, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_clips, num_frames, side, side, 3), dtype=torch.uint8, generator=generator)


def some_texts(config: TimesformerConfig) -> torch.Tensor:
    """Texts of 3, 6 and 10 tokens, ended by the largest id and filled up with the pad id."""
    ids = torch.randint(1, config.vocab_size - 1, (3, 10), generator=torch.Generator().manual_seed(2))
    for row, length in enumerate((3, 6, 10)):
        ids[row, length - 1], ids[row, length:] = config.vocab_size - 1, config.pad_id
    return ids


def release_shapes(config: TimesformerConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a release of this size, as its documents list them."""
    width, hidden, side = config.video.width, config.video.width * 4, config.patch_size
    places = (config.image_size // side) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "visual.cls_token": (1, 1, width), "visual.pos_embed": (1, 1 + places, width),
        "visual.temporal_embed": (1, config.num_frames, width),
        "visual.patch_embed.proj.weight": (width, 3, side, side),
        "image_projection": (width, config.dim), "text_projection": (config.text.width, config.dim), "logit_scale": (),
    }  # fmt: skip
    for norm in ("ln_pre", "norm"):
        shapes |= _linear(f"visual.{norm}", (width,))
    for layer in range(config.video.num_layers):
        block = f"visual.blocks.{layer}"
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _linear(f"{block}.{norm}", (width,))
        for attention in ("attn", "timeattn"):
            shapes |= _linear(f"{block}.{attention}.qkv", (3 * width, width))
            shapes |= _linear(f"{block}.{attention}.proj", (width, width))
        shapes |= _linear(f"{block}.mlp.fc1", (hidden, width)) | _linear(f"{block}.mlp.fc2", (width, hidden))
    return shapes | (_clip_text if config.text_tower == "clip" else _distilbert)(config)


def _linear(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _clip_text(config: TimesformerConfig) -> dict[str, tuple[int, ...]]:
    width = config.text.width
    shapes = {"token_embedding.weight": (config.vocab_size, width), "positional_embedding": (10, width)}
    shapes |= _linear("ln_final", (width,))
    for layer in range(config.text.num_layers):
        block = f"transformer.resblocks.{layer}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= _linear(f"{block}.attn.out_proj", (width, width))
        shapes |= _linear(f"{block}.ln_1", (width,)) | _linear(f"{block}.ln_2", (width,))
        shapes |= _linear(f"{block}.mlp.c_fc", (4 * width, width)) | _linear(f"{block}.mlp.c_proj", (width, 4 * width))
    return shapes


def _distilbert(config: TimesformerConfig) -> dict[str, tuple[int, ...]]:
    width, shapes = config.text.width, {}
    shapes |= {"textual.embeddings.word_embeddings.weight": (config.vocab_size, width)}
    shapes |= {"textual.embeddings.position_embeddings.weight": (config.num_text_positions, width)}
    shapes |= _linear("textual.embeddings.LayerNorm", (width,))
    for layer in range(config.text.num_layers):
        block = f"textual.transformer.layer.{layer}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= _linear(f"{block}.attention.{name}", (width, width))
        shapes |= _linear(f"{block}.sa_layer_norm", (width,)) | _linear(f"{block}.output_layer_norm", (width,))
        shapes |= _linear(f"{block}.ffn.lin1", (4 * width, width)) | _linear(f"{block}.ffn.lin2", (width, 4 * width))
    return shapes


def release_state(config: TimesformerConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the release's names, with the buffer that older files of DistilBERT carry."""
    generator = torch.Generator().manual_seed(seed)
    state = {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in release_shapes(config).items()}
    state["logit_scale"] = torch.tensor(1 / 0.07).log()
    if config.text_tower == "distilbert" and seed % 2:
        state["textual.embeddings.position_ids"] = torch.arange(config.num_text_positions)[None]
    return state


def release_file(state: dict[str, torch.Tensor], *, model: str = "CLIP_OPENAI_TIMESFORMER_BASE") -> dict[str, Any]:
    """A checkpoint as the release's trainer writes it."""
    return {
        "epoch": 5,
        "state_dict": OrderedDict((f"module.{key}", tensor) for key, tensor in state.items()),
        "criterion": OrderedDict(),
        "optimizer": {"state": {0: {"step": 7, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 3e-5}]},
        "scaler": {"scale": 65536.0},
        "best_acc1": 30.9,
        "args": Namespace(model=model, clip_length=4, betas=(0.9, 0.999), resume="", local_rank=0, fix_lr=None),
    }
