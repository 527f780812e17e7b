"""What the paper claims beside what a study found, with verdicts that a rule draws from the interval alone.

A verdict is about this study's data and models. Intervals are taken one by one: of twenty claims without any truth one
is still expected to be told apart from 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mama_ray.experiments.study.report.compare import (
    MAIN,
    METRIC,
    ORACLE,
    PLAIN,
    Experiments,
    bounds,
    compare,
    compare_runs,
    compute_synergy,
    describe_regime,
    list_factors,
    list_methods,
    recoverable,
    select_runs,
    show_factor,
    summarise,
    take_metric,
)
from mama_ray.experiments.study.report.contrasts import DOSE, LEARNED_METHODS, SUBTRACTED, list_contrasts
from mama_ray.experiments.study.report.topics import gains_by_seed, rarity_correlations, rarity_slopes
from mama_ray.experiments.study.report.tuned_margins import tuned_margin, with_margin
from mama_ray.experiments.study.report.weights import count_shapes, peak_losses, rises_by_seed
from mama_ray.experiments.study.results import ExperimentResults, StudyRun
from mama_ray.reporting.intervals import Interval
from mama_ray.reporting.sweep_page import show_interval

FULL, MAMA, LEARNED = "mama_captions", "mama", "learned"
UNKNOWN, ONE_SEED = "not told apart", "one seed: no verdict"


@dataclass(frozen=True)
class Claim:
    """One claim: what the paper says, what was measured for it, what was found, the verdict, what there is to gain."""

    claim: str
    measured: str
    found: str
    verdict: str
    recoverable: Interval | None = None
    interval: Interval | None = None
    regime: str = ""


def judge(interval: Interval | None) -> str:
    """Return yes for an interval above 0, no for one below, else that the two cannot be told apart.

    An end that is exactly 0 belongs to the interval; one seed has no interval and gets no verdict.
    """
    if interval is None:
        return "not measured"
    if interval.half_width is None:
        return ONE_SEED
    low, high = bounds(interval)
    return "yes" if low > 0 else "no: the opposite" if high < 0 else UNKNOWN


def show_points(interval: Interval | None, unit: str = "points") -> str:
    """Return such as '+3.1 ± 0.8 points (5 seeds)'."""
    if interval is None:
        return "–"
    return f"{show_interval(interval, signed=True)} {unit} ({show_count(interval.count, 'seed')})"


def show_count(count: int, noun: str) -> str:
    """Return such as '1 seed', '3 seeds'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def list_claims(experiments: Experiments) -> list[Claim]:
    """Return every claim that the experiments can say something about, all that was measured for one together."""
    claims = []
    if MAIN in experiments:
        claims += _main_claims(experiments)
        claims += _curve_claims(experiments[MAIN])
        claims += _topic_claims(experiments[MAIN])
    for name, experiment in experiments.items():
        if name == "margin" or name.startswith("margin_"):
            claims += _margin_claims(experiments, experiment)
        elif name in ("captions", "grid", "key_frames", "narrators"):
            claims += _caption_claims(experiments, experiment)
    claims += _contrast_claims(experiments)
    order = list(dict.fromkeys(claim.claim for claim in claims))
    return sorted(claims, key=lambda claim: order.index(claim.claim))


def _contrast_claims(experiments: Experiments) -> list[Claim]:
    claims = []
    for found in list_contrasts(experiments):
        regime = f"{found.experiment}: {describe_regime(experiments[found.experiment])}"
        shown, verdict = show_points(found.interval), judge(found.interval)
        claims.append(Claim(found.claim, found.measured, shown, verdict, None, found.interval, regime))
    return claims


def full_method(experiment: ExperimentResults) -> str | None:
    """Return the method that stands for all of MAMA: with captions where there are runs of that, else without."""
    return next((method for method in (FULL, MAMA) if method in list_methods(experiment)), None)


def show_distance(gap: Interval) -> str:
    """Return the oracle's lead in words: such as '1.2 ± 0.5 points below it'."""
    half = "" if gap.half_width is None else f" ± {gap.half_width:.1f}"
    return f"{abs(gap.mean):.1f}{half} points {'below' if gap.mean >= 0 else 'above'} it"


