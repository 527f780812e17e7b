"""The margins that methods were tuned to: one may be added where the paper subtracts."""

from mama_ray.experiments.study.results import ExperimentResults

_KEY = "objective.margin"
_TUNED_AS = {"mama_captions": "mama"}


def tuned_margin(experiment: ExperimentResults, method: str) -> float | None:
    """Return the margin that the tuning chose for a method, below 0 where it is added; None where it was not tuned."""
    wanted = _TUNED_AS.get(method, method)
    for trial in experiment.tuning:
        keys = trial.key.split(" × ")
        if trial.method == wanted and trial.chosen and _KEY in keys:
            return float(str(trial.value).split(", ")[keys.index(_KEY)])
    return None


def with_margin(experiment: ExperimentResults, method: str, name: str = "") -> str:
    """Return a method's name, or another `name` for it, with the margin that it was tuned to where that is added."""
    margin = tuned_margin(experiment, method)
    added = f" (margin {margin:g}: added)" if margin is not None and margin < 0 else ""
    return (name or method) + added
