"""Whether the resources that the parts of a job want, on nodes of their labels, are to be had.

Ray holds a task or an actor back until a node with the labels has room for it, for ever if need be; so what can never
fit is told before it starts.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ray

from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.labels import matches

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """Resources that a part of a job wants in all, on nodes with these labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]


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
