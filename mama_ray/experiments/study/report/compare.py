"""How runs of a study are looked up and compared: seed by seed, on the test split, with Student's intervals.

Whatever two things are compared, only seeds that both have count: the seed makes the corpus, its noise and the start of
the model, so it is by far the largest part of the spread and cancels in a paired difference.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mama_ray.errors import UserError
from mama_ray.experiments.study.results import ExperimentResults, StudyRun
from mama_ray.reporting.intervals import Interval, mean_interval

METRIC, OTHER_WAY = "t2v_R@1", "v2t_R@1"
PLAIN, ORACLE, MAIN = "uniform", "oracle", "methods"
# Experiments whose factor changes the method and leaves the data of `methods` as they are: where they have no run of
# the baseline or the oracle of their own, those of `methods` stand in for it.
SAME_DATA = (
    "inner_lr", "learned_relative", "meta_size", "meta_degraded", "weight_net", "captions", "grid", "inputs",
    "meta_wrong", "relative", "adam", "meta_noise",
)  # fmt: skip

Factor = float | str | None
Experiments = Mapping[str, ExperimentResults]


def check_experiments(experiments: Experiments) -> None:
    """Raise UserError for no experiments and for runs that a table would have to drop or count twice."""
    if not experiments:
        raise UserError("no experiments to report", wanted="at least one", remedy="run one of the study first")
    for name, experiment in experiments.items():
        seen = set()
        for run in experiment.runs:
            label = f"{name}: {run.method} at {show_factor(run.x)}, seed {run.seed}"
            if (run.method, run.x, run.seed) in seen:
                raise UserError("two runs of a study are the same one", got=label, wanted="one per method, x and seed")
            seen.add((run.method, run.x, run.seed))
            if not 0 <= run.selected < len(run.curve):
                got = f"{label}: point {run.selected} of {len(run.curve)}"
                raise UserError("a run of a study has no point to report", got=got)
            for point in (run.reported, run.final):
                if not math.isfinite(point.test.get(METRIC, math.nan)):
                    raise UserError(f"a run of a study has no test {METRIC}", got=label, wanted="a finite number")


def list_methods(experiment: ExperimentResults) -> list[str]:
    """Return the methods that have runs: in the order of the experiment, then those that it does not list."""
    found = {run.method for run in experiment.runs}
    listed = [method for method in experiment.methods if method in found]
    return listed + sorted(found - set(listed))


def list_factors(experiment: ExperimentResults, method: str | None = None) -> list[Factor]:
    """Return the factor's values, numbers in their order and then words as they came; None only if nothing else."""
    values = dict.fromkeys(run.x for run in experiment.runs if method in (None, run.method))
    words = [value for value in values if isinstance(value, str)]
    return sorted(value for value in values if isinstance(value, float | int)) + words or list(values)


def select_runs(experiment: ExperimentResults, method: str, x: Factor = None) -> list[StudyRun]:
    """Return the runs of a method at one value of the factor, by seed."""
    found = [run for run in experiment.runs if run.method == method and run.x == x]
    return sorted(found, key=lambda run: run.seed)


def find_reference(experiments: Experiments, name: str, method: str, x: Factor) -> list[StudyRun]:
    """Return the runs of a baseline that belong to the data at `x`.

    They are the experiment's own at `x`, else its own that have no factor, else, for an experiment on the same data,
    those of `methods`; else none.
    """
    own = select_runs(experiments[name], method, x) or select_runs(experiments[name], method)
    if own or name not in SAME_DATA or MAIN not in experiments:
        return own
    return select_runs(experiments[MAIN], method)


def take_metric(runs: Sequence[StudyRun], metric: str = METRIC, *, final: bool = False) -> dict[int, float]:
    """Return a test metric by seed, of the runs that have it: at the point chosen on val, or at the last one."""
    points = {run.seed: (run.final if final else run.reported).test for run in runs}
    return {seed: test[metric] for seed, test in points.items() if math.isfinite(test.get(metric, math.nan))}


