"""Plots that stand on edge cases: gaps, single points, strange names."""

import re
from xml.etree import ElementTree

import pytest

from mama_ray.reporting import plots
from mama_ray.reporting.content import TopicRecall


def text_of(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_a_running_mean_keeps_constants_and_length():
    assert plots.running_mean([3.0] * 10, 4).tolist() == pytest.approx([3.0] * 10)
    assert plots.running_mean([0.0, 3.0, 6.0], 3).tolist() == pytest.approx([1.5, 3.0, 4.5])


def test_the_same_data_give_the_same_plot():
    series = {"run": ([0, 1, 2], [3.0, 2.0, 1.0])}
    one, other = (plots.curves_svg(series, xlabel="step", ylabel="loss") for _ in range(2))
    assert one == other


def test_names_with_markup_or_dollars_are_shown_as_they_are():
    topics = {"run": [TopicRecall("cash $1 & <more> $2", 5, 50.0), TopicRecall("other", 3, float("nan"))]}
    assert "cash $1 & <more> $2" in text_of(plots.topics_svg(topics))


def test_a_run_without_curve_keeps_the_others_colours():
    curve = ([0.0, 1.0], [1.0, 0.5])
    svg = plots.weight_curve_svg({"plain": ((), ()), "learned": curve}, shows_paper=True)
    assert "var(--series-2)" in svg
    assert "var(--series-1)" not in svg


def test_bars_write_their_values():
    assert "12.5 %" in text_of(plots.bars_svg({"a": 12.5, "b": 7.0}, unit=" %", reference=1.0))


def test_kinds_may_be_missing_in_a_run():
    svg = plots.kinds_svg({"plain": {}, "learned": {"clean": 1.1, "wrong": 0.8}})
    for expected in ("0.80", "1.10", "clean"):
        assert expected in text_of(svg)


def test_bars_write_the_labels_they_are_given_and_may_share_a_colour():
    svg = plots.bars_svg({"read": 1.0, "decode": 3.0}, labels=["1 s", "3 s"], colour=plots.SERIES[5])
    assert "1 s" in text_of(svg) and "3 s" in text_of(svg)
    assert "var(--series-6)" in svg and "var(--series-1)" not in svg


@pytest.mark.parametrize("counts", [[3], [0, 7], [0] * 200 + [1], [10**7, 0, 3]])
def test_the_last_tick_of_a_histogram_says_that_there_is_more(counts):
    last = len(counts) - 1
    assert f"{last}+" in text_of(plots.histogram_svg(counts, xlabel="words", ylabel="captions", has_tail=True)).split()
    assert "+" not in text_of(plots.histogram_svg(counts, xlabel="words", ylabel="captions", has_tail=False))


def test_steps_hold_until_the_next_point():
    svg = plots.steps_svg([(0.0, 0), (10.0, 2), (20.0, 1), (40.0, 1)], xlabel="seconds", ylabel="engines")
    line = max(re.findall(r'd="(M [^"]+)"', svg), key=lambda path: path.count("L") if "z" not in path.lower() else 0)
    ys = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
    assert len(set(ys)) == 3
    assert ys[0] == ys[1] and ys[2] == ys[3] and ys[4] == ys[5]  # level from each point to the next
    assert ys[2] < ys[4] < ys[0]


def ticks_of(svg: str) -> list[float]:
    """Return the numbers that are written at the axes."""
    return [float(text) for text in re.findall(r">\s*(\d+(?:\.\d+)?)\s*</text>", svg)]


def test_an_axis_of_zeros_alone_is_not_one_of_hundredths():
    zeros = {"run": ([10, 20], [0.0, 0.0])}
    ticks = ticks_of(plots.curves_svg(zeros, xlabel="step", ylabel="R@1 (%)", from_zero=True))
    assert max(tick for tick in ticks if tick not in (10.0, 20.0)) >= 8
    assert not any(0 < tick < 1 for tick in ticks)


def test_the_axes_of_the_learned_curve_are_those_of_its_losses():
    curve = ([2.0, 2.1, 2.2], [1.0, 0.99, 0.98])
    assert plots.loss_range({"plain": ((), ()), "run": curve}) == (2.0, 2.2)
    losses = [tick for tick in ticks_of(plots.weight_curve_svg({"run": curve}, shows_paper=True)) if tick > 1.5]
    assert losses and min(losses) > 1.9 and max(losses) < 2.3
