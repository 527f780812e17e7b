"""The Grafana dashboard asks for metrics that exist: those that short runs export, or Ray's own."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from mama_ray.config import with_overrides
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.cluster.exported_metrics import prometheus_names
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from tests.captioning.tiny_models import write_llava
from tests.cluster.cluster_files import CLUSTER
from tests.orchestration.cluster.prometheus_page import names_of, read_page
from tests.orchestration.runs.training_runs import SETTINGS, write_shards

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


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


@contextmanager
def watched(run: str) -> Iterator[set[str]]:
    """Collect the names that a run exports while it goes on: they are gone some time after its processes."""
    names: set[str] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            names.update(names_of(read_page(), run=run))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield names
        is_over.wait(12)  # a process that goes on reports every ten seconds, one that ends when it does
    finally:
        is_over.set()
        watcher.join()


def own_names() -> set[str]:
    """Return the names of this project's metrics on the dashboard."""
    return {name for query in queries() for name in metrics_of(query) if name.startswith("ray_mama_ray")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_a_training_run_exports_what_the_dashboard_shows_of_one(ray_cluster, shards, tmp_path):
    job = TrainJob.model_validate(SETTINGS)
    with watched("board") as exported:
        train(with_overrides(job, {"shards": str(shards), "storage": str(tmp_path), "run": "board"}))
    wanted = {name for name in own_names() if not name.startswith("ray_mama_ray_caption")}
    assert wanted
    assert wanted - exported == set()


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.slow
def test_a_captioning_job_exports_what_the_dashboard_shows_of_one(ray_cluster, shards, tmp_path):
    table = str(tmp_path / "table")
    settings = {"sampling": {"max_tokens": 8}, "engine": {"kv_cache_mib": 32}, "split": "val"}
    job = CaptionJob.model_validate(settings | {"model": str(write_llava(tmp_path / "tiny"))})
    with watched(table) as exported:
        caption(job.model_copy(update={"shards": str(shards), "output": table}))
    wanted = {name for name in own_names() if name.startswith("ray_mama_ray_caption")}
    assert wanted
    assert wanted - exported == set()


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
