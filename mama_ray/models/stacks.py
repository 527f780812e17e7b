"""Where a parameter stands in the depth of its model: stacks of equal layers, found by the modules that hold them."""

import re
from collections.abc import Iterable

from torch import nn

_LOGITS = re.compile(r"(^|\.)logit_(scale|bias)$")


def is_stacked(model: nn.Module, name: str) -> bool:
    """Tell whether a module or parameter lies in a layer of a stack."""
    return any(name.startswith(f"{stack}.") for stack in _stacks(model))


def levels_below_top(model: nn.Module) -> dict[str, int]:
    """Return for every parameter how many levels it lies below the top of its tower.

    0 is what comes after the last layer, 1 the last layer, and so on; what comes before the first of n layers, such as
    embeddings, has n + 1 (BEiT's and timm's count). A stage within a stage counts its layers in order. What belongs to
    no stack, and logit scale and bias, has 0.
    """
    stacks = _stacks(model)
    names = [name for name, _ in model.named_parameters()]
    outer = [stack for stack in stacks if not any(stack.startswith(f"{other}.") for other in stacks)]
    levels = dict.fromkeys(names, 0)
    for stack in outer:
        layer_of = {name: _place(name, stacks) for name in names if name.startswith(f"{stack}.")}
        if not layer_of:
            continue
        order = {place: number for number, place in enumerate(sorted(set(layer_of.values())))}
        levels |= {name: len(order) - order[place] for name, place in layer_of.items()}
        first = next(number for number, name in enumerate(names) if name in layer_of)
        for name in names[:first]:
            if _nearest_stack(name, outer) == stack and not _LOGITS.search(name):
                levels[name] = len(order) + 1
    return levels


def _stacks(model: nn.Module) -> list[str]:
    """Names of the modules that hold layers of one kind, one after the other."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) or (isinstance(module, nn.Sequential) and _are_alike(module.children()))
    ]


def _are_alike(children: Iterable[nn.Module]) -> bool:
    kinds = [type(child) for child in children]
    return len(kinds) > 1 and len(set(kinds)) == 1


def _place(name: str, stacks: list[str]) -> tuple[float, ...]:
    """Numbers of the layers that a parameter lies in, from the outermost on; what closes a stage comes after it."""
    place = [float(name[len(stack) + 1 :].split(".")[0]) for stack in stacks if name.startswith(f"{stack}.")]
    return (*place, float("inf"))


def _nearest_stack(name: str, stacks: list[str]) -> str | None:
    """The stack in whose tower a parameter lies: with which it shares most of its path, and at least one part."""
    shared = {stack: _num_shared(name, stack) for stack in stacks}
    nearest = max(shared, key=lambda stack: shared[stack], default=None)
    return nearest if nearest is not None and shared[nearest] else None


def _num_shared(name: str, stack: str) -> int:
    count = 0
    for ours, theirs in zip(name.split(".")[:-1], stack.split(".")[:-1], strict=False):
        if ours != theirs:
            break
        count += 1
    return count
