"""Measures of how well a score tells faults, against double loops."""

import math

import numpy as np
import pytest

from mama_ray.auditing.separation import lowest, precision_of_lowest, separation_auc


def test_the_area_equals_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, size=60).astype(float)  # with many ties
    is_faulty = rng.random(60) < 0.3
    wins = [
        1.0 if bad < good else 0.5 if bad == good else 0.0 for bad in scores[is_faulty] for good in scores[~is_faulty]
    ]
    assert separation_auc(scores, is_faulty) == pytest.approx(np.mean(wins))


def test_a_score_that_tells_all_has_area_one_and_one_that_tells_nothing_a_half():
    is_faulty = np.array([True, True, False, False])
    assert separation_auc(np.array([0.1, 0.2, 0.3, 0.4]), is_faulty) == 1.0
    assert separation_auc(np.zeros(4), is_faulty) == 0.5
    assert math.isnan(separation_auc(np.zeros(4), np.zeros(4, bool)))


def test_what_has_no_score_is_never_among_the_lowest():
    scores = np.array([np.nan, 0.3, 0.1, np.nan, 0.2])
    assert lowest(scores, 3).tolist() == [2, 4, 1]
    assert precision_of_lowest(scores, np.array([True, False, True, True, False]), 2) == 0.5
