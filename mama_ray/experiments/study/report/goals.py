"""The study's goals, each in one number: what was found, what was wanted, whether that is met."""

from dataclasses import dataclass

from mama_ray.experiments.study.report.claims import FULL, full_method, judge, show_distance, show_points
from mama_ray.experiments.study.report.compare import (
    MAIN,
    ORACLE,
    PLAIN,
    Experiments,
    bounds,
    compare,
    compare_runs,
    list_methods,
    mean_over_factors,
    select_runs,
    take_metric,
)
from mama_ray.experiments.study.report.contrasts import BOTH, CONTROLS, LEARNED_METHODS, has_controls
from mama_ray.experiments.study.report.tuned_margins import with_margin
from mama_ray.experiments.study.results import ExperimentResults

GOAL_GAIN, GOAL_GAP = 4.5, 3.0


@dataclass(frozen=True)
class Goal:
    """A goal in words with its number, and whether it is met."""

    text: str
    is_met: bool


def list_goals(experiments: Experiments) -> list[Goal]:
    """Return whether full MAMA gains at least 4.5 points, told apart from 0, and comes within 3 of the oracle; where
    there are controls, whether learned weights beat every one, and full MAMA lies within its interval of the oracle
    with captions.
    """
    if MAIN not in experiments:
        return []
    over_controls = [goal for name, one in experiments.items() for goal in _goals_over_controls(name, one)]
    return _goals_of_full(experiments[MAIN]) + over_controls


def _goals_of_full(experiment: ExperimentResults) -> list[Goal]:
    method = full_method(experiment)
    if method is None:
        return []
    goals, runs = [], select_runs(experiment, method)
    gain = compare_runs(runs, select_runs(experiment, PLAIN))
    if gain is not None:
        is_met = gain.mean >= GOAL_GAIN and judge(gain) == "yes"
        text = f"At least {GOAL_GAIN:g} points over plain InfoNCE, with the interval above 0: {show_points(gain)}"
        goals.append(Goal(text, is_met))
    gap = compare_runs(select_runs(experiment, ORACLE), runs)
    if gap is not None:
        text = f"Within {GOAL_GAP:g} points of the oracle: it lies {show_distance(gap)}"
        goals.append(Goal(text, gap.mean <= GOAL_GAP))
    alike = compare_runs(select_runs(experiment, "oracle_captions"), runs)
    if alike is not None and method == FULL and has_controls(experiment):
        text = f"{with_margin(experiment, FULL)} within its interval of the oracle with captions, "
        text += f"like with like: it lies {show_distance(alike)}"
        goals.append(Goal(text, bounds(alike)[0] <= 0))
    return goals


def _goals_over_controls(name: str, experiment: ExperimentResults) -> list[Goal]:
    """Return, for each kind of learned weights, whether it beats all of the experiment's controls."""
    if not has_controls(experiment):
        return []
    goals, methods = [], list_methods(experiment)
    for method in (one for one in LEARNED_METHODS if one in methods):
        own = _recalls(experiment, method)
        leads = {
            control: lead
            for control in (PLAIN, *CONTROLS)
            if (lead := compare(own, _recalls(experiment, control))) is not None
        }
        if not leads:
            continue
        least = min(leads, key=lambda control: leads[control].mean)
        beaten = [control for control, lead in leads.items() if judge(lead) == "yes"]
        text = (
            f"{name}: {method} beats every control: {len(beaten)} of {len(leads)} of them, and the best of all "
            f"({least}) by {show_points(leads[least])}"
        )
        goals.append(Goal(text, len(beaten) == len(leads)))
    return goals


def _recalls(experiment: ExperimentResults, method: str) -> dict[int, float]:
    """Return a method's recall by seed; with two kinds of data the mean over both."""
    if experiment.name == BOTH:
        return mean_over_factors(experiment, method) if method in list_methods(experiment) else {}
    return take_metric(select_runs(experiment, method))
