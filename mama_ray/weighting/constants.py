"""What frozen parts of a model give where nothing that is trained has a say before them: kept, not computed again.

Behind them the directional pass has no tangent to carry, so it needs their outputs alone. Kept is one tensor per such
part, where the kept products of its linear layers would be many, which no training graph holds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class _Constant(NamedTuple):
    """The output of one call, and the random states after it: what draws numbers later must draw the same."""

    output: Any
    random_states: list[Tensor]


class ConstantParts:
    """The calls of a model's frozen modules in one forward pass, in order; recorded once, replayed once."""

    def __init__(self) -> None:
        self._modules: list[nn.Module] = []
        self._calls: list[_Constant | None] = []

    @contextmanager
    def record(self, model: nn.Module, products: list) -> Iterator[None]:
        """Keep outputs without a graph; the `products` that were recorded inside of such a call are dropped."""
        self._modules = [module for module in model.modules() if _is_frozen(module)]
        with _called_through(self._modules, partial(self._record, products)):
            yield

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Give the kept outputs in the place of the calls."""
        with _called_through(self._modules, self._replay):
            yield

    def _record(self, products: list, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        place, num_products = len(self._calls), len(products)
        self._calls.append(None)
        output = forward(*args, **kwargs)
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        if tensors and torch.is_grad_enabled() and not any(tensor.requires_grad for tensor in tensors):
            del self._calls[place + 1 :], products[num_products:]
            self._calls[place] = _Constant(output, _random_states())
        return output

    def _replay(self, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        assert self._calls, "the directional pass calls more frozen modules than the training pass"
        constant = self._calls.pop(0)
        if constant is None:
            return forward(*args, **kwargs)
        _set_random_states(constant.random_states)
        return constant.output


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


@contextmanager
def _called_through(modules: list[nn.Module], call: Callable) -> Iterator[None]:
    """Let `call` have each call of the modules, with what they would do first."""
    for module in modules:
        vars(module)["forward"] = partial(call, module.forward)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["forward"]


def _random_states() -> list[Tensor]:
    has_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if has_gpu else [])]


def _set_random_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
