"""Means and their intervals against values worked out by hand."""

import pytest

from mama_ray.reporting.intervals import mean_interval


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