def _main_claims(experiments: Experiments) -> list[Claim]:
    experiment = experiments[MAIN]
    full = full_method(experiment)
    whole, weights = "MAMA beats plain contrastive training", "Meta-learned sample weights help"
    learner = "Weights need the meta-set: trained on the training loss they fail"
    captions = "Captions of a large vision-language model help"
    rows = [(whole, full, PLAIN)] if full else []
    rows += [(whole, MAMA, PLAIN)] if full != MAMA else []
    rows += [(weights, LEARNED, PLAIN), (learner, LEARNED, "joint")]
    pairs = (("uniform_margin", PLAIN), (MAMA, LEARNED), ("oracle_margin", ORACLE))
    rows += [(DOSE if (tuned_margin(experiment, one) or 0) < 0 else SUBTRACTED, one, other) for one, other in pairs]
    rows += [(captions, "uniform_captions", PLAIN), (captions, "learned_captions", LEARNED), (captions, FULL, MAMA)]
    rows += [("Generated captions need a gate", FULL, "mama_captions_ungated")]
    there, regime = recoverable(experiments, MAIN, None), f"{MAIN}: {describe_regime(experiment)}"
    claims = []
    for claim, method, other in rows:
        interval = compare_runs(select_runs(experiment, method), select_runs(experiment, other))
        if interval is not None:
            measured = f"{with_margin(experiment, method)} − {with_margin(experiment, other)}"
            shown = show_points(interval)
            claims.append(Claim(claim, measured, shown, judge(interval), there, interval, regime))
    synergy = compute_synergy(experiment, (MAMA, LEARNED, "uniform_margin", PLAIN))
    if synergy is not None:
        measured = f"({MAMA} − {LEARNED}) − (uniform_margin − {PLAIN})"
        claim = "Margin and weights gain more together than apart"
        claims.append(Claim(claim, measured, show_points(synergy), judge(synergy), there, synergy, regime))
    return claims


def _curve_claims(experiment: ExperimentResults) -> list[Claim]:
    claims = []
    for method in filter(None, dict.fromkeys((LEARNED, full_method(experiment)))):
        runs = select_runs(experiment, method)
        shapes = count_shapes(runs)
        if not shapes:
            continue
        found = ", ".join(f"{shape} in {count}" for shape, count in shapes.most_common())
        found += f" of {show_count(shapes.total(), 'run')}"
        peaks = peak_losses(runs)
        found += f"; peak at {np.mean(list(peaks.values())):.2g} nats on average" if peaks else ""
        has_peak, total = shapes["rises, then falls"], shapes.total()
        verdict = "yes" if has_peak == total else "no" if not has_peak else f"in {has_peak} of {total}"
        claim = "Weight rises with the loss to a peak, then falls"
        claims.append(Claim(claim, f"weight curve of {method} at the end", found, verdict))
        rise = summarise(rises_by_seed(runs))
        fall = Interval(-rise.mean, rise.half_width, rise.count)
        shown = f"{_show_small(rise)} of the peak ({show_count(rise.count, 'seed')})"
        measured = f"weight of high losses − low ones, {method}"
        claims.append(Claim("High losses are discounted as noise", measured, shown, judge(fall), interval=fall))
    return claims


def _topic_claims(experiment: ExperimentResults) -> list[Claim]:
    claims = []
    plain = select_runs(experiment, PLAIN)
    for method in filter(None, dict.fromkeys((full_method(experiment), LEARNED))):
        gains = gains_by_seed(select_runs(experiment, method), plain)
        slope = summarise(rarity_slopes(gains))
        if slope is not None:
            claim, measured = "Rare topics gain most", f"gain of {method} over {PLAIN} by topic share"
            shown = show_points(slope, "points per topic ten times as rare")
            claims.append(Claim(claim, measured, shown, judge(slope), interval=slope))
        ranks = summarise(rarity_correlations(gains))
        if ranks is not None:
            shown = f"{_show_small(ranks)} ({show_count(ranks.count, 'seed')})"
            claims.append(
                Claim("Rare topics gain most", f"rank correlation of that gain, {method}", shown, judge(ranks))
            )
    return claims


def _margin_claims(experiments: Experiments, experiment: ExperimentResults) -> list[Claim]:
    claims, name = [], experiment.name
    for method in list_methods(experiment):
        chosen = choose_on_val(experiment, method)
        if chosen is None:
            continue
        interval = compare_runs(select_runs(experiment, method, chosen), select_runs(experiment, method, 0.0))
        measured = f"{name}: {method}, margin {show_factor(chosen)} (best on val) − margin 0"
        there = recoverable(experiments, name, 0.0)
        shown, regime = show_points(interval), f"{name}: {describe_regime(experiment)}"
        claims.append(Claim(SUBTRACTED, measured, shown, judge(interval), there, interval, regime))
    return claims


