"""A VIOLET of a few thousand float64 parameters, none of them at a value that hides an error."""

from typing import Any

import torch

from mama_ray.config import with_overrides
from mama_ray.models.violet.model import Violet, VioletConfig
from mama_ray.models.violet.presets import PRESETS

# With every part of the release: Swin's width differs from the fusion encoder's, so there is a layer between them.
SMALL = with_overrides(
    PRESETS["violet_tiny"],
    {"video.embed_dim": 8, "video.num_heads": (1, 2), "video.window": (4, 2, 2), "image_size": 32, "num_frames": 3}
    | {"fusion.width": 12, "fusion.num_layers": 2, "num_text_layers": 1, "dim": 6, "max_frames": 4, "vocab_size": 40}
    | {"context_length": 10, "num_positions": 12, "order_embedding": True, "num_task_embeddings": 3},
)


def small_violet(overrides: dict[str, Any] | None = None, *, seed: int = 0) -> Violet:
    torch.manual_seed(seed)
    model = Violet(with_overrides(SMALL, overrides or {})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def some_frames(config: VioletConfig, num_clips: int = 3) -> torch.Tensor:
    side = config.image_size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_clips, config.num_frames, side, side, 3), dtype=torch.uint8, generator=generator)


def some_prompts(num_clips: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    """Prompts of several lengths, filled up with the pad id 0."""
    ids = torch.randint(5, 40, (num_clips, length), generator=torch.Generator().manual_seed(2))
    for row in range(1, num_clips):
        ids[row, length - 2 * row :] = 0
    return {"token_ids": ids, "mask_positions": torch.tensor([2, 3, 1, 0][:num_clips])}