def mean_over_factors(experiment: ExperimentResults, method: str) -> dict[int, float]:
    """Return a method's test recall by seed, the mean over all values of the factor; of seeds that have all of them."""
    found = [take_metric(select_runs(experiment, method, x)) for x in list_factors(experiment)]
    return {
        seed: float(np.mean([values[seed] for values in found]))
        for seed in sorted(found[0])
        if all(seed in values for values in found)
    }


def summarise(values: Mapping[int, float]) -> Interval | None:
    """Return the interval over seeds, None without one."""
    return mean_interval(list(values.values())) if values else None


def pair(values: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return values minus others, over the seeds that both have."""
    return {seed: values[seed] - others[seed] for seed in sorted(values) if seed in others}


def compare(values: Mapping[int, float], others: Mapping[int, float]) -> Interval | None:
    """Return the interval of the paired difference, None for no seed in common."""
    return summarise(pair(values, others))


def compare_runs(runs: Sequence[StudyRun], others: Sequence[StudyRun], metric: str = METRIC) -> Interval | None:
    """Return the paired difference of a test metric between runs and others."""
    return compare(take_metric(runs, metric), take_metric(others, metric))


def compute_synergy(
    experiment: ExperimentResults, cells: tuple[str, str, str, str], x: Factor = None
) -> Interval | None:
    """Return the interaction of two parts, (both - first) - (second - neither), seed by seed.

    `cells` names the methods as (both, first, second, neither). Above 0 the parts gain more together than apart.
    """
    both, first, second, neither = (take_metric(select_runs(experiment, method, x)) for method in cells)
    return compare(pair(both, first), pair(second, neither))


def recoverable(experiments: Experiments, name: str, x: Factor) -> Interval | None:
    """Return what there is to gain at `x`: the oracle, trained without the false pairs, minus the baseline."""
    oracle, plain = (find_reference(experiments, name, method, x) for method in (ORACLE, PLAIN))
    return compare_runs(oracle, plain)


def share_recovered(experiments: Experiments, name: str, method: str, x: Factor) -> float | None:
    """Return the mean gain of a method over the baseline as a share of the oracle's; over seeds that all three have.

    None where the oracle's gain cannot be told from 0: a share of nothing says nothing.
    """
    runs = {key: find_reference(experiments, name, key, x) for key in (ORACLE, PLAIN)}
    values = {key: take_metric(found) for key, found in runs.items()}
    own = take_metric(select_runs(experiments[name], method, x))
    seeds = [seed for seed in own if seed in values[ORACLE] and seed in values[PLAIN]]
    if not seeds or method in (ORACLE, PLAIN):
        return None
    whole = mean_interval([values[ORACLE][seed] - values[PLAIN][seed] for seed in seeds])
    if bounds(whole)[0] <= 0:
        return None
    return float(np.mean([own[seed] - values[PLAIN][seed] for seed in seeds])) / whole.mean


def bounds(interval: Interval) -> tuple[float, float]:
    """Return the two ends of an interval; one value alone is both."""
    half = interval.half_width or 0.0
    return interval.mean - half, interval.mean + half


def show_factor(value: Factor) -> str:
    """Return a factor's value as tables and axes show it."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float | int) else value


def describe_regime(experiment: ExperimentResults) -> str:
    """Return in which data an experiment's runs were, in a few words; a part that it does not record is left out."""
    shares = {"swapped captions": "swapped captions", "wrong": "wrong captions", "incomplete": "incomplete captions"}
    found = [(word, experiment.setting[key]) for word, key in shares.items() if key in experiment.setting]
    parts = [f"{100 * value:g} % {word}" for word, value in found if isinstance(value, float | int)]
    zipf = experiment.setting.get("Zipf exponent of topics")
    parts += [f"Zipf {zipf:g}"] if isinstance(zipf, float | int) else []
    return ", ".join([*parts, *(str(experiment.setting[key]) for key in ("data",) if key in experiment.setting)])


def count_seeds(experiment: ExperimentResults) -> int:
    """Return how many seeds the experiment's runs have."""
    return len({run.seed for run in experiment.runs})
