"""What is evaluated while a cell trains, and what is written down of its weights."""

import numpy as np
import pytest

from mama_ray.experiments.study.observe import binned_means
from mama_ray.experiments.study.run_cell import evaluate, start_model
from tests.experiments.study.test_run_cell import run


def test_each_query_is_looked_up_in_its_own_gallery(small_study, splits):
    model = start_model(small_study.cell, small_study.pretrained).eval()
    _, whole, _, ranks = evaluate(model, splits["val"], splits["test"])
    _, test, _, among_all = evaluate(model, splits["val"], splits["test"], 8)
    halves = [evaluate(model, splits["val"], splits["test"].select(np.arange(start, start + 8)))[1] for start in (0, 8)]
    for name in ("t2v_R@1", "v2t_R@5"):
        assert test[name] == pytest.approx((halves[0][name] + halves[1][name]) / 2)
        assert test[name] >= whole[name]
    assert among_all == ranks and {len(found) for found in ranks.values()} == {16}
    assert whole["t2v_R@1"] == pytest.approx(100 * np.mean(np.array(ranks["t2v"]) <= 1))


def test_ranks_are_kept_of_the_point_that_is_reported(small_study):
    result = run(small_study, {"early_every": 1, "early_until": 3})
    assert [point["step"] for point in result["curve"]] == [1, 2, 3, 4]
    point = result["curve"][result["selected"]]["test"]
    for way, ranks in result["ranks"].items():
        assert 100 * np.mean(np.array(ranks) <= 5) == pytest.approx(point[f"{way}_R@5"])


def test_of_the_further_evaluations_only_the_reported_one_is_tested_and_as_if_all_were(small_study):
    early, whole = (
        run(small_study, {"num_steps": 8, **steps})
        for steps in ({"num_evaluations": 1, "early_every": 1}, {"num_evaluations": 8})
    )
    selected = early["selected"]
    assert selected < 7  # else nothing is shown: the last one is tested anyway
    tested = [place for place, point in enumerate(early["curve"]) if point["test"]]
    assert tested == [selected, 7]
    assert selected == whole["selected"] and early["curve"][selected]["test"] == whole["curve"][selected]["test"]
    assert [point["val"] for point in early["curve"]] == [point["val"] for point in whole["curve"]]
    for name in ("ranks", "topic_recall", "weights"):
        assert early.get(name) == whole.get(name)


def test_a_run_that_chooses_settings_meets_no_test_clip(small_study):
    result = run(small_study, {"tests": False})
    assert all(point["test"] == {} and point["val"] for point in result["curve"])
    assert result["ranks"] == {} and result["topic_recall"] == {}


def test_binned_means_equal_a_loop():
    rng = np.random.default_rng(0)
    losses, weights = rng.random(103), rng.random(103)
    pairs = sorted(zip(losses, weights, strict=True))
    found = binned_means(losses, weights, 4)
    start = 0
    for size, (loss, weight) in zip((26, 26, 26, 25), found, strict=True):
        part = pairs[start : start + size]
        assert loss == pytest.approx(np.mean([p[0] for p in part]), abs=1e-4)
        assert weight == pytest.approx(np.mean([p[1] for p in part]), abs=1e-4)
        start += size


def test_fewer_samples_than_bins_give_a_bin_each():
    assert binned_means(np.array([2.0, 1.0]), np.array([0.5, 1.5]), 20) == [(1.0, 1.5), (2.0, 0.5)]
