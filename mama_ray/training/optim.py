"""The optimiser of the model: AdamW or SGD, warm-up and cosine; the schedule is a pure function of the step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from mama_ray.training.settings import OptimConfig


def build_optimizer(
    model: nn.Module, config: OptimConfig, levels: Mapping[str, int] | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser with decay on matrices only, for what is trained.

    With `levels`, how many levels each parameter lies below the top of its tower, there are groups per level, whose
    `lr_scale` is their share of the learning rate.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if levels is None or config.layer_decay == 1.0:
        return _of_kind(_groups(trainable.values(), config), config)
    groups = []
    for level in sorted({levels.get(name, 0) for name in trainable}):
        own = [parameter for name, parameter in trainable.items() if levels.get(name, 0) == level]
        groups += [group | {"lr_scale": config.layer_decay**level} for group in _groups(own, config)]
    return _of_kind([group for group in groups if group["params"]], config)


def _of_kind(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    # One pass over weights, gradients and moments instead of a dozen: a fifth of the time. Checkpoints say which way
    # their run has, so one that began the other way goes on bit for bit.
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _groups(parameters: Iterable[nn.Parameter], config: OptimConfig) -> list[dict[str, Any]]:
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group its share of the learning rate: all of it where the group does not say."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def describe_groups(optimizer: torch.optim.Optimizer) -> str:
    """Tell how many weights have which share of the learning rate."""
    sizes: dict[float, int] = {}
    for group in optimizer.param_groups:
        share = group.get("lr_scale", 1.0)
        sizes[share] = sizes.get(share, 0) + sum(parameter.numel() for parameter in group["params"])
    return ", ".join(f"{share:.3g} x lr for {size:,}" for share, size in sizes.items())


def give_own_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], share: float) -> None:
    """Move parameters into groups of their own, whose learning rate is `share` times what it would be."""
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if own:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
            options = {name: value for name, value in group.items() if name != "params"}
            optimizer.add_param_group(options | {"params": own, "lr_scale": share * group.get("lr_scale", 1.0)})


def schedules_agree(num_done: int, num_steps: int, other_num_steps: int, config: OptimConfig) -> bool:
    """Tell whether the first `num_done` steps have the same learning rates in runs of two lengths.

    So it is for a rate that neither rises nor falls, or while both runs are of one length.
    """
    if num_done > min(num_steps, other_num_steps):
        return False
    return all(
        learning_rate_at(step, num_steps, config) == learning_rate_at(step, other_num_steps, config)
        for step in range(num_done)
    )


def learning_rate_at(step: int, num_steps: int, config: OptimConfig) -> float:
    """Return the learning rate of step `step` (from 0) of `num_steps`."""
    num_warmup = round(config.warmup_share * num_steps)
    if step < num_warmup:
        return config.lr * (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return config.lr * (config.final_lr_share + (1.0 - config.final_lr_share) * cosine)
