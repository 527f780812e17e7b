"""What parts of a model give where nothing that gets a tangent has a say before them: kept, not computed again.

These are frozen parts at the bottom, and those that the lookahead leaves alone (`meta.inner.parameters`). Behind them
the directional pass has no tangent to carry, so it needs their outputs alone. Kept is one tensor per such part, where
the kept products of its linear layers would be many, which no training graph of a frozen part holds.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mama_ray.weighting.chosen_clips import ChosenClips


class _Constant(NamedTuple):
    """The output of one call, the rows of what it was called with, and the random states after it: what draws numbers
    later must draw the same."""

    output: Any
    versions: list[int]
    num_rows: list[int]
    random_states: list[Tensor]

    def require_untouched(self) -> None:
        if [tensor._version for tensor in _tensors_in(self.output)] != self.versions:
            raise RuntimeError("the output of a part without tangents was changed in place: forward_mode needs it")


class ConstantParts:
    """The calls of a model's parts without tangents in one forward pass, in order; recorded once, replayed once."""

    def __init__(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Make an empty record; tangents have these parameters, or all that have a gradient."""
        self._moving = None if parameters is None else {id(value) for value in parameters.values()}
        self._modules: list[nn.Module] = []
        self._calls: list[_Constant | None] = []

    @contextmanager
    def record(self, model: nn.Module, products: list) -> Iterator[None]:
        """Keep outputs without a tangent; the `products` that were recorded inside of such a call are dropped."""
        trained = {id(value) for value in model.parameters() if value.requires_grad}
        moving = trained if self._moving is None else self._moving
        reaches = _requires_gradient if moving >= trained else _Reach(moving)
        self._modules = [module for module in model.modules() if _stands_still(module, moving)]
        with _called_through(self._modules, partial(self._record, products, reaches)):
            yield

    @contextmanager
    def replay(self, chosen: ChosenClips | None = None) -> Iterator[None]:
        """Give the kept outputs in the place of the calls; of the `chosen` clips in a pass over these."""
        with _called_through(self._modules, partial(self._replay, chosen)):
            yield

    def _record(self, products: list, reaches: Callable, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        place, num_products = len(self._calls), len(products)
        self._calls.append(None)
        output = forward(*args, **kwargs)
        tensors = _tensors_in(output)
        if tensors and torch.is_grad_enabled() and not any(reaches(tensor) for tensor in tensors):
            del self._calls[place + 1 :], products[num_products:]
            kept = tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, output)
            versions = [tensor._version for tensor in tensors]
            self._calls[place] = _Constant(kept, versions, _num_rows((args, kwargs)), _random_states())
        return output

    def _replay(self, chosen: ChosenClips | None, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        assert self._calls, "the directional pass calls more parts without tangents than the training pass"
        constant = self._calls.pop(0)
        if constant is None:
            return forward(*args, **kwargs)
        constant.require_untouched()
        _set_random_states(constant.random_states)
        if chosen is None or constant.num_rows == _num_rows((args, kwargs)):  # the latter: it knows nothing of clips
            return constant.output
        return tree_map(lambda value: chosen.of_clips(value) if isinstance(value, Tensor) else value, constant.output)


class _Reach:
    """Tells whether the graph of a tensor reaches one of some parameters; every node is visited once."""

    def __init__(self, moving: set[int]):
        self._moving = moving
        self._known: dict[Any, bool] = {}

    def __call__(self, tensor: Tensor) -> bool:
        if tensor.grad_fn is None:
            return tensor.requires_grad and id(tensor) in self._moving
        waiting = [tensor.grad_fn]
        while waiting:
            node = waiting[-1]
            inputs = [before for before, _ in node.next_functions if before is not None]
            unknown = [before for before in inputs if before not in self._known]
            if unknown and node not in self._known:
                waiting += unknown
                continue
            waiting.pop()
            is_leaf = hasattr(node, "variable") and id(node.variable) in self._moving
            self._known[node] = is_leaf or any(self._known[before] for before in inputs)
        return self._known[tensor.grad_fn]


def _requires_gradient(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _stands_still(module: nn.Module, moving: set[int]) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(id(parameter) in moving for parameter in parameters)


def _tensors_in(tree: Any) -> list[Tensor]:
    return [value for value in tree_leaves(tree) if isinstance(value, Tensor)]


def _num_rows(tree: Any) -> list[int]:
    return [len(tensor) for tensor in _tensors_in(tree) if tensor.dim()]


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
