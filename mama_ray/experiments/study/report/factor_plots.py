"""The figures of experiments that vary one factor: recall and gain against it, the inner step, the margin by regime."""

import textwrap

from matplotlib.figure import Figure

from mama_ray.experiments.study.report.compare import (
    MAIN,
    ORACLE,
    PLAIN,
    SAME_DATA,
    Experiments,
    compare,
    compare_runs,
    find_reference,
    list_factors,
    list_methods,
    recoverable,
    select_runs,
    summarise,
    take_metric,
)
from mama_ray.experiments.study.report.drawing import (
    Drawing,
    Key,
    Palette,
    colour_number,
    draw_line,
    draw_rule,
    make_panels,
    method_keys,
    place_factor,
)
from mama_ray.experiments.study.report.plots import BAND_NOTE, RECALL
from mama_ray.experiments.study.report.tables import baseline_of
from mama_ray.experiments.study.report.weights import rises_by_seed

SPREAD = 5.0  # points of 1/72 inch between methods at one value, so that their intervals do not hide each other


def factor_drawing(experiments: Experiments, name: str) -> Drawing | None:
    """Draw R@1 against the factor left, and right the paired gain over the baseline beside the oracle's.

    Where baseline or oracle were run by `methods` alone they are dashed lines.
    """
    experiment = experiments[name]
    values, methods, base = list_factors(experiment), list_methods(experiment), baseline_of(experiment)
    if not values:
        return None
    borrowed, is_numeric = _borrowed(experiments, name), all(isinstance(x, float | int) for x in values)
    label = experiment.factor or "factor"

    def draw(palette: Palette) -> Figure:
        figure, (left, right) = make_panels(2, 3.5, [label, label], [RECALL, f"R@1 − {base} there (points)"])
        for axes in (left, right):
            places = place_factor(axes, values)
            draw_rule(right, 0.0, palette.muted)
            for number, method in enumerate(methods):
                points = {}
                for x in list_factors(experiment, method):
                    runs = select_runs(experiment, method, x)
                    other = find_reference(experiments, name, base, x)
                    points[places[x]] = summarise(take_metric(runs)) if axes is left else compare_runs(runs, other)
                if axes is left or method != base:
                    shift = SPREAD * (number - (len(methods) - 1) / 2)
                    draw_line(axes, points, palette.method(method), shift=shift, is_joined=is_numeric)
        for method, recall in borrowed.items():
            draw_rule(left, recall, palette.method(method))
        gain = recoverable(experiments, name, None)
        if ORACLE in borrowed and gain is not None:
            draw_rule(right, gain.mean, palette.method(ORACLE))
        return figure

    keys = method_keys(methods) + _borrowed_keys(borrowed)
    note = f"{experiment.question} {BAND_NOTE} Right: paired, seed by seed."
    return Drawing(experiment.title, draw, keys, note, is_wide=True)


def inner_lr_drawings(experiments: Experiments, name: str = "inner_lr") -> list[Drawing]:
    """Draw, for each method of the experiment, R@1 and the rise of the weight curve against the lookahead's step."""
    experiment = experiments[name]
    drawings = []
    for method in list_methods(experiment):
        if method in (PLAIN, ORACLE) or len(list_factors(experiment, method)) < 2:
            continue
        drawings.append(_inner_lr_drawing(experiments, name, method))
    return drawings


