"""From the results of cells to the record of an experiment, with where it comes from."""

import datetime
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mama_ray.reporting.study_results import ExperimentResults, StudyRun, TuningTrial
from mama_ray.study.plan import ExperimentConfig, PlannedRun

if TYPE_CHECKING:
    from mama_ray.orchestration.study import StudyJob


def collect_results(
    name: str,
    experiment: ExperimentConfig,
    job: "StudyJob",
    runs: Sequence[PlannedRun],
    found: Sequence[dict[str, Any]],
    hashes: Sequence[str],
    tuning: tuple[TuningTrial, ...],
    origin: dict[str, str],
) -> ExperimentResults:
    """Join the runs of an experiment with what they found; `origin` is what `provenance` gave."""
    records = [
        StudyRun(method=run.method, x=run.x, cell=cell, **result)
        for run, result, cell in zip(runs, found, hashes, strict=True)
    ]
    own = set(experiment.methods)
    return ExperimentResults(
        name=name,
        title=experiment.title,
        question=experiment.question,
        factor=experiment.axis or experiment.factor,
        setting=describe_setting(job, runs[0]),
        methods=experiment.methods,
        runs=tuple(records),
        tuning=tuple(trial for trial in tuning if trial.method in own),
        **origin,
    )


def describe_setting(job: "StudyJob", run: PlannedRun) -> dict[str, float | str]:
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
    }


def provenance() -> dict[str, str]:
    """Return commit, command and date of a study that is run now."""
    command = shlex.join(["python", *(Path(word).name if word == sys.argv[0] else word for word in sys.argv)])
    return {
        "commit": current_commit(),
        "command": command.replace("python study.py", "python jobs/study.py"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def current_commit() -> str:
    """Return the commit of the source tree, marked where files of it are changed; "unknown" outside a repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mama_ray", "configs", "jobs")
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
