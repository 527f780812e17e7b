"""What a run says about itself, from its records."""

import pytest

from mama_ray.reporting.content import PAPER_WEIGHT_CURVE, RunReport


def test_the_last_weight_curve_counts():
    records = [
        {"step": step, "weights/curve_loss": [0.0, 1.0], "weights/curve_weight": [1.0, float(step)]} for step in (1, 2)
    ]
    assert RunReport("run", records).weight_curve() == ([0.0, 1.0], [1.0, 2.0])
    assert RunReport("run", [{"step": 1}]).weight_curve() is None


def test_weights_by_kind_are_those_of_the_end():
    records = [{"step": step, "weights/clean/mean": 1.0 if step < 80 else 2.0} for step in range(100)]
    assert RunReport("run", records).weights_by_kind() == {"clean": pytest.approx(2.0)}


def test_the_papers_curve_peaks_where_the_paper_says():
    loss, weight = max(PAPER_WEIGHT_CURVE, key=lambda point: point[1])
    assert loss == 4.7
    assert weight / min(weight for _, weight in PAPER_WEIGHT_CURVE) == pytest.approx(1.64, abs=0.005)


def test_a_point_of_the_weight_curve_that_was_no_number_is_left_out():
    record = {"step": 1, "weights/curve_loss": [1.0, None, 3.0], "weights/curve_weight": [0.5, 0.6, None]}
    assert RunReport("run", records=[record]).weight_curve() == ([1.0], [0.5])
    assert RunReport("run", records=[record | {"weights/curve_loss": [None, None, 3.0]}]).weight_curve() is None
