"""The tables of a study, for the page and as Markdown: every number that a figure shows, with its interval."""

from collections.abc import Sequence

import numpy as np

from mama_ray.experiments.study.report.claim_tables import change_table, claims_table
from mama_ray.experiments.study.report.claims import UNKNOWN, full_method, judge
from mama_ray.experiments.study.report.compare import (
    MAIN,
    ORACLE,
    OTHER_WAY,
    PLAIN,
    SAME_DATA,
    Experiments,
    Factor,
    check_experiments,
    compare_runs,
    find_reference,
    list_factors,
    list_methods,
    recoverable,
    select_runs,
    share_recovered,
    show_factor,
    summarise,
    take_metric,
)
from mama_ray.experiments.study.report.contrasts import BOTH
from mama_ray.experiments.study.report.goals import list_goals
from mama_ray.experiments.study.report.run_tables import failures_table, tuning_table
from mama_ray.experiments.study.report.significance import (
    corrected_of,
    show_corrected,
    show_detectable,
)
from mama_ray.experiments.study.report.table import Table, table_markdown
from mama_ray.experiments.study.report.topics import gains_by_seed, join_ranks
from mama_ray.experiments.study.report.weights import rises_by_seed
from mama_ray.experiments.study.results import ExperimentResults, StudyRun
from mama_ray.reporting.sweep_page import show_interval

INTERVAL_NOTE = (
    "R@1 on the test split in percent, means over seeds. Differences are paired: seed by seed, over the seeds that "
    "both have; ± is half of their 95 % interval (Student's t), none for one seed. Means have none: seeds differ more "
    "than methods do."
)
MOST_ROWS = 8  # of a factor's table that is not folded away at first: its figure shows the same
KIND_ORDER = ("clean", "incomplete", "wrong", "swapped", "misread")


def methods_table(experiments: Experiments) -> Table | None:
    """Return the table of the experiment that compares all methods, None without it."""
    if MAIN not in experiments:
        return None
    experiment = experiments[MAIN]
    head = ("method", "seeds", "t2v R@1", "v2t R@1", "t2v R@1, last step", f"− {PLAIN}", f"{ORACLE} − it")
    head += ("p, corrected", "could have seen", f"step time / {PLAIN}")
    plain, oracle = (select_runs(experiment, method) for method in (PLAIN, ORACLE))
    rows, found = [], _rows_of(experiment)
    differences = [None if method == PLAIN else compare_runs(runs, plain) for method, runs in found.items()]
    for (method, runs), difference, p in zip(found.items(), differences, corrected_of(differences), strict=True):
        gap = None if method == ORACLE else compare_runs(oracle, runs)
        compared = (show_interval(difference, signed=True), show_interval(gap, signed=True))
        compared += (show_corrected(p), show_detectable(difference) if judge(difference) == UNKNOWN else "")
        rows.append((method, *_recalls(runs), *compared, _step_share(runs, plain)))
    note = f"{INTERVAL_NOTE} p: of the difference to {PLAIN}, by Holm's rule for all rows. "
    note += "A run is reported at its best point on val, and beside it at its last step. "
    note += "Step time: median over seeds of the ratio, on a core shared with other runs."
    return Table(experiment.title, head, tuple(rows), note)


def weights_table(experiments: Experiments, name: str = MAIN) -> Table | None:
    """Return the mean weight by what was done to the caption, None where no run of the experiment records any."""
    experiment = experiments.get(name)
    known = {kind for run in experiment.runs for kind in run.weights} if experiment else set()
    if not known:
        return None
    kinds = [kind for kind in KIND_ORDER if kind in known] + sorted(known - set(KIND_ORDER))
    rows = [
        (method, *(_mean_weight(runs, kind) for kind in kinds), _mean_size(runs), _rise(runs))
        for method, runs in _rows_of(experiment).items()
        if any(run.weights for run in runs)
    ]
    head = ("method", *kinds, "effective sample size", "rise of the weight")
    note = (
        "Mean weight over the last quarter of the steps, by what was done to the caption; 1 is uniform. Training never "
        "sees the kinds. Rise: how much more the half of higher losses weighs than the other, as a share of the "
        "curve's peak; below 0 high losses are discounted."
    )
    title = "What the weights are" if name == MAIN else f"What the weights are: {experiment.title}"
    return Table(title, head, tuple(rows), note)


def _rows_of(experiment: ExperimentResults) -> dict[str, list[StudyRun]]:
    """Return the runs of every method, and of every value of the factor should there be one, by the row's name."""
    cells = [(method, x) for method in list_methods(experiment) for x in list_factors(experiment, method)]
    names = {(method, x): method if x is None else f"{method}, {show_factor(x)}" for method, x in cells}
    return {name: select_runs(experiment, method, x) for (method, x), name in names.items()}


