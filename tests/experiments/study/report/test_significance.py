"""p values, their correction, and what could have been seen, against twins."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mama_ray.experiments.study.report.significance import (
    correct,
    corrected_of,
    detectable_effect,
    p_value,
    show_corrected,
    show_detectable,
    standard_error,
    turning_mean,
)
from mama_ray.reporting.intervals import Interval, mean_interval

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_a_p_value_is_that_of_the_paired_t_test(count):
    one, other = RNG.normal(size=(2, count))
    interval = mean_interval(list(one - other))
    assert p_value(interval) == pytest.approx(stats.ttest_rel(one, other).pvalue)
    assert standard_error(interval) == pytest.approx(stats.sem(one - other))


def test_a_value_alone_has_none_and_no_spread_decides():
    alone = Interval(3.0, None, 1)
    assert p_value(alone) is None and detectable_effect(alone) is None
    assert show_detectable(alone) == show_detectable(None) == show_corrected(None) == "–"
    assert p_value(Interval(0.0, 0.0, 3)) == 1 and p_value(Interval(0.1, 0.0, 3)) == 0


def test_holms_values_reject_what_the_step_down_procedure_rejects():
    for count in range(1, 8):
        values = list(RNG.random(count) ** 3)
        found = correct(values)
        for level in (0.01, 0.05, 0.3, 0.9):
            rejected, order = set(), sorted(range(count), key=lambda n: values[n])
            for rank, place in enumerate(order):
                if values[place] > level / (count - rank):
                    break
                rejected.add(place)
            assert {place for place, value in enumerate(found) if value <= level} == rejected


def test_what_has_no_value_takes_no_part_in_the_correction():
    assert correct([0.01, None, 0.02]) == [0.02, None, 0.02]
    assert correct([]) == [] and correct([None]) == [None]
    assert corrected_of([None, Interval(1.0, None, 1)]) == [None, None]


def test_a_comparison_that_two_experiments_share_counts_once():
    one, other = Interval(2.0, 1.0, 5), Interval(3.0, 1.0, 5)
    once, twice = corrected_of([one, other]), corrected_of([one, other, one, None])
    assert twice == [*once, once[0], None]


def test_of_families_without_any_truth_one_in_twenty_has_a_value_below_the_level():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(400):
        shared = rng.normal(size=6)  # the comparisons of a study hang together: they share the baseline
        intervals = [mean_interval(list(rng.normal(size=6) - shared)) for _ in range(8)]
        false += min(corrected_of(intervals)) < 0.05
    assert false / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("sign", [-1, 1])
def test_new_seeds_that_turn_a_verdict_bring_the_interval_of_all_to_zero(count, sign):
    values = RNG.normal(size=count)
    values = (values - values.mean()) / values.std(ddof=1) + sign * 1.01 * stats.t.ppf(0.975, count - 1) / np.sqrt(
        count
    )
    interval = mean_interval(list(values))
    assert abs(interval.mean) > interval.half_width
    new = values - values.mean() + turning_mean(interval)
    together = mean_interval([*values, *new])
    assert abs(together.mean) == pytest.approx(together.half_width)
    assert together.mean * sign > 0


@pytest.mark.parametrize(("count", "spread"), list(itertools.product((3, 5, 10), (0.5, 4.0))))
def test_an_effect_that_could_have_been_seen_is_seen_four_times_of_five(count, spread):
    values = RNG.normal(size=count)
    values = spread * (values - values.mean()) / values.std(ddof=1)
    effect = detectable_effect(mean_interval(list(values)))
    degrees, noncentral = count - 1, effect / (spread / np.sqrt(count))
    edge = stats.t.ppf(0.975, degrees)
    power = stats.nct.sf(edge, degrees, noncentral) + stats.nct.cdf(-edge, degrees, noncentral)
    assert power == pytest.approx(0.8, abs=0.002)
