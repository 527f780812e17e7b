"""Gradient checkpointing of a layer that is right under `torch.func.functional_call` too."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *args: object, recompute: bool) -> Tensor:
    """Call a layer, with `recompute` so that backward computes it anew; neither values nor masks change by it."""
    if not (recompute and torch.is_grad_enabled()):
        return layer(*args)
    # The parameters go in by value: a lookahead forward runs under functional_call, which has put the module's own
    # parameters back by the time backward recomputes the layer.
    call = partial(functional_call, layer, dict(layer.named_parameters()))
    # Adapters may drop inputs in layers where nothing else is random.
    return checkpoint(call, args, use_reentrant=False, preserve_rng_state=layer.training)