def factor_table(experiments: Experiments, name: str) -> Table:
    """Return the table of one experiment: a row per value of the factor and method."""
    experiment = experiments[name]
    base = baseline_of(experiment)
    has_curve = any(run.weight_curve for run in experiment.runs)
    from_zero = name.startswith("margin")
    head = (experiment.factor or "factor", "method", "seeds", "t2v R@1", "v2t R@1", "t2v R@1, last step")
    head += (f"− {base} there", f"{ORACLE} − {PLAIN} there", "share of that gained")
    head += ("− margin 0",) * from_zero + ("rise of the weight",) * has_curve
    rows = []
    for x, method in _cells(experiment):
        runs = select_runs(experiment, method, x)
        difference = None if method == base else compare_runs(runs, find_reference(experiments, name, base, x))
        row = (show_factor(x), method, *_recalls(runs), show_interval(difference, signed=True))
        row += (show_interval(recoverable(experiments, name, x), signed=True),)
        row += (show_share(share_recovered(experiments, name, method, x)),)
        if from_zero:
            moved = None if x == 0 else compare_runs(runs, select_runs(experiment, method, 0.0))
            row += (show_interval(moved, signed=True),)
        rows.append(row + (_rise(runs),) * has_curve)
    note, is_folded = _factor_note(experiments, name), len(rows) > MOST_ROWS
    return Table(experiment.title, head, tuple(rows), note, num_names=2, is_folded=is_folded)


def _cells(experiment: ExperimentResults) -> list[tuple[Factor, str]]:
    """Return the (x, method) that have runs: by x where methods share their values, else method by method."""
    methods = list_methods(experiment)
    values = {method: list_factors(experiment, method) for method in methods}
    cells = [(x, method) for method in methods for x in values[method]]
    if len(set(map(frozenset, values.values()))) == 1:
        cells.sort(key=lambda cell: values[cell[1]].index(cell[0]))
    return cells


def _factor_note(experiments: Experiments, name: str) -> str:
    note = "Share: mean gain over the oracle's on the seeds that both have, where the oracle's is told apart from 0."
    has_own = {PLAIN, ORACLE} <= set(list_methods(experiments[name]))
    if name in SAME_DATA and MAIN in experiments and not has_own:
        note += f" The data are those of {MAIN}: a baseline or oracle that was not run here is taken from there."
    return note


def baseline_of(experiment: ExperimentResults) -> str:
    """Return the method that others of an experiment are compared with: plain InfoNCE where it has any."""
    methods = list_methods(experiment)
    is_plain = PLAIN in methods or experiment.name in SAME_DATA or not experiment.methods
    return PLAIN if is_plain else experiment.methods[0]


def topics_table(experiments: Experiments) -> Table | None:
    """Return recall and gain by frequency rank of the topic, None without runs that have topics."""
    if MAIN not in experiments or full_method(experiments[MAIN]) is None:
        return None
    experiment, method = experiments[MAIN], full_method(experiments[MAIN])
    plain = select_runs(experiment, PLAIN)
    ranks = join_ranks(gains_by_seed(select_runs(experiment, method), plain))
    if not ranks:
        return None
    oracle = join_ranks(gains_by_seed(select_runs(experiment, ORACLE), plain))
    there = {rank.rank: rank.gain for rank in oracle}
    rows = [
        (
            str(rank.rank),
            f"{rank.share:.1f}",
            show_interval(rank.baseline),
            *(show_interval(gain, signed=True) for gain in (rank.gain, there.get(rank.rank))),
        )
        for rank in ranks
    ]
    head = ("frequency rank", "share of training clips, %", f"{PLAIN}, R@1")
    head += (f"{method} − {PLAIN}", f"{ORACLE} − {PLAIN}")
    return Table("By topic", head, tuple(rows), "Rank 1 is each seed's most frequent topic; gains are absolute points.")


def study_tables_markdown(experiments: Experiments) -> str:
    """Return the main tables as Markdown; UserError for records that contradict each other."""
    check_experiments(experiments)
    tables = [claims_table(experiments), change_table(experiments)]
    tables += [methods_table(experiments), weights_table(experiments), weights_table(experiments, BOTH)]
    tables += [topics_table(experiments)]
    tables += [factor_table(experiments, name) for name in experiments if name != MAIN]
    tables += [failures_table(experiments), tuning_table(experiments)]
    goals = [f"* {goal.text}: **{'met' if goal.is_met else 'not met'}**." for goal in list_goals(experiments)]
    parts = ["\n".join(goals)] if goals else []
    parts += [table_markdown(table) for table in tables if table is not None and table.rows]
    return "\n\n".join(parts) + "\n"


def show_share(share: float | None) -> str:
    """Return a share in percent."""
    return "–" if share is None else f"{100 * share:.0f} %"


def _recalls(runs: Sequence[StudyRun]) -> tuple[str, str, str, str]:
    best, last = summarise(take_metric(runs)), summarise(take_metric(runs, final=True))
    other = summarise(take_metric(runs, OTHER_WAY))
    return str(len(runs)), *("–" if found is None else f"{found.mean:.1f}" for found in (best, other, last))


def _mean_weight(runs: Sequence[StudyRun], kind: str) -> str:
    values = [run.weights[kind] for run in runs if kind in run.weights]
    return f"{np.mean(values):.2f}" if values else "–"


def _mean_size(runs: Sequence[StudyRun]) -> str:
    sizes = [run.effective_sample_size for run in runs if run.effective_sample_size is not None]
    return f"{np.mean(sizes):.2f}" if sizes else "–"


def _step_share(runs: Sequence[StudyRun], plain: Sequence[StudyRun]) -> str:
    base = {run.seed: run.step_s for run in plain if run.step_s}
    ratios = [run.step_s / base[run.seed] for run in runs if run.step_s and run.seed in base]
    return f"{np.median(ratios):.2f}" if ratios else "–"


def _rise(runs: Sequence[StudyRun]) -> str:
    rise = summarise(rises_by_seed(runs))
    if rise is None:
        return "–"
    return f"{rise.mean:+.2f}" + ("" if rise.half_width is None else f" ± {rise.half_width:.2f}")
