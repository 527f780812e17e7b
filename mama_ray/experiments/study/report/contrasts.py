"""Comparisons of the experiments beyond the main table: which two settings a claim rests on, and where."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mama_ray.experiments.study.report.compare import (
    PLAIN,
    Experiments,
    Factor,
    compare,
    compare_runs,
    find_reference,
    list_factors,
    list_methods,
    mean_over_factors,
    select_runs,
)
from mama_ray.experiments.study.results import ExperimentResults
from mama_ray.reporting.intervals import Interval

# What can be had without bi-level learning, on the same data or at the same cost.
CONTROLS = (
    "uniform_meta1", "uniform_meta4", "uniform_long", "keep_lowest", "keep_lowest_meta4", "mixture", "mixture_meta4",
    "symmetric", "symmetric_meta4", "focal", "self_paced", "joint", "joint_meta4", "joint_source",
    "joint_source_meta4", "inverse_frequency",
)  # fmt: skip
LEARNED_METHODS = ("learned", "learned_meta4", "learned_source", "learned_source_meta4", "learned_topic")
LOSS_RULES = (
    "joint", "joint_meta4", "joint_source", "joint_source_meta4", "keep_lowest", "keep_lowest_meta4", "mixture",
    "mixture_meta4", "self_paced",
)  # fmt: skip

BOTH = "both"  # the experiment with two kinds of data, of which the user may have either

BEATS = "Learned weights beat what a rule without bi-level learning gives"
FAILS = "Where faults hang together a rule on the loss alone falls below plain training"
HOLDS = "Where faults hang together learned weights hold"
SEES_MORE = "A weight net that sees more than the loss does better"
WRONG_META = "False captions in the meta-set take the gain"
CARRIES = "The gain carries over to another domain"
RARE = "Where imbalance hurts, generated captions help"
DOSE = "An added margin (below 0) helps"
SUBTRACTED = "A subtractive margin helps"
LEARNED_MARGIN = "A learned margin does better than none"
CHOSEN = "A share of the generated caption that is learned beats a fixed one"
STEP = "Another meta step does better than the one that is used"
# Experiments whose settings are compared with one of them, by its name; the claim is that the others do better.
_AGAINST: dict[str, tuple[str, str]] = {
    "inputs": (SEES_MORE, "loss"),
    "inputs_labels": (SEES_MORE, "loss"),
    "inputs_topics": (SEES_MORE, "loss"),
    "topics": (RARE, "none"),
    "meta_noise": (STEP, "batch 32"),
}


@dataclass(frozen=True)
class Contrast:
    """A claim, what is compared for it in words, and the paired difference on the side of the claim."""

    claim: str
    experiment: str
    measured: str
    interval: Interval


def list_contrasts(experiments: Experiments) -> list[Contrast]:
    """Return the comparisons of all experiments that have runs for them, by claim."""
    found = [contrast for name in experiments for contrast in _contrasts_of(experiments, name)]
    order = (BEATS, FAILS, HOLDS, SEES_MORE, RARE, CHOSEN, WRONG_META, CARRIES, SUBTRACTED, DOSE, LEARNED_MARGIN, STEP)
    return sorted(found, key=lambda contrast: order.index(contrast.claim))


def _contrasts_of(experiments: Experiments, name: str) -> Iterator[Contrast]:
    experiment = experiments[name]
    if name in ("methods", "labelled"):
        yield from _beats(experiment)
    if name == BOTH:
        yield from _beats_on_average(experiment)
    if name in ("labels", "labels_many", "labelled"):
        yield from _labels(experiment)
    elif name in _AGAINST:
        yield from _against(experiment, *_AGAINST[name])
    elif name == "meta_wrong":
        yield from _by_group(experiment, WRONG_META, "none", sign=-1)
    elif name in ("margin_dose", "margin_true", "margin_batch"):
        yield from _by_group(experiment, SUBTRACTED, "0", is_asked=_is_subtracted)
        yield from _by_group(experiment, DOSE, "0", is_asked=lambda value: value.startswith("-"))
        yield from _by_group(experiment, LEARNED_MARGIN, "0", is_asked=lambda value: value.endswith("learned"))
    elif name.startswith("chosen_captions"):
        yield from _chosen(experiment)
    elif name in ("meta_source", "shifted"):
        yield from _carries(experiments, experiment)


def has_controls(experiment: ExperimentResults) -> bool:
    """Whether methods stand beside what a rule gives on the same data, which the study's first part had not."""
    return bool({"uniform_meta4", "keep_lowest", "mixture"} & set(list_methods(experiment)))


