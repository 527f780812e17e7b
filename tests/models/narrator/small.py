"""A gated narrator of a few thousand parameters, none at a value that hides an error, and files of the release."""

from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mama_ray.config import with_overrides
from mama_ray.models.narrator.config import GatedNarratorConfig
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.presets import PRESETS

SMALL = with_overrides(
    PRESETS["gated_tiny"],
    {"video.width": 24, "video.num_layers": 2, "video.num_heads": 3, "image_size": 32, "patch_size": 16}
    | {"language.width": 32, "language.num_layers": 3, "language.num_heads": 2, "language.vocab_size": 60}
    | {"language.num_positions": 96, "num_queries": 5, "cross_every": 2},
)
# Heads of a release are 64 wide, and its dropout GPT-2's.
RELEASED = with_overrides(
    SMALL,
    {"video.num_heads": 1, "language.num_heads": 1, "language.width": 64, "language.init_std": 0.02}
    | {"place_init_std": None, "bos_id": 59, "eos_id": 59, "context_length": 77},
)


def small_narrator(overrides: dict[str, Any] | None = None, *, seed: int = 0) -> GatedNarrator:
    """Float64, its gates open."""
    torch.manual_seed(seed)
    model = GatedNarrator(with_overrides(SMALL, overrides or {})).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_((0.8 if "alpha" in name else 0.1) * torch.randn_like(parameter))
    return model


def some_frames(num_clips: int = 3, num_frames: int = 4, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_clips, num_frames, side, side, 3), dtype=torch.uint8, generator=generator)


def some_tokens(num_rows: int = 3, num_tokens: int = 9, vocab_size: int = 60) -> torch.Tensor:
    return torch.randint(0, vocab_size, (num_rows, num_tokens), generator=torch.Generator().manual_seed(2))


def gpt2(**fields: Any) -> GPT2LMHeadModel:
    """transformers' own, with weights of which none is at its start."""
    torch.manual_seed(5)
    sizes = {"vocab_size": 60, "n_positions": 96, "n_embd": 32, "n_layer": 3, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**(sizes | {"bos_token_id": 59, "eos_token_id": 59} | fields))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def gpt2_folder(folder: Path, **fields: Any) -> Path:
    gpt2(**fields).save_pretrained(folder)
    return folder


def release_state(config: GatedNarratorConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names that LaViLa's documents list, with the masks that old transformers wrote."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in release_shapes(config).items()}
    state["text_decoder.lm_head.weight"] = state["text_decoder.transformer.wte.weight"].clone()
    for name in list(state):
        if name.endswith(".beta"):
            state[name] = torch.zeros_like(state[name])
    side = config.language.num_positions
    for layer in range(config.language.num_layers):
        for attention in ("attn", "crossattention"):
            block = f"text_decoder.transformer.h.{layer}.{attention}"
            if f"{block}.c_attn.weight" in state and seed % 3:
                state[f"{block}.bias"] = torch.ones(1, 1, side, side, dtype=torch.uint8).tril()
                state[f"{block}.masked_bias"] = torch.tensor(-1e4)
    return state


def release_shapes(config: GatedNarratorConfig) -> dict[str, tuple[int, ...]]:
    video, width = config.video.width, config.language.width
    places = (config.image_size // config.patch_size) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "img_queries": (config.num_queries, width),
        "visual.cls_token": (1, 1, video), "visual.pos_embed": (1, 1 + places, video),
        "visual.temporal_embed": (1, config.num_frames, video),
        "visual.patch_embed.proj.weight": (video, 3, config.patch_size, config.patch_size),
    }  # fmt: skip
    for norm in ("ln_pre", "norm"):
        shapes |= _named(f"visual.{norm}", (video,))
    for layer in range(config.video.num_layers):
        block = f"visual.blocks.{layer}"
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _named(f"{block}.{norm}", (video,))
        for attention in ("attn", "timeattn"):
            shapes |= _named(f"{block}.{attention}.qkv", (3 * video, video))
            shapes |= _named(f"{block}.{attention}.proj", (video, video))
        shapes |= _named(f"{block}.mlp.fc1", (4 * video, video)) | _named(f"{block}.mlp.fc2", (video, 4 * video))
    decoder, language = "text_decoder.transformer", config.language
    shapes |= {f"{decoder}.wte.weight": (language.vocab_size, width)}
    shapes |= {f"{decoder}.wpe.weight": (language.num_positions, width)}
    for layer in range(language.num_layers):
        shapes |= _gpt2_layer(f"{decoder}.h.{layer}", width, crosses=layer % config.cross_every == 0)
    shapes |= _named(f"{decoder}.ln_f", (width,)) | {"text_decoder.lm_head.weight": (language.vocab_size, width)}
    for norm, size in (("img_attn_pool.norm", width), ("img_attn_pool.context_norm", video)):
        shapes |= {f"{norm}.gamma": (size,), f"{norm}.beta": (size,)}
    inner = 64 * config.pooler_heads
    shapes |= {"img_attn_pool.to_q.weight": (inner, width), "img_attn_pool.to_kv.weight": (128, video)}
    shapes |= {"img_attn_pool.to_out.weight": (width, inner)}
    return shapes | {"img_attn_pool_norm.gamma": (width,), "img_attn_pool_norm.beta": (width,)}


def _gpt2_layer(block: str, width: int, *, crosses: bool) -> dict[str, tuple[int, ...]]:
    shapes = _conv(f"{block}.attn.c_attn", width, 3 * width) | _conv(f"{block}.attn.c_proj", width, width)
    shapes |= _conv(f"{block}.mlp.c_fc", width, 4 * width) | _conv(f"{block}.mlp.c_proj", 4 * width, width)
    norms = ["ln_1", "ln_2"]
    if crosses:
        norms += ["ln_cross_attn", "ln_2_crossattention"]
        shapes |= {f"{block}.alpha_cattn": (), f"{block}.alpha_dense": ()}
        shapes |= _conv(f"{block}.crossattention.c_attn", width, 2 * width)
        for name in ("q_attn", "c_proj"):
            shapes |= _conv(f"{block}.crossattention.{name}", width, width)
        shapes |= _conv(f"{block}.mlp_crossattention.c_fc", width, 4 * width)
        shapes |= _conv(f"{block}.mlp_crossattention.c_proj", 4 * width, width)
    for norm in norms:
        shapes |= _named(f"{block}.{norm}", (width,))
    return shapes


def _named(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _conv(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def release_file(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A checkpoint as the release's trainer writes it."""
    return {
        "epoch": 2,
        "state_dict": OrderedDict((f"module.{key}", tensor) for key, tensor in state.items()),
        "optimizer": {"state": {0: {"step": 7, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 3e-5}]},
        "scaler": {"scale": 65536.0},
        "best_acc1": 30.9,
        "args": Namespace(model="VCLM_OPENAI_TIMESFORMER_BASE_GPT2", clip_length=4, betas=(0.9, 0.999), resume=""),
    }
