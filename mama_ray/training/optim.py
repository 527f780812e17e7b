"""The optimiser of the model: AdamW, warm-up and cosine, clipping; the schedule is a pure function of the step."""

import math

import torch
from pydantic import Field
from torch import nn

from mama_ray.config import Config


class OptimConfig(Config):
    """AdamW with linear warm-up and cosine decay."""

    lr: float = Field(1e-3, gt=0.0)
    """Peak learning rate."""

    weight_decay: float = Field(0.05, ge=0.0)
    """Decoupled weight decay of matrices; biases, norms and the logit scale have none."""

    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's moment decay rates."""

    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises linearly."""

    final_lr_share: float = Field(0.0, ge=0.0, le=1.0)
    """Learning rate at the end as a share of the peak."""

    clip_norm: float = Field(1.0, ge=0.0)
    """Gradients are scaled to at most this norm; 0 turns clipping off. The lookahead is never clipped."""

    ema_decay: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the moving average of the parameters that is evaluated and saved beside them; 0 turns it off."""


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Make AdamW with decay on matrices only."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def learning_rate_at(step: int, num_steps: int, config: OptimConfig) -> float:
    """Return the learning rate of step `step` (from 0) of `num_steps`."""
    num_warmup = round(config.warmup_share * num_steps)
    if step < num_warmup:
        return config.lr * (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return config.lr * (config.final_lr_share + (1.0 - config.final_lr_share) * cosine)
