"""The Grafana dashboard asks for metrics that exist: this project's, or Ray's own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from mama_ray.orchestration.cluster.exported_metrics import prometheus_names
from tests.cluster.cluster_files import CLUSTER

BOARD = json.loads((CLUSTER / "grafana/mama_ray.json").read_text())
RAYS_PANELS = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards"
_FUNCTIONS = {"sum", "max", "avg", "rate", "increase", "by", "label_values"}


def queries() -> Iterator[str]:
    """Yield what the panels and the variables ask Prometheus for."""
    for panel in BOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (variable["definition"] for variable in BOARD["templating"]["list"] if variable["type"] == "query")


def metrics_of(query: str) -> set[str]:
    """Return the names of a query that are neither functions, labels, variables nor texts."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|by \([^)]*\)|, \w+\)$', " ", query)
    return set(re.findall(r"[a-zA-Z_]\w*", bare)) - _FUNCTIONS


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_query_asks_for_metrics_that_are_exported(query):
    names = metrics_of(query)
    assert names
    rays = " ".join(path.read_text() for path in RAYS_PANELS.glob("*.py"))
    for name in names:
        assert name in prometheus_names() if name.startswith("ray_mama_ray") else re.search(rf"\b{name}\b", rays), name
    for opening, closing in ("()", "{}", "[]"):
        assert query.count(opening) == query.count(closing)


def test_our_own_metrics_are_chosen_by_run():
    for query in queries():
        for found in re.finditer(r"ray_mama_ray\w+(.)", query):
            assert found[1] in "{,", query


def test_panels_stand_in_rows_and_none_lies_on_another():
    assert [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"] == [
        "Training",
        "Captioning",
        "Cluster",
    ]
    places = [place for panel in BOARD["panels"] for place in cells(panel["gridPos"])]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def cells(grid: dict[str, int]) -> Iterator[tuple[int, int]]:
    yield from (
        (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
    )


def test_every_panel_takes_the_chosen_source_and_says_what_it_shows():
    variables = {variable["name"]: variable["type"] for variable in BOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "run": "query", "table": "query"}
    for panel in BOARD["panels"]:
        if panel["type"] != "row":
            sources: list[Any] = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
            assert panel["description"].endswith(".")
