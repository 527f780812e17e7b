"""Means and their intervals against values worked out by hand."""

import pytest

from mama_ray.reporting.intervals import mean_interval, wilson_interval


def test_the_interval_is_students():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.count) == (2.0, 3)
    assert interval.half_width == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t(0.975, 2) x s / sqrt(3), s = 1


def test_one_value_alone_has_a_mean_and_no_interval():
    assert mean_interval([4.0]).half_width is None


def test_equal_values_have_an_interval_of_width_zero():
    assert mean_interval([4.0, 4.0]).half_width == 0.0


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


@pytest.mark.parametrize(
    ("share", "count", "wanted"),
    [
        (0.125, 8, (0.0224, 0.4709)),  # the values of R's prop.test(correct = FALSE) and of Wilson's formula by hand
        (0.0, 10, (0.0, 0.2775)),
        (1.0, 10, (0.7225, 1.0)),
        (0.5, 100, (0.4038, 0.5962)),
    ],
)
def test_the_interval_of_a_share_is_wilsons(share, count, wanted):
    assert wilson_interval(share, count) == pytest.approx(wanted, abs=1e-4)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0.5, 0)
