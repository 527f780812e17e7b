"""On which nodes the parts of a job run, by the nodes' labels; no Ray here, so that a command line knows it at once."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from mama_ray.config import Config

# Ray's own grammar: a value, !value, in(a, b) or !in(a, b).
_CONDITION = re.compile(r"(!?)(?:in\(([\w.-]+(?:, ?[\w.-]+)*)\)|([\w.-]+))")


def _check_condition(text: str) -> str:
    if not _CONDITION.fullmatch(text):
        raise ValueError(f"label of a node: got {text!r}, wanted a value, !value, in(a, b) or !in(a, b)")
    return text


# Labels that a node must have. Ray gives every node some, others are given to it by `ray start --labels`.
NodeLabels = dict[str, Annotated[str, AfterValidator(_check_condition)]]


class PlacementConfig(Config):
    """On which nodes the processes of a training run are."""

    worker_labels: NodeLabels = {}
    """Labels of nodes for train workers, such as {ray.io/accelerator-type: H100}; empty is any node."""

    worker_resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom resources of a train worker, such as {train_slot: 1}, which tie workers to a group of nodes."""

    decode_labels: NodeLabels = {}
    """Labels of nodes for the tasks that read and decode clips; empty is any node."""


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Tell whether a node with these labels is one that a selector means; every node is meant by an empty one."""

    def is_met(key: str, condition: str) -> bool:
        found = _CONDITION.fullmatch(condition)
        assert found is not None, condition  # NodeLabels takes no other
        negation, several, one = found.groups()
        values = [one] if several is None else re.split(", ?", several)
        return (labels.get(key) in values) != bool(negation)

    return all(is_met(key, condition) for key, condition in selector.items())
