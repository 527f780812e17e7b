"""Which parameters of a model are trained: all but the frozen ones, or low-rank adapters and a few beside them."""

from collections.abc import Sequence
from typing import Any

from mama_ray.errors import UserError
from mama_ray.models.adapters import add_adapters, plain_name
from mama_ray.models.patterns import choose, matches
from mama_ray.models.settings import LoraConfig

# What no pretrained model of images and texts has learned, and what the loss reads beside the features.
_TRAINED_BESIDE = ("*logit_scale", "*logit_bias", "*temporal*", "*added_cls", "*answer*")


def choose_trained_part(
    model: Any, *, freeze: Sequence[str] = (), lora: LoraConfig | None = None, seed: int = 0
) -> None:
    """Freeze what is not to be trained, and put adapters in where `lora` asks for them.

    A parameter that needs no gradient already stays so. UserError for a pattern that nothing fits, and where nothing
    is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen = frozenset(choose("model.freeze", freeze, names, kind="parameter"))
    frozen |= {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    trained = frozenset(names)
    if lora is not None:
        beside = lora.trained
        if beside is not None:
            choose("model.lora.trained", beside, names, kind="parameter")
        trained = frozenset(name for name in names if matches(name, _TRAINED_BESIDE if beside is None else beside))
        add_adapters(model, lora, frozen=frozen, seed=seed)
    for name, parameter in model.named_parameters():
        if plain_name(name) in names:  # the factors of adapters are trained where there are any
            parameter.requires_grad_(plain_name(name) in trained - frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "nothing is left to train",
            got=f"model.freeze {list(freeze)}, which fits all parameters",
            wanted="at least one parameter that is trained",
            remedy="freeze less, or add adapters by model.lora",
        )
