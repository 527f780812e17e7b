"""From the results of cells to the record of an experiment, with where it comes from."""

import datetime
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.plan import ExperimentConfig, PlannedRun
from mama_ray.experiments.study.results import ExperimentResults, StudyRun, TuningTrial
from mama_ray.masking import mask_command

_METRICS = {"val": ("t2v_R@1",), "test": ("t2v_R@1", "t2v_R@5", "v2t_R@1", "v2t_R@5")}


def collect_results(
    name: str,
    experiment: ExperimentConfig,
    job: StudyJob,
    runs: Sequence[PlannedRun],
    found: Sequence[dict[str, Any]],
    hashes: Sequence[str],
    tuning: tuple[TuningTrial, ...],
    command: str,
) -> ExperimentResults:
    """Join the runs of an experiment with what they found; `command` is what made this record."""
    records = [
        StudyRun(method=run.method, x=run.x, cell=cell, **shorten(result, run.cell))
        for run, result, cell in zip(runs, found, hashes, strict=True)
    ]
    own = {job.tuned_as.get(method, method) for method in experiment.methods}
    return ExperimentResults(
        name=name,
        title=experiment.title,
        question=experiment.question,
        factor=experiment.axis or experiment.factor,
        setting=describe_setting(job, runs[0]),
        methods=experiment.methods,
        runs=tuple(records),
        tuning=tuple(trial for trial in tuning if trial.method in own),
        tuned_as={method: job.tuned_as[method] for method in experiment.methods if method in job.tuned_as},
        commit=", ".join(sorted({result["commit"] for result in found})),
        command=command,
        date=max(result["date"] for result in found),
    )


def shorten(result: dict[str, Any], cell: CellConfig) -> dict[str, Any]:
    """Return the fields of a StudyRun, with what a record keeps: few metrics, and the curve of a weight net alone."""
    left_out = {"commit", "date", "ranks"}
    if cell.weighting.kind != "learned":
        left_out.add("weight_curve")
    fields = {name: value for name, value in result.items() if name not in left_out}
    curve = [
        point
        | {
            split: {name: point[split][name] for name in names if name in point[split]}
            for split, names in _METRICS.items()
        }
        for point in result["curve"]
    ]
    return fields | {"curve": curve}


def describe_setting(job: StudyJob, run: PlannedRun) -> dict[str, float | str]:
    """Return what the runs of an experiment share, in words; the factor's own value is that of the first run."""
    cell, corpus = run.cell, run.cell.corpus
    return {
        "training clips": corpus.num_train,
        "swapped captions": corpus.swapped_rate,
        "wrong captions": corpus.wrong_rate,
        "incomplete captions": corpus.incomplete_rate,
        "Zipf exponent of topics": corpus.zipf_exponent,
        "steps": cell.num_steps,
        "batch": cell.batch_size,
        "passes": round(cell.num_steps * cell.batch_size / corpus.num_train, 1),
        "meta-set": cell.meta_set.size,
        "meta batch": cell.meta.batch_size,
        "meta step every": cell.meta.meta_every,
        "start": cell.start if cell.start == "scratch" else f"pretrained, {job.pretraining.num_steps} steps",
        "val and test clips": f"{corpus.num_val} and {corpus.num_test}",
        **describe_options(cell),
    }


def describe_options(cell: CellConfig) -> dict[str, float | str]:
    """Return what a study's second part has beside, where it is not as in the first."""
    corpus, found = cell.corpus, {}
    words = ["two objects"] * (corpus.level == "full")
    words += [f"{100 * corpus.misread_rate:g} % misread captions"] * (corpus.misread_rate > 0)
    words += [f"labels on {kind} clips" for kind in ("swapped", "misread") if getattr(corpus.label_rate, kind)]
    words += ["facts of each topic's own"] * (corpus.topic_facts == "own")
    words += [f"meta-set of domain {corpus.meta_domain}"] * (corpus.meta_domain is not None)
    words += [f"val and test of domain {corpus.test_domain}"] * (corpus.test_domain is not None)
    if words:
        found["data"] = ", ".join(words)
    if cell.gallery_size:
        found["gallery"] = cell.gallery_size
    return found


def provenance() -> dict[str, str]:
    """Return commit and date of a run that is made now."""
    return {"commit": current_commit(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def current_command() -> str:
    """Return the command line of this process, with the program as the repository names it."""
    return shlex.join(mask_command(["python", f"jobs/{Path(sys.argv[0]).name}", *sys.argv[1:]]))


def current_commit() -> str:
    """Return the commit of the source tree, marked where files of it are changed; "unknown" outside a repository."""
    root = Path(__file__).resolve().parents[3]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mama_ray", "configs", "jobs")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
