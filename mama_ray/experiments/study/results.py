"""What a controlled study found, as small JSON files: one per experiment, a record per training run.

The files lie in the repository beside the docs that quote them and name the commit and the command that made them, so
tables, figures and report are drawn from them again without training anything.
"""

from pathlib import Path

import pydantic
from pydantic import BaseModel, ConfigDict

from mama_ray.errors import UserError
from mama_ray.storage.places import Place

RESULTS_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CurvePoint(_Record):
    """The model at one point of its training."""

    step: int
    epoch: float
    """Passes over the training clips so far."""
    val: dict[str, float]
    """Metrics on the clean, balanced val split, such as t2v_R@1 in percent."""
    test: dict[str, float]
    """The same on the test split."""
    train_loss: float | None = None
    """Mean unweighted loss of the training batches since the point before."""


class StudyRun(_Record):
    """One training run: a method at one value of the experiment's factor, from one seed."""

    method: str
    x: float | str | None
    """The factor's value; None where the experiment has no factor."""
    seed: int
    cell: str
    """Hash of the run's whole config."""
    selected: int
    """Index in `curve` of the point with the best val t2v_R@1: what is reported."""
    curve: tuple[CurvePoint, ...]
    topic_recall: dict[str, float] = {}
    """Test t2v_R@1 by topic at the selected point, percent."""
    topic_share: dict[str, float] = {}
    """Share of each topic among the training clips, percent."""
    weights: dict[str, float] = {}
    """Mean weight over the last quarter of the steps by what was done to the caption (clean, incomplete, wrong,
    swapped, misread); 1 is uniform."""
    weight_curve: tuple[tuple[float, float], ...] = ()
    """(mean loss, mean weight) of equally large groups of samples by loss, over the last quarter; 1 is uniform. Only
    of runs with a weight net."""
    effective_sample_size: float | None = None
    """Kish's size as a share of the batch, mean of the last quarter."""
    meta_loss_ratio: float | None = None
    """Meta loss after over before the lookahead, median of the last quarter."""
    learned: dict[str, float] = {}
    """What the meta-set made beside the weights, means over the batches of the last quarter: a margin and its spread,
    the share of generated captions in the loss, in all and by what was done to clips' own."""
    step_s: float | None = None
    """Mean seconds per training step, on a machine shared with other runs."""

    @property
    def reported(self) -> CurvePoint:
        """The point chosen on val."""
        return self.curve[self.selected]

    @property
    def final(self) -> CurvePoint:
        """The last point, chosen by nothing."""
        return self.curve[-1]


class TuningTrial(_Record):
    """One run of the tuning that each method had before the study, on seeds of its own."""

    method: str
    key: str
    """The setting, or the settings of a grid."""
    value: float | str
    seed: int
    val: float
    """Best val t2v_R@1 on the way."""
    chosen: bool
    beyond: bool = False
    """Whether the grid was widened to this value, because its edge had won."""
    cell: str = ""
    """Hash of the run's whole config; empty in records from before it was written down."""
    at_edge: tuple[str, ...] = ()
    """Of the chosen: which settings still lie at the edge of what was tried."""


class ExperimentResults(_Record):
    """All runs of one experiment."""

    version: int = RESULTS_VERSION
    name: str
    title: str
    question: str
    """What the experiment is there to answer."""
    factor: str | None = None
    """What `x` is, in words for an axis."""
    setting: dict[str, float | str]
    """What all runs share, in words."""
    methods: tuple[str, ...]
    """In the order of tables; the first is what others are compared with."""
    runs: tuple[StudyRun, ...]
    tuning: tuple[TuningTrial, ...] = ()
    tuned_as: dict[str, str] = {}
    """Of methods without a tuning of their own: whose settings they took."""
    commit: str
    command: str
    date: str


def write_experiment(results: ExperimentResults, folder: str | Path) -> Path:
    """Write `<folder>/<name>.json`, one run a line, whole or not at all; returns its path."""
    path = Path(folder, f"{results.name}.json")
    head = results.model_dump_json(exclude={"runs"}, indent=1).removesuffix("\n}")
    runs = ",\n  ".join(run.model_dump_json() for run in results.runs)
    Place.of(path).write_whole(f'{head},\n "runs": [\n  {runs}\n ]\n}}\n')
    return path


def read_experiments(folder: str | Path) -> dict[str, ExperimentResults]:
    """Read every experiment of a folder by name; UserError for a folder without one and for a damaged file."""
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise UserError("no results of a study", got=str(folder), wanted="a folder of *.json files")
    found = {}
    for path in paths:
        try:
            found[path.stem] = ExperimentResults.model_validate_json(path.read_text())
        except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
            raise UserError("results of a study cannot be read", got=f"{path}: {_first_line(error)}") from error
    return found


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
