"""What the files of a study's results know already: a study that moves to another machine need not run it again."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mama_ray.experiments.study.results import read_experiments


@dataclass(frozen=True)
class KeptResults:
    """Val recall of the tuning's runs by cell, and the cells of each experiment."""

    tuning: dict[str, float]
    cells: dict[str, frozenset[str]]

    @classmethod
    def of(cls, folder: Path) -> "KeptResults":
        """Read a folder of results; an empty or missing one knows nothing. UserError for a damaged file."""
        if not any(folder.glob("*.json")):
            return cls({}, {})
        experiments = read_experiments(folder)
        trials = [trial for found in experiments.values() for trial in found.tuning if trial.cell]
        cells = {name: frozenset(run.cell for run in found.runs) for name, found in experiments.items()}
        return cls({trial.cell: trial.val for trial in trials}, cells)

    def has(self, experiment: str, cells: Collection[str]) -> bool:
        """Whether the experiment was run with these cells and no others."""
        return self.cells.get(experiment) == frozenset(cells)
