"""What a gated narrator can be started from, tiny and whole: a dual encoder, a GPT-2 with its tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from mama_ray.captioning.narrator import gated
from mama_ray.captioning.narrator.gated import TaughtGated
from mama_ray.captioning.narrator.gated_loss import GatedCaptionLoss, GatedLabels
from mama_ray.captioning.narrator.kind import NarratorSettings
from mama_ray.captioning.narrator.settings import FrameInput, LossMean, NarratorInput, NarratorModelConfig
from mama_ray.models.pretrained import from_preset, save_pretrained

CAPTIONS = ["a small red circle moves left", "there is a big blue star rising", "we see a tiny golden hoop that falls!"]
NUM_POSITIONS = 64
MAX_TOKENS = 16


def write_dual_encoder(folder: Path, preset: str = "tsf_tiny", **overrides: Any) -> Path:
    torch.manual_seed(3)
    save_pretrained(from_preset(preset, overrides), folder)
    return folder


def write_gpt2(folder: Path) -> Path:
    """transformers' own GPT-2 with a tokenizer trained on the captions, whose end token is not 0."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from mama_ray.data.byte_level_bpe import train_byte_level_bpe

    backend = train_byte_level_bpe(CAPTIONS, ["<|first|>", "<|endoftext|>"], vocab_size=320)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    torch.manual_seed(4)
    sizes = {"n_positions": NUM_POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": len(tokenizer)}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    GPT2LMHeadModel(GPT2Config(**sizes, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(*, frames: dict[str, Any] | None = None, **model: Any) -> NarratorSettings:
    usual = NarratorInput()
    gated = {name.removeprefix("gated_"): model.pop(name) for name in list(model) if name.startswith("gated_")}
    plain = {"preset": "gated_tiny", "gated": {"trains": "all"} | gated, "vocab_size": 320} | model
    return NarratorSettings(
        NarratorModelConfig.model_validate(plain), usual.prompt, usual.grid, FrameInput.model_validate(frames or {})
    )


def started(**model: Any) -> TaughtGated:
    asked = settings(**model)
    files, facts = gated.describe(None, asked, lambda: CAPTIONS)
    torch.manual_seed(0)
    return gated.start(facts, files, asked)


def open_narrator() -> TaughtGated:
    """Its gates open, so that what it sees counts, and no parameter at a value that hides an error."""
    one = started()
    with torch.no_grad():
        for name, parameter in one.model.named_parameters():
            parameter.add_((0.7 if "alpha" in name else 0.05) * torch.randn_like(parameter))
    one.model.eval()
    return one


def labels_of(narrator: TaughtGated, captions: Sequence[str] = CAPTIONS, max_tokens: int = MAX_TOKENS) -> torch.Tensor:
    backend = Tokenizer.from_str(narrator.tokenizer.backend_tokenizer.to_str())
    return torch.from_numpy(GatedLabels(backend, narrator.tokenizer.eos_token_id, max_tokens=max_tokens)(captions))


def loss_of(narrator: TaughtGated, mean: LossMean = "tokens") -> GatedCaptionLoss:
    return GatedCaptionLoss(narrator.model, narrator.tokenizer, mean=mean)


def some_frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 4, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
