"""Gradient checkpointing of transformers' layers that is right under `torch.func.functional_call` too.

transformers' own recomputes with the parameters that a layer has when backward reaches it. A lookahead forward has put
the module's own back by then, so here the parameters of the forward go in by value.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

_IS_RECOMPUTING = "_mama_ray_is_recomputing"


def recompute_layers(model: nn.Module, enabled: bool) -> None:
    """Turn recomputation in backward on or off, for every layer that transformers says can be recomputed."""
    for layer in _layers(model):
        if enabled:
            layer.forward = MethodType(_forward, layer)  # a method, so that a copy of the model has its own
        else:
            layer.__dict__.pop("forward", None)


def is_recomputing(model: nn.Module) -> bool:
    """Tell whether layers are recomputed in backward."""
    return any("forward" in layer.__dict__ for layer in _layers(model))


def _layers(model: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if layer.__dict__.get(_IS_RECOMPUTING) or not torch.is_grad_enabled():
        return type(layer).forward(layer, *args, **kwargs)
    parameters = dict(layer.named_parameters())

    def run(*args: Any) -> Any:
        layer.__dict__[_IS_RECOMPUTING] = True  # the call below comes back here
        try:
            return functional_call(layer, parameters, args, kwargs)
        finally:
            layer.__dict__[_IS_RECOMPUTING] = False

    return checkpoint(run, *args, use_reentrant=False)
