"""Which parameters of a model are trained: all but the frozen ones, or low-rank adapters and a few beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mama_ray.errors import UserError
from mama_ray.models.adapters import add_adapters, choose_targets, is_factor, plain_name
from mama_ray.models.answering import AnsweringEncoder
from mama_ray.models.patterns import choose, matches
from mama_ray.models.settings import LoraConfig

# What the loss reads beside the features, and what makes a model of images one of clips: however it was loaded.
_TRAINED_BESIDE = ("*logit_scale", "*logit_bias", "*temporal_embed*", "pooling.*", "*added_cls")


@dataclass(frozen=True)
class TrainedPart:
    """What is trained of a model.

    Attributes:
        parameters: names of those that are trained themselves.
        adapted: names of the linear layers that get adapters.
    """

    parameters: frozenset[str]
    adapted: tuple[str, ...]


def plan_trained_part(model: Any, *, freeze: Sequence[str] = (), lora: LoraConfig | None = None) -> TrainedPart:
    """Tell what of a model without adapters is to be trained; names and shapes of its weights are enough.

    Beside adapters, unless `lora` says what, all of `model.new_weights` is trained: there is nothing to adapt.
    A parameter that needs no gradient already stays so. UserError for a pattern that nothing fits, and where nothing
    is left to train.
    """
    names, adapted = [name for name, _ in model.named_parameters()], ()
    frozen = frozenset(choose("model.freeze", freeze, names, kind="parameter"))
    frozen |= {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if lora is not None:
        if lora.trained is not None:
            choose("model.lora.trained", lora.trained, names, kind="parameter")
        new = frozenset(model.new_weights) if lora.trained is None else frozenset()
        beside = _TRAINED_BESIDE if lora.trained is None else lora.trained
        names = [name for name in names if name in new or matches(name, beside)]
        adapted = choose_targets(model, lora, frozen | new)
    if lora is not None and lora.trained is None:  # an adapted layer is not trained itself, too
        names = [name for name in names if name.rpartition(".")[0] not in adapted]
    part = TrainedPart(frozenset(names) - frozen, adapted)
    if not (part.parameters or part.adapted):
        raise UserError(
            "nothing is left to train",
            got=f"model.freeze {list(freeze)}, which fits all parameters",
            wanted="at least one parameter that is trained",
            remedy="freeze less, or add adapters by model.lora",
        )
    return part


def freeze_answering_parts(model: Any) -> None:
    """Freeze what only answers are made of, adapters included, in a run where the model answers nothing.

    Nothing would train it, and DDP waits for the gradients of all that needs one.
    """
    parts = model.answering_parts if isinstance(model, AnsweringEncoder) else ()
    for name, parameter in model.named_parameters():
        if matches(name, parts):
            parameter.requires_grad_(False)


def choose_trained_part(
    model: Any, *, freeze: Sequence[str] = (), lora: LoraConfig | None = None, seed: int = 0
) -> None:
    """Freeze what is not to be trained, and put adapters in where `lora` asks for them.

    Their first factors are drawn from `seed`. UserError as of `plan_trained_part`.
    """
    part = plan_trained_part(model, freeze=freeze, lora=lora)
    if lora is not None:
        add_adapters(model, lora, part.adapted, seed=seed)
    for name, parameter in model.named_parameters():
        if not is_factor(name):
            parameter.requires_grad_(plain_name(name) in part.parameters)
