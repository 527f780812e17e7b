"""The optimiser of the model."""

import copy

import torch
from torch import nn

from mama_ray.training.optim import build_optimizer
from mama_ray.training.settings import OptimConfig


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(37, 53), nn.LayerNorm(53), nn.Linear(53, 5))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> list[torch.Tensor]:
    """Take a step with random gradients for each seed; returns the weights."""
    for seed in seeds:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def plain_adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """As it was made when runs of earlier versions began."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def test_steps_are_those_of_torch_s_plain_adamw_but_for_rounding():
    config, ours, plain = OptimConfig(), layers(), layers()
    found = take_steps(ours, build_optimizer(ours, config), range(20))
    for one, other in zip(found, take_steps(plain, plain_adamw(plain, config), range(20)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_run_that_began_with_the_plain_one_goes_on_bit_for_bit():
    config, plain, resumed = OptimConfig(), layers(), layers()
    whole = plain_adamw(plain, config)
    take_steps(plain, whole, range(3))
    resumed.load_state_dict(plain.state_dict())
    loaded = build_optimizer(resumed, config)
    loaded.load_state_dict(copy.deepcopy(whole.state_dict()))
    for one, other in zip(take_steps(resumed, loaded, range(3, 9)), take_steps(plain, whole, range(3, 9)), strict=True):
        assert torch.equal(one, other)
