"""The runs of a study as Ray tasks, and their results by hash."""

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.inputs import StudyInputs
from mama_ray.experiments.study.records import provenance
from mama_ray.experiments.study.run_cell import run_cell
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_MAX_RETRIES = 3  # a run is a pure function of its cell


class CellStore:
    """Results of cells on disk; what is missing is run."""

    def __init__(self, inputs: StudyInputs, folder: Path, *, num_parallel: int | None):
        self._inputs, self._folder = inputs, folder
        self._num_parallel = num_parallel or _cores()
        self._origin = provenance()
        folder.mkdir(parents=True, exist_ok=True)

    def hash_of(self, cell: CellConfig) -> str:
        """Return the name of a cell's result."""
        return self._inputs.name_of(cell)

    def run_all(self, cells: Sequence[CellConfig], *, label: str) -> list[dict[str, Any]]:
        """Return the result of every cell, in order; equal cells are run once."""
        named = {self.hash_of(cell): cell for cell in cells}
        missing = {name: cell for name, cell in named.items() if self._read(name) is None}
        if missing:
            logger.info("%s: %d runs, %d of them to be made", label, len(named), len(missing))
            self._inputs.prepare(list(missing.values()))
            self._run(missing, label)
        return [self._read(self.hash_of(cell)) for cell in cells]

    def _run(self, missing: dict[str, CellConfig], label: str) -> None:
        start = time.perf_counter()
        waiting, running, num_done = list(missing.items()), {}, 0
        try:
            while waiting or running:
                while waiting and len(running) < self._num_parallel:
                    name, cell = waiting.pop(0)
                    running[_run_cell.remote(cell, *self._inputs.of(cell))] = name
                (done,), _ = ray.wait(list(running))
                result = result_of(done)
                self._write(running.pop(done), result)
                num_done += 1
                elapsed = time.perf_counter() - start
                left = elapsed / num_done * (len(missing) - num_done)
                point = result["curve"][result["selected"]]
                split = "test" if point["test"] else "val"
                told = (num_done, len(missing), split, point[split]["t2v_R@1"], elapsed / 60, left / 60)
                logger.info(f"{label}: run %d of %d, %s t2v R@1 %.1f; %.1f min, about %.1f min left", *told)
        finally:
            for task in running:
                ray.cancel(task)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self._folder / f"{name}.json").read_text())
        except (FileNotFoundError, ValueError):  # a damaged result is no result
            return None

    def _write(self, name: str, result: dict[str, Any]) -> None:
        Place.of(self._folder / f"{name}.json").write_whole(json.dumps(result | self._origin))


def _cores() -> int:
    if "RAY_ADDRESS" in os.environ:
        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    return os.cpu_count() or 1  # a local Ray counts its CPUs double


@ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, name="study: run")
def _run_cell(cell: CellConfig, frames_path: Path, pretrained: Path, captions: dict[str, str]) -> dict[str, Any]:
    return run_cell(cell, frames_path, pretrained, captions)
