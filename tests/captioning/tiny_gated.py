"""A gated narrator of random weights, tiny and whole, whose texts depend on what it is shown."""

from pathlib import Path

import torch

from mama_ray.config import with_overrides
from mama_ray.models.narrator.load import save_gated_narrator
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.presets import PRESETS
from mama_ray.models.narrator.tokenizer import train_gpt2_tokenizer
from tests.captioning.tiny_models import WORDS


def write_gated(folder: Path, *, seed: int = 0) -> Path:
    """Write the smallest preset with open gates."""
    tokenizer = train_gpt2_tokenizer(WORDS, vocab_size=300)
    torch.manual_seed(seed)
    model = GatedNarrator(with_overrides(PRESETS["gated_tiny"], {"language.vocab_size": len(tokenizer)})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "alpha" in name:
                parameter.fill_(0.8)
            elif parameter.ndim > 1:
                parameter.mul_(2.0)
    save_gated_narrator(model, tokenizer, folder)
    return folder
