"""Tables of how a study's runs went: weight nets that failed, tuning, commands, settings."""

from collections import Counter

from mama_ray.experiments.study.report.compare import (
    Experiments,
    count_seeds,
    list_factors,
    list_methods,
    select_runs,
    show_factor,
    summarise,
)
from mama_ray.experiments.study.report.table import Table
from mama_ray.experiments.study.report.weights import check_nets
from mama_ray.experiments.study.results import TuningTrial
from mama_ray.reporting.sweep_page import show_interval


def failures_table(experiments: Experiments) -> Table | None:
    """Return where weight nets failed, by experiment, method and factor; None without a net."""
    rows, num_nets = [], 0
    for name, experiment in experiments.items():
        for method in list_methods(experiment):
            for x in list_factors(experiment, method):
                health = check_nets(select_runs(experiment, method, x))
                if health is None:
                    continue
                num_nets += health.num_runs
                if not health.num_collapsed + health.num_alike + health.num_rising:
                    continue
                counts = (health.num_runs, health.num_collapsed, health.num_alike, health.num_rising)
                medians = (_digits(health.median_size), _digits(health.median_meta_ratio))
                rows.append((name, method, show_factor(x), *map(str, counts), *medians))
    head = ("experiment", "method", "factor", "runs", "collapsed", "all alike", "rising")
    head += ("effective sample size", "meta loss after / before")
    note = (
        f"Of {num_nets} runs with a weight net, only settings with a failure. Collapsed: effective sample size below "
        "0.05 of the batch. All alike: that size is 0.98 or more, or the largest weight less than 1.02 times the "
        "smallest, as of a net whose output is saturated. Rising: the highest losses weigh most. A run may count "
        "twice; medians are over runs."
    )
    return Table("Weight nets that failed", head, tuple(rows), note, num_names=3) if num_nets else None


def tuning_table(experiments: Experiments) -> Table | None:
    """Return every value that tuning tried, with its mean over the tuning's seeds; None without tuning."""
    # The experiments of a study share its tuning: each lists the trials of its own methods.
    trials = dict.fromkeys(trial for experiment in experiments.values() for trial in experiment.tuning)
    budgets = Counter(trial.method for trial in trials)
    groups: dict[tuple[str, str, float | str], list[TuningTrial]] = {}
    for trial in trials:
        groups.setdefault((trial.method, trial.key, trial.value), []).append(trial)
    rows = []
    for (method, key, value), found in groups.items():
        val = show_interval(summarise({trial.seed: trial.val for trial in found}))
        rows.append((method, key, _show(value), str(len(found)), val, _describe(found[0]), str(budgets[method])))
    if rows:
        rows += _untuned_rows(experiments, set(budgets))
    head = ("method", "setting", "value", "runs", "best val R@1", "", "budget, runs")
    note = "Every trial is listed. Tuning has seeds of its own, and each tuned method's budget is in the last column. "
    note += "At the end stand the methods that were not tuned, and whose settings they took."
    if any(trial.beyond for trial in trials):
        note += " Where the edge of a grid had won, the next value beyond was tried with it."
    return Table("Tuning", head, tuple(rows), note, num_names=2) if rows else None


def _untuned_rows(experiments: Experiments, tuned: set[str]) -> list[tuple[str, ...]]:
    origins: dict[str, str] = {}
    for experiment in experiments.values():
        for method in list_methods(experiment):
            if method not in tuned:
                origins.setdefault(method, experiment.tuned_as.get(method, ""))
    words = {method: f"settings of {other}" if other else "settings of the config" for method, other in origins.items()}
    return [(method, "not tuned", "", "0", "–", words[method], "0") for method in origins]


def sources_table(experiments: Experiments) -> Table:
    """Return the command, commit and date of every experiment."""
    rows = [
        (name, e.question, str(len(e.runs)), str(count_seeds(e)), e.command, e.commit, e.date)
        for name, e in experiments.items()
    ]
    head = ("experiment", "question", "runs", "seeds", "command", "commit", "date")
    return Table("How it was run", head, tuple(rows), is_words=True)


def settings_table(experiments: Experiments) -> Table:
    """Return what all runs of each experiment share."""
    rows = [(name, key, _show(value)) for name, e in experiments.items() for key, value in e.setting.items()]
    return Table("What all runs of an experiment share", ("experiment", "setting", "value"), tuple(rows), num_names=3)


def _describe(trial: TuningTrial) -> str:
    words = ["chosen"] * trial.chosen + ["beyond the grid"] * trial.beyond
    return ", ".join(words + [f"at the edge of {key}" for key in trial.at_edge])


def _show(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
