"""What a sweep leaves behind: the best config as a file that trains as it is, a table of trials, a report page."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mama_ray.config import config_to_yaml, with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.sweep.database import RUN_ATTRIBUTE, curves_by_run, latest_by_run, run_of
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import SweepPlan
from mama_ray.orchestration.sweep.values import FAILURE, describe_values, missing_metrics
from mama_ray.reporting.provenance import read_environment
from mama_ray.reporting.sweep_page import (
    State,
    SweepReport,
    SweepTrial,
    show_interval,
    summarise_variants,
    write_sweep_report,
)
from mama_ray.reporting.writers import read_metrics, read_series
from mama_ray.storage.places import Place, join_uri

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}
_MIN_FOR_IMPORTANCES = 4
_NUM_SHOWN = 3

logger = logging.getLogger(__name__)


def failures_of(results: Iterable[Any], objectives: Iterable[str]) -> dict[str, str]:
    """Return one line for every failed trial of Ray Tune's results, by run; one that ended without an objective
    failed."""
    found = {}
    for result in results:
        if result.metrics and result.metrics.get(FAILURE) and result.config:
            found[result.config["run"]] = result.metrics[FAILURE]
        elif result.error is not None and result.config:
            known = find_user_error(result.error)
            lines = [line for line in str(known or result.error).splitlines() if line.strip()]
            found[result.config["run"]] = lines[-1].strip() if lines else type(result.error).__name__
        elif result.config and (missing := missing_metrics(result.metrics or {}, objectives)):
            found[result.config["run"]] = f"it reported no number of {', '.join(missing)}"
    return found


def write_outcome(
    job: SweepJob,
    plan: SweepPlan,
    study: optuna.Study,
    place: Place,
    failures: Mapping[str, str],
) -> str:
    """Write trials.json, the report and, of a search, best.yaml; returns the line that says what was found.

    Raises UserError when no trial came to its end.
    """
    metric = next(iter(job.objectives))
    runs = place / "trials"
    curves = curves_by_run(study)
    ended = [_trial(found, curves[run_of(found)], failures) for found in latest_by_run(study)]
    trials = [_with_curve(trial, metric, runs / trial.name) for trial in ended]
    warning = _other_clips(trials, runs)
    if warning:
        logger.warning(warning)
    (place / "trials.json").write_whole(json.dumps([_record(trial) for trial in trials], indent=1))
    report = _report(job, plan, study, trials, warning)
    page = write_sweep_report(place / "report", report)
    told = f"{len(trials)} trials ({_counts(trials)})"
    where = join_uri(plan.uri, "report", page.rsplit("/", 1)[1])
    best = best_of(trials, job.objectives)
    if best is None:
        reason = next(iter(failures.values()), "see the log above")
        raise UserError("no trial came to its end", got=_counts(trials), remedy=f"the first failure was: {reason}")
    if job.variants:
        means = [f"{variant.name} {show_interval(variant.interval)}" for variant in report.variants]
        return f"{told}, {next(iter(job.objectives))}: {'; '.join(means)}: {where}"
    (place / "best.yaml").write_whole(_best_yaml(job, plan, best))
    base = report.named(report.base)
    beside = f", the base config {base.values[0]:.4g}" if base is not None and base.values and base is not best else ""
    values = describe_values(job.objectives, list(best.values))
    return f"{told}, best {values} by {best.name}{beside}; report {where}; train it: {join_uri(plan.uri, 'best.yaml')}"


def best_of(trials: Sequence[SweepTrial], objectives: Mapping[str, str]) -> SweepTrial | None:
    """Return the complete trial with the best first objective, of equals the earliest."""
    sign = 1 if next(iter(objectives.values())) == "max" else -1
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: (sign * trial.values[0], -trial.number), default=None)


def _report(job: SweepJob, plan: SweepPlan, study: optuna.Study, trials: list[SweepTrial], warning: str) -> SweepReport:
    complete = [trial for trial in trials if trial.state == "complete"]
    best = None if job.variants else best_of(trials, job.objectives)
    base_point = plan.first_points[0] if plan.first_points and not job.variants else None
    base = next((trial.name for trial in trials if base_point is not None and dict(trial.point) == base_point), None)
    variants = summarise_variants(trials, list(job.variants)) if job.variants else ()
    front = [f.user_attrs[RUN_ATTRIBUTE] for f in study.best_trials] if len(job.objectives) == 2 and complete else []
    metric, mode = next(iter(job.objectives.items()))
    ends = "largest" if mode == "max" else "smallest"
    facts = {"trials": str(len(trials))}
    facts |= {state: str(count) for state, count in _count_states(trials).items()}
    if best is not None:
        facts["best"] = f"{best.values[0]:.4g}"
    return SweepReport(
        title=f"{'Ablation' if job.variants else 'Sweep'} {job.run}",
        objectives=job.objectives,
        trials=tuple(trials),
        best=None if best is None else best.name,
        base=base,
        importances=_importances(study, len(complete)) if not job.variants and len(job.objectives) == 1 else {},
        front=tuple(front),
        variants=variants,
        lead=f"Chosen by the {ends} {metric} of the val split at the last step; the test split was not looked at."
        f"{warning and f' {warning}'}",
        facts=facts,
    )


def _trial(found: FrozenTrial, values_by_step: Mapping[int, float], failures: Mapping[str, str]) -> SweepTrial:
    name = found.user_attrs[RUN_ATTRIBUTE]
    state = _STATES[found.state]
    curve = tuple(sorted(values_by_step.items()))
    values = tuple(found.values or ()) if state in ("complete", "pruned") else ()
    step_s = found.user_attrs.get("step_s")
    return SweepTrial(
        name=name,
        number=found.number,
        state=state,
        point=found.params,
        values=values,
        curve=curve,
        num_steps=found.user_attrs.get("num_steps") or (curve[-1][0] if curve else None),
        step_s=step_s if step_s is not None and math.isfinite(step_s) else None,
        duration_s=found.duration.total_seconds() if found.duration is not None else None,
        error=failures.get(name, "") if state == "failed" else "",
    )


def _with_curve(trial: SweepTrial, metric: str, run_folder: Place) -> SweepTrial:
    """Return a trial with its curve; of several objectives the study keeps none, so it is read from the run."""
    if trial.curve or not metric.startswith("val/"):
        return trial
    try:
        steps, values = read_series(read_metrics(run_folder), metric)
    except (OSError, UserError):  # the page does without it
        return trial
    return replace(trial, curve=tuple(zip(steps, values, strict=True)))


def _other_clips(trials: Sequence[SweepTrial], runs: Place) -> str:
    """Return what there is to warn of where trials, of other shards or captions, were validated on other clips."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state != "complete":
            continue
        try:
            summary = read_environment(runs / trial.name).get("data", {})
        except (OSError, UserError):  # the page does without it
            continue
        if digest := summary.get("hash_of_ids", {}).get("val"):
            found.setdefault(digest, []).append(trial.name)
    if len(found) < 2:
        return ""
    shown = " and ".join(", ".join(names[:_NUM_SHOWN]) for names in found.values())
    return f"These values cannot be compared: trials were validated on different clips ({shown})."