def choose_on_val(experiment: ExperimentResults, method: str) -> float | None:
    """Return the factor above 0 with the best mean val R@1, None without runs at 0 and above with a val metric.

    Means are over the seeds that all values have, so that no value wins by its seeds; chosen on val, so that the
    test difference is not that of the luckiest of many.
    """
    values = [x for x in list_factors(experiment, method) if isinstance(x, float | int) and x > 0]
    found = {x: _val_by_seed(select_runs(experiment, method, x)) for x in values}
    found = {x: by_seed for x, by_seed in found.items() if by_seed}
    if not found or not take_metric(select_runs(experiment, method, 0.0)):
        return None
    shared = set.intersection(*(set(by_seed) for by_seed in found.values()))
    means = {x: np.mean([by_seed[seed] for seed in shared or by_seed]) for x, by_seed in found.items()}
    return max(means, key=means.get)


def _caption_claims(experiments: Experiments, experiment: ExperimentResults) -> list[Claim]:
    claims, values = [], list_factors(experiment)
    helps, gate = "Captions of a large vision-language model help", "Generated captions need a gate"
    frames = "Captions from several frames beat those of one"
    one_frame = next((x for x in values if str(x).endswith("1 frame")), None)
    pairs = [(helps, x, "none") for x in values if x != "none"] + [(gate, "gated", "generated")]
    pairs += [(gate, x, str(x).replace("gated", "ungated")) for x in values if str(x).endswith(", gated")]
    pairs += [(frames, x, one_frame) for x in values if one_frame and x not in ("none", one_frame)]
    pairs += [("A narrator that errs less is worth more", "narrator", x) for x in values if "errs" in str(x)]
    for method in list_methods(experiment):
        for claim, x, other in pairs:
            interval = compare_runs(select_runs(experiment, method, x), select_runs(experiment, method, other))
            if interval is None:
                continue
            there = recoverable(experiments, experiment.name, other)
            measured = f"{experiment.name}: {method}, {show_factor(x)} − {other}"
            shown, regime = show_points(interval), f"{experiment.name}: {describe_regime(experiment)}"
            claims.append(Claim(claim, measured, shown, judge(interval), there, interval, regime))
    return claims


def _val_by_seed(runs: Sequence[StudyRun]) -> Mapping[int, float]:
    return {run.seed: run.reported.val[METRIC] for run in runs if METRIC in run.reported.val}


def _show_small(interval: Interval) -> str:
    half = "" if interval.half_width is None else f" ± {interval.half_width:.2f}"
    return f"{interval.mean:+.2f}{half}"


def lead_text(experiments: Experiments) -> str:
    """Return the page's first sentences: full MAMA against plain InfoNCE, its distance to the oracle. Where there is no
    full MAMA the last kind of learned weights stands for it.
    """
    if MAIN not in experiments:
        return "The experiment that compares all methods is not among these results."
    experiment = experiments[MAIN]
    learned = [method for method in list_methods(experiment) if method in LEARNED_METHODS]
    name, method = "Full MAMA", full_method(experiment)
    if method is None and learned:
        name, method = "Learning the weights", learned[-1]
    gain = method and compare_runs(select_runs(experiment, method), select_runs(experiment, PLAIN))
    if not gain:
        return "These results hold no seed that both full MAMA and plain InfoNCE were trained on."
    text = f"{name} ({with_margin(experiment, method)}) against plain InfoNCE: {show_points(gain)} of test {METRIC}; "
    text += {
        "yes": "it is better.",
        UNKNOWN: "the two cannot be told apart.",
        ONE_SEED: "one seed says nothing about others.",
    }.get(judge(gain), "it is worse.")
    there = recoverable(experiments, MAIN, None)
    if there is not None:
        text += f" The oracle, trained without the false pairs, gains {show_points(there)}: what there is to recover."
    gap = compare(take_metric(select_runs(experiment, ORACLE)), take_metric(select_runs(experiment, method)))
    return text if gap is None else f"{text} {name} lies {show_distance(gap).replace(' it', ' the oracle')}."
