"""Small gated narrators in float32 whose captions differ from clip to clip and end at different lengths."""

from pathlib import Path
from typing import Any

import torch

from mama_ray.config import with_overrides
from mama_ray.models.narrator.load import save_gated_narrator
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.presets import PRESETS
from mama_ray.models.narrator.tokenizer import train_gpt2_tokenizer

NUM_TOKENS = 300
END_LOGIT = 6.0
TINY = with_overrides(
    PRESETS["gated_tiny"],
    {"language.vocab_size": NUM_TOKENS, "language.init_std": 0.25, "cross_every": 2, "image_size": 48},
)
CAPTIONS = ["a red circle moves left", "a blue square grows", "two green bars turn round"]


def some_narrator(overrides: dict[str, Any] | None = None, *, seed: int = 0) -> GatedNarrator:
    """Its gates are open, and a caption ends sooner or later."""
    torch.manual_seed(seed)
    model = GatedNarrator(with_overrides(TINY, overrides or {})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "alpha" in name:
                parameter.fill_(1.5)
        # The end token's logit is always the same, near the largest that the others reach.
        norm, embeddings = (model.text_decoder.transformer[name] for name in ("ln_f", "wte"))
        norm.weight[0], norm.bias[0] = 0.0, 1.0
        embeddings.weight[:, 0] = 0.0
        embeddings.weight[model.config.eos_id] = 0.0
        embeddings.weight[model.config.eos_id, 0] = END_LOGIT
    return model


@torch.no_grad()
def some_visuals(model: GatedNarrator, num_clips: int, *, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, model.config.num_frames, model.config.image_size, model.config.image_size, 3)
    clips = (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(num_clips))
    return [model.encode_visual(clip // (1 + place % 5))[0] for place, clip in enumerate(clips)]


def narrator_folder(folder: Path, overrides: dict[str, Any] | None = None) -> Path:
    save_gated_narrator(some_narrator(overrides), train_gpt2_tokenizer(CAPTIONS, vocab_size=NUM_TOKENS), folder)
    return folder