def _beats(experiment: ExperimentResults) -> Iterator[Contrast]:
    methods = list_methods(experiment)
    if not has_controls(experiment):
        return
    for method in (name for name in LEARNED_METHODS if name in methods):
        for control in (name for name in CONTROLS if name in methods):
            yield from _one(experiment, BEATS, (method, None), (control, None))


def _beats_on_average(experiment: ExperimentResults) -> Iterator[Contrast]:
    methods = list_methods(experiment)
    for method in (name for name in LEARNED_METHODS if name in methods):
        for control in (name for name in CONTROLS if name in methods):
            interval = compare(mean_over_factors(experiment, method), mean_over_factors(experiment, control))
            if interval is not None:
                yield Contrast(BEATS, experiment.name, f"{method} − {control}, mean over both kinds", interval)
            for x in list_factors(experiment):
                yield from _one(experiment, BEATS, (method, x), (control, x))


def _labels(experiment: ExperimentResults) -> Iterator[Contrast]:
    for method in LOSS_RULES:
        yield from _one(experiment, FAILS, (method, None), (PLAIN, None), sign=-1)
    for method in LEARNED_METHODS:
        yield from _one(experiment, HOLDS, (method, None), (PLAIN, None))
        yield from _one(experiment, HOLDS, (method, None), ("uniform_meta4", None))


def _against(experiment: ExperimentResults, claim: str, base: str) -> Iterator[Contrast]:
    for method in list_methods(experiment):
        for x in list_factors(experiment, method):
            if x != base and not str(x).endswith("balanced topics"):
                yield from _one(experiment, claim, (method, x), (method, base))


def _by_group(
    experiment: ExperimentResults,
    claim: str,
    base: str,
    sign: int = 1,
    is_asked: Callable[[str], bool] = lambda value: True,
) -> Iterator[Contrast]:
    """Settings are named `group, value`: each whose value is asked for is compared with its group's `base`."""
    for method in list_methods(experiment):
        for x in list_factors(experiment, method):
            group, _, value = str(x).rpartition(", ")
            if value != base and is_asked(value):
                yield from _one(experiment, claim, (method, x), (method, f"{group}, {base}"), sign=sign)


def _is_subtracted(value: str) -> bool:
    return value[0].isdigit() and float(value) > 0


def _chosen(experiment: ExperimentResults) -> Iterator[Contrast]:
    for method in list_methods(experiment):
        for share in list_factors(experiment, method):
            if share != "learned":
                yield from _one(experiment, CHOSEN, (method, "learned"), (method, share))


def _carries(experiments: Experiments, experiment: ExperimentResults) -> Iterator[Contrast]:
    for x in list_factors(experiment, "learned"):
        plain = find_reference(experiments, experiment.name, PLAIN, x)
        interval = compare_runs(select_runs(experiment, "learned", x), plain)
        if interval is not None:
            where = "" if x is None else f", {x}"
            yield Contrast(CARRIES, experiment.name, f"learned{where} − {PLAIN}", interval)


def _one(
    experiment: ExperimentResults,
    claim: str,
    one: tuple[str, Factor],
    other: tuple[str, Factor],
    sign: int = 1,
) -> Iterator[Contrast]:
    pairs = (one, other) if sign > 0 else (other, one)
    interval = compare_runs(*(select_runs(experiment, *pair) for pair in pairs))
    if interval is None or one == other:
        return
    first, second = (method if x is None else f"{method}, {x}" for method, x in pairs)
    yield Contrast(claim, experiment.name, f"{first} − {second}", interval)
