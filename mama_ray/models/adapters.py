"""Low-rank adapters of a model's linear layers, by peft: put in, merged on the way out, kept apart in a checkpoint.

An adapted layer `q_proj` holds `q_proj.base_layer` and the factors `q_proj.lora_A.default`, `q_proj.lora_B.default`.
What leaves the process has neither: `exported_state` gives the names and shapes of the model without adapters, their
product added to the weights. A training goes on from `adapter_state`, since no sum can be taken apart to the last bit.

peft is imported inside the functions: it takes seconds, and only such trainings need it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mama_ray.errors import UserError
from mama_ray.models.patterns import choose, matches
from mama_ray.models.settings import LoraConfig
from mama_ray.models.stacks import is_stacked
from mama_ray.models.weight_files import State

_ATTENTION = ("*attn*", "*attention*")
_BASE, _FACTOR = ".base_layer.", ".lora_"


def choose_targets(model: Any, config: LoraConfig, frozen: frozenset[str]) -> tuple[str, ...]:
    """Return the names of the linear layers that get adapters: none whose weight is among the `frozen` names, which are
    not trained, or trained whole.

    UserError for patterns that no linear layer fits, where none is left, and for a rank that a layer has not.
    """
    layers = _adaptable(model)
    if config.targets is not None:
        fitting = choose("model.lora.targets", config.targets, list(layers), kind="linear layer")
    else:
        fitting = [name for name in layers if is_stacked(model, name) and matches(name, _ATTENTION)]
    targets = tuple(name for name in fitting if f"{name}.weight" not in frozen)
    if not targets:
        raise UserError(
            "no layer is left for adapters",
            got="model.freeze on all that fit model.lora.targets" if fitting else "no attention in stacked layers",
            wanted="linear layers that are not frozen, with weights of the model that was loaded",
            remedy="name others in model.lora.targets",
        )
    narrowest = min(targets, key=lambda name: min(layers[name].weight.shape))
    limit = min(layers[narrowest].weight.shape)
    if config.rank > limit:
        wanted = f"at most {limit}, the rank of {narrowest}"
        raise UserError("model.lora.rank is more than a layer has", got=config.rank, wanted=wanted)
    return targets


def add_adapters(model: Any, config: LoraConfig, targets: Sequence[str], *, seed: int) -> None:
    """Put adapters into these layers, which then give what they gave; all else is frozen.

    The first factors are random, from `seed` alone; the second are 0.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    from mama_ray.models.adapted_layer import take_over

    settings = PeftConfig(
        r=config.rank,
        lora_alpha=2 * config.rank if config.alpha is None else config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, model)
    for name in targets:
        take_over(model.get_submodule(name))


def exported_state(model: Any) -> State:
    """Return the weights under the names of the model without adapters, with the adapters merged into them."""
    state = dict(model.state_dict())
    if not _has_adapters(state):
        return state
    merged = _merged_weights(model)
    return {plain_name(name): merged.get(name, tensor) for name, tensor in state.items() if not is_factor(name)}


def adapter_state(model: Any) -> State:
    """Return what `exported_state` cannot give back: the factors and the weights of their layers; {} without any."""
    state = dict(model.state_dict())
    return {name: tensor for name, tensor in state.items() if is_factor(name) or name.endswith(f"{_BASE}weight")}


def load_exported_state(model: Any, exported: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> None:
    """Fill a model from what `exported_state` and `adapter_state` gave; RuntimeError where they are another model's."""
    left = dict(exported)
    state = dict(adapters)
    for name in model.state_dict():
        plain = plain_name(name)
        if plain in left and not is_factor(name):
            value = left.pop(plain)
            state.setdefault(name, value)
    model.load_state_dict(state | left)


def plain_name(name: str) -> str:
    """Return the name that a parameter has in the model without adapters."""
    return name.replace(_BASE, ".")


def is_factor(name: str) -> bool:
    """Tell whether a parameter's name is that of an adapter's factor."""
    return _FACTOR in name


def _has_adapters(state: State) -> bool:
    return any(map(is_factor, state))


def _adaptable(model: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers by name, without those of torch's own attention, which reads their weights and calls none."""
    inside = [f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(name.startswith(prefix) for prefix in inside)
    }


@torch.no_grad()
def _merged_weights(model: nn.Module) -> State:
    from mama_ray.models.adapted_layer import ADAPTER, AdaptedLinear

    return {
        f"{name}{_BASE}weight": layer.get_base_layer().weight + layer.get_delta_weight(ADAPTER)
        for name, layer in model.named_modules()
        if isinstance(layer, AdaptedLinear)
    }
