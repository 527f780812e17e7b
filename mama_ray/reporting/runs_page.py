"""One page over all runs of a storage: what each was, how far it came, what it reached, and where its own page is.

python -m mama_ray.reporting.runs_page STORAGE        # writes STORAGE/index.html
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from markupsafe import Markup

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedResult
from mama_ray.evaluation.protocol import Protocol, ResultFile, differing_fields
from mama_ray.evaluation.question_protocol import PREDICTIONS_ENDING, QuestionResult
from mama_ray.reporting import plots
from mama_ray.reporting.document import PAGE_NAME, Figure, format_duration, render_template
from mama_ray.reporting.provenance import read_provenance
from mama_ray.reporting.run_summary import training_time_s
from mama_ray.reporting.writers import read_metrics, read_series
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_JSON_BYTES

logger = logging.getLogger(__name__)

_VALIDATION = "val/t2v_R@1"
_MOST_CURVES = 12  # the latest ones
_SHOWN_LETTERS = 12  # of a hash


@dataclass(frozen=True)
class RunLine:
    """A run as its folder tells it; `results` are plain t2v R@1 by protocol, `page` is relative to the storage."""

    name: str
    kind: str
    started: str = ""
    num_steps: int | None = None
    duration_s: float | None = None
    best_val: float | None = None
    best_loss: float | None = None
    results: Mapping[Protocol, float] = field(default_factory=dict)
    page: str | None = None
    curve: tuple[Sequence[int], Sequence[float]] = ((), ())
    trouble: str = ""


def read_runs(storage: Place) -> list[RunLine]:
    """Return what lies in a storage's folders of runs, the latest start first; what cannot be read says why."""
    lines = []
    for info in storage.entries():
        if info.is_file:
            continue
        folder = storage.at(info.path)
        names = {entry.base_name for entry in folder.entries()}
        if not names & {"metrics.jsonl", "study.db", "trials.json"}:
            continue
        try:
            lines.append(_read_run(folder, names))
        except (OSError, ValueError) as error:  # one damaged run must not hide the others
            lines.append(RunLine(folder.name, "run", trouble=" ".join(str(error).split())[:200]))
    return sorted(lines, key=lambda line: (line.started, line.name), reverse=True)


def write_runs_page(storage_uri: str) -> str:
    """Write `<storage>/index.html` and return its URI. Raises UserError where there is no run."""
    storage = Place.of(storage_uri)
    runs = read_runs(storage)
    if not runs:
        raise UserError("no runs", got=f"{storage}", wanted="a storage of jobs/train.py, narrator.py or tune.py")
    place = storage / PAGE_NAME
    place.write_whole(render_runs_page(f"{storage}", runs))
    return place.uri


def render_runs_page(title: str, runs: Sequence[RunLine]) -> str:
    """Return the page as HTML text."""
    return render_template(
        "runs.html.j2",
        title=title,
        kind="runs",
        lead="",
        facts={"runs": str(len(runs))},
        is_single=False,
        runs=runs,
        benchmarks=benchmark_columns(runs),
        figures=_figures(runs),
        duration=format_duration,
    )


def benchmark_columns(runs: Sequence[RunLine]) -> dict[str, Protocol]:
    """Return a column for each protocol, by name: a whole benchmark and a part of it, or two data sets, share none.

    Protocols of one name are told apart by the fields in which they differ.
    """
    by_name: dict[str, list[Protocol]] = {}
    for run in runs:
        for protocol in run.results:
            if protocol not in by_name.setdefault(protocol.name, []):
                by_name[protocol.name].append(protocol)
    columns = {}
    for name, protocols in sorted(by_name.items()):
        differences = differing_fields(protocols)
        for number, protocol in enumerate(protocols):
            told = [f"{key} {str(values[number])[:_SHOWN_LETTERS]}" for key, values in differences.items()]
            columns[", ".join([name, *told])] = protocol
    return columns


def _read_run(folder: Place, names: set[str]) -> RunLine:
    page = f"{folder.name}/report/{PAGE_NAME}"
    has_page = (folder / f"report/{PAGE_NAME}").is_file()
    if "metrics.jsonl" not in names:
        return RunLine(folder.name, "sweep", page=page if has_page else None)
    records = read_metrics(folder)
    validation, losses = read_series(records, _VALIDATION), read_series(records, "val/caption_loss")[1]
    is_narrator = any("train/caption_loss" in record for record in records)
    return RunLine(
        name=folder.name,
        kind="narrator" if is_narrator else "train",
        started=read_provenance(folder, records).get("started", ""),
        num_steps=records[-1]["step"] if records else None,
        duration_s=training_time_s(records),
        best_val=max(validation[1], default=None),
        best_loss=min(losses, default=None),
        results=_read_results(folder) if "evaluation" in names else {},
        page=page if has_page else None,
        curve=validation,
    )


def _read_results(folder: Place) -> dict[Protocol, float]:
    found = {}
    for place in (folder / "evaluation").files():
        if not place.name.endswith(".json") or place.name.endswith(PREDICTIONS_ENDING):
            continue
        content = place.read_bytes(MAX_JSON_BYTES)
        try:
            results = ResultFile.from_json(content).results
        except UserError as error:  # another file, or of another version, must not hide the run
            if not _is_of_another_family(content):
                logger.warning("%s is left out: %s", place, error)
            continue
        for result in results:
            if result.label == "plain" and "t2v_R@1" in result.metrics:
                found[result.protocol] = result.metrics["t2v_R@1"]
    return found


def _is_of_another_family(content: bytes) -> bool:
    for kind in (QuestionResult, AnnotatedResult):
        with suppress(UserError):
            return bool(kind.from_json(content))
    return False


def _figures(runs: Sequence[RunLine]) -> list[Figure]:
    curves = {run.name: run.curve for run in runs if run.curve[0]}
    shown = dict(list(curves.items())[:_MOST_CURVES])
    if not shown:
        return []
    svg = plots.curves_svg(shown, xlabel="step", ylabel="R@1, text to video (%)", from_zero=True)
    legend = tuple((name, f"var(--series-{n % len(plots.SERIES) + 1})", False) for n, name in enumerate(shown))
    note = f"The {len(shown)} that started last." if len(shown) < len(curves) else ""
    return [Figure("Recall on the validation split", Markup(svg), note, legend)]


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit("usage: python -m mama_ray.reporting.runs_page STORAGE")
    try:
        print(write_runs_page(sys.argv[1]))  # noqa: T201 - the program's result
    except UserError as refusal:
        sys.exit(f"error: {refusal}")
