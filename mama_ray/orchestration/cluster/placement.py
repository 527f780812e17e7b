"""Where the parts of a job run: labels of nodes, the resources that are wanted there, and whether they are to be had.

Ray holds a task or an actor back until a node with the labels has room for it, for ever if need be; so what can never
fit is told before it starts.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import ray
from pydantic import AfterValidator, Field

from mama_ray.config import Config
from mama_ray.errors import UserError

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Share:
    """Resources that a part of a job wants in all, on nodes with these labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Tell whether a node with these labels is one that a selector means; every node is meant by an empty one."""

    def is_met(key: str, condition: str) -> bool:
        negation, several, one = _CONDITION.fullmatch(condition).groups()
        values = [one] if several is None else re.split(", ?", several)
        return (labels.get(key) in values) != bool(negation)

    return all(is_met(key, condition) for key, condition in selector.items())


def resources_of_nodes(selectors: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return the resources of the nodes that are alive and that one of the selectors means, summed up."""
    selectors, total = list(selectors), {}
    for node in ray.nodes():
        if node["Alive"] and any(matches(node["Labels"] or {}, selector) for selector in selectors):
            for name, amount in node["Resources"].items():
                total[name] = total.get(name, 0.0) + amount
    return total


def require_room(what: str, shares: list[Share], *, is_cluster: bool, remedy: str) -> None:
    """Raise UserError where this machine can never hold the shares; a cluster may grow, so there it is a warning."""
    for group in [*([share] for share in shares), shares]:  # each on its own nodes, then all on all of theirs
        wanted: dict[str, float] = {}
        for share in group:
            for name, amount in share.resources.items():
                wanted[name] = wanted.get(name, 0.0) + amount
        total = resources_of_nodes(share.labels for share in group)
        lacking = {name: amount for name, amount in wanted.items() if amount and total.get(name, 0.0) < amount}
        if not lacking:
            continue
        labels = {f"{key}={value}" for share in group for key, value in share.labels.items()}
        where = f" on nodes with {', '.join(sorted(labels))}" if labels else ""
        got = ", ".join(f"{total.get(name, 0.0):g} {name}" for name in lacking) + where
        needs = ", ".join(f"{amount:g} {name}" for name, amount in lacking.items()) + where
        if not is_cluster:
            raise UserError(f"{what} does not fit this machine", got=got, wanted=needs, remedy=remedy)
        logger.warning("%s wants %s, the cluster has %s: waiting for nodes", what, needs, got)
        return