def _inner_lr_drawing(experiments: Experiments, name: str, method: str) -> Drawing:
    experiment = experiments[name]
    values = list_factors(experiment, method)
    plain, oracle = (find_reference(experiments, name, other, None) for other in (PLAIN, ORACLE))
    means = {PLAIN: summarise(take_metric(plain)), ORACLE: summarise(take_metric(oracle))}
    lines = {other: interval.mean for other, interval in means.items() if interval}
    label, runs = experiment.factor or "inner step", {x: select_runs(experiment, method, x) for x in values}

    def draw(palette: Palette) -> Figure:
        labels = [RECALL, f"R@1 − {PLAIN} (points), paired", "weight of high losses − low"]
        figure, panels = make_panels(3, 3.4, [label] * 3, labels)
        places, colour = place_factor(panels[0], values), palette.method(method)
        for axes in panels[1:]:
            place_factor(axes, values)
        for is_final in (False, True):
            base = take_metric(plain, final=is_final)
            found = {places[x]: take_metric(of_x, final=is_final) for x, of_x in runs.items()}
            style = {"shift": 2 if is_final else -2, "is_dashed": is_final}
            draw_line(panels[0], {x: summarise(recall) for x, recall in found.items()}, colour, **style)
            draw_line(panels[1], {x: compare(recall, base) for x, recall in found.items()}, colour, **style)
        draw_line(panels[2], {places[x]: summarise(rises_by_seed(of_x)) for x, of_x in runs.items()}, colour)
        for other, recall in lines.items():
            draw_rule(panels[0], recall, palette.method(other))
        gain = compare_runs(oracle, plain)
        if gain is not None:
            draw_rule(panels[1], gain.mean, palette.method(ORACLE))
        for axes in panels[1:]:
            draw_rule(axes, 0.0, palette.method(PLAIN))
        return figure

    number = colour_number(method)
    keys = (Key(f"{method}, best on val", number), Key(f"{method}, last step", number, True), *_borrowed_keys(lines))
    note = (
        f"{BAND_NOTE} Last step: minus the baseline's last step. Weight of high losses: how much more the half of "
        "higher losses weighs at the end of training; 0 weighs all alike, below 0 discounts high losses."
    )
    return Drawing(f"{experiment.title}: {method}", draw, keys, note, is_wide=True)


def margin_drawing(experiments: Experiments) -> Drawing | None:
    """Draw the paired difference from margin 0 against the margin, a panel per regime, a line per method."""
    found = {
        name: experiment
        for name, experiment in experiments.items()
        if (name == "margin" or name.startswith("margin_"))
        and any(isinstance(x, float | int) for x in list_factors(experiment))
    }
    if not found:
        return None
    methods = list(dict.fromkeys(method for experiment in found.values() for method in list_methods(experiment)))

    def draw(palette: Palette) -> Figure:
        labels = ["R@1 − margin 0 (points)"] + [""] * (len(found) - 1)
        # The panels are narrow: a longer label would run into that of the next.
        xlabels = [textwrap.fill(experiment.factor or "margin", 24) for experiment in found.values()]
        figure, panels = make_panels(len(found), 3.5, xlabels, labels, sharey=True)
        for axes, (name, experiment) in zip(panels, found.items(), strict=True):
            axes.set_title(_regime(name), fontsize=10, color=palette.ink)
            draw_rule(axes, 0.0, palette.muted)
            places = place_factor(axes, list_factors(experiment))
            for number, method in enumerate(list_methods(experiment)):
                zero = select_runs(experiment, method, 0.0)
                points = {
                    places[x]: compare_runs(select_runs(experiment, method, x), zero)
                    for x in list_factors(experiment, method)
                }
                draw_line(axes, points, palette.method(method), shift=4 * (number - (len(methods) - 1) / 2))
        return figure

    regimes = "; ".join(f"{_regime(name)}: {experiment.title}" for name, experiment in found.items())
    return Drawing("The margin, by regime", draw, method_keys(methods), f"{BAND_NOTE} Paired. {regimes}.", is_wide=True)


def _regime(name: str) -> str:
    return name.removeprefix("margin").strip("_").replace("_", " ") or "as in all methods"


def _borrowed(experiments: Experiments, name: str) -> dict[str, float]:
    """Return the mean recall of baseline and oracle where `methods` alone has runs of them."""
    if name not in SAME_DATA or MAIN not in experiments:
        return {}
    own = list_methods(experiments[name])
    found = {
        method: summarise(take_metric(select_runs(experiments[MAIN], method)))
        for method in (PLAIN, ORACLE)
        if method not in own
    }
    return {method: interval.mean for method, interval in found.items() if interval}


def _borrowed_keys(lines: dict[str, float]) -> tuple[Key, ...]:
    return tuple(Key(f"{method}, mean", colour_number(method), True) for method in lines)