def _record(trial: SweepTrial) -> dict[str, Any]:
    return {
        "run": trial.name,
        "state": trial.state,
        "values": list(trial.values),
        "point": dict(trial.point),
        "num_steps": trial.num_steps,
        "step_s": trial.step_s,
        "duration_s": trial.duration_s,
        "curve": [list(point) for point in trial.curve],
        "error": trial.error,
    }


def _best_yaml(job: SweepJob, plan: SweepPlan, best: SweepTrial) -> str:
    """Return the best trial's job as a run of its own beside the sweep."""
    overrides = plan.overrides_of(best.point)
    chosen = with_overrides(plan.base, overrides | {"storage": plan.storage, "run": f"{job.run}-best"})
    told = ", ".join(f"{metric} {value:.4g}" for metric, value in zip(job.objectives, best.values, strict=True))
    return f"# {best.name} of sweep {job.run}: {told}\n{config_to_yaml(chosen)}"


def _importances(study: optuna.Study, num_complete: int) -> dict[str, float]:
    """Return how much each setting matters, the most important first; {} where too few trials tell."""
    if num_complete < _MIN_FOR_IMPORTANCES:
        return {}
    try:
        found = optuna.importance.get_param_importances(study)
    except (RuntimeError, ValueError):  # such as trials that are all alike
        return {}
    return {name: share for name, share in found.items() if math.isfinite(share)}


def _count_states(trials: list[SweepTrial]) -> dict[str, int]:
    counts = {
        state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed", "running")
    }
    return {state: count for state, count in counts.items() if count}


def _counts(trials: list[SweepTrial]) -> str:
    return ", ".join(f"{count} {state}" for state, count in _count_states(trials).items()) or "none began"
