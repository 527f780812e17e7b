"""Accuracy and average precision: hand examples, double loops, and what the official code gives."""

import json

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.classification import (
    average_precisions,
    check_scores,
    marginal_scores,
    mean_class_accuracy,
    softmax,
    top_k_accuracy,
)

SCORES = np.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, 1.0]])


def test_a_class_that_is_only_predicted_enters_the_mean_only_when_asked():
    """Clips of classes 0, 1, 1, 1 are predicted 0, 1, 0, 2: one of one, one of three, and none of class 2."""
    targets = np.array([0, 1, 1, 1])
    assert mean_class_accuracy(SCORES, targets) == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert mean_class_accuracy(SCORES, targets, counts_predicted_only=True) == pytest.approx(100 * (1 + 1 / 3) / 3)
    assert [top_k_accuracy(SCORES, targets, k) for k in (1, 2, 3)] == [50.0, 50.0, 100.0]


def test_of_a_missing_clip_nothing_is_found_and_nothing_predicted():
    """Without the third clip class 0 has one of one, class 1 one of three; class 2 is predicted of the fourth alone."""
    targets = np.array([0, 1, 1, 1])
    missing = np.array([False, False, True, True])
    with_predicted = mean_class_accuracy(SCORES, targets, counts_predicted_only=True, missing=missing)
    assert with_predicted == mean_class_accuracy(SCORES, targets, missing=missing) == pytest.approx(200 / 3)
    assert top_k_accuracy(SCORES, targets, 3, missing=missing) == 50
    zeros = np.where(missing[:, None], 0.0, SCORES)
    only = np.array([2, 1, 1, 1])
    assert mean_class_accuracy(zeros[1:], only[1:], counts_predicted_only=True, missing=missing[1:]) == pytest.approx(
        100 / 3
    )


def test_scores_that_say_nothing_have_0():
    assert top_k_accuracy(np.zeros((4, 3)), np.array([0, 1, 2, 0]), 1) == 0


def test_marginal_scores_sum_the_actions_and_are_0_where_there_is_none():
    actions = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    verbs = marginal_scores(actions, np.array([2, 0, 2]), 4)
    np.testing.assert_array_equal(verbs, [[0.25, 0, 0.75, 0], [0.5, 0, 0.5, 0]])


def test_average_precision_is_that_of_a_double_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((40, 5)), rng.random((40, 5)) < 0.3
    labels[:4] = False
    found = average_precisions(scores, labels)
    for number in range(5):
        values = np.where(labels.any(1), scores[:, number], -np.inf)
        order = sorted(range(40), key=lambda clip: -values[clip])
        hits, precisions = 0, []
        for place, clip in enumerate(order, 1):
            if labels[clip, number]:
                hits += 1
                precisions.append(hits / place)
        assert found[number] == pytest.approx(np.mean(precisions))


def test_charades_fixture_has_the_official_codes_numbers(shared):
    arrays = np.load(shared / "data/metric_fixtures/charades_map.npz", allow_pickle=False)
    wanted = json.loads((shared / "data/metric_fixtures/expected.json").read_text())["charades_map"]["expected"]
    labels = arrays["gt"] > 0
    found = average_precisions(arrays["submission"], labels)
    assert found.mean() == pytest.approx(wanted["mAP"], abs=1e-12)
    assert found.mean() == pytest.approx(0.36056867079, abs=1e-9)
    weights = labels.sum(0) / labels.sum()
    assert (found * weights).sum() == pytest.approx(wanted["wAP_sum"], abs=1e-12)
    assert found[:5] == pytest.approx(wanted["AP_first5"], abs=1e-12)
    # Over the classes of a video the ranking is another one, and so is the metric.
    assert average_precisions(softmax(arrays["submission"]), labels).mean() != pytest.approx(wanted["mAP"], abs=1e-4)


def test_a_class_without_a_positive_is_named():
    labels = np.array([[True, False], [True, False]])
    with pytest.raises(UserError, match="classes without a positive: got 1, Opening a door"):
        average_precisions(np.zeros((2, 2)), labels, ["Holding", "Opening a door"])


@pytest.mark.parametrize(
    ("scores", "told"),
    [(SCORES * np.nan, "scores that are no numbers: got 12 of 12"), (SCORES[:3], "got shape (3, 3), wanted (4, 3)")],
)
def test_scores_that_do_not_fit_are_refused(scores, told):
    with pytest.raises(UserError) as error:
        check_scores(scores, num_clips=4, num_classes=3)
    assert told in str(error.value)
