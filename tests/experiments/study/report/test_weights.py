"""Weight curves and topics of a study: rises and shapes of curves that are known, topics joined by rank."""

import math

import pytest

from mama_ray.experiments.study.report.topics import gains_by_seed, join_ranks, rarity_correlations, rarity_slopes
from mama_ray.experiments.study.report.weights import check_nets, count_shapes, curve_shape, peak_losses, weight_rise
from tests.experiments.study.report.study_records import make_run


def with_curve(*weights: float, **fields):
    return make_run("learned", 0, 10.0, weight_curve=tuple(enumerate(weights)), **fields)


def test_the_rise_is_that_from_the_lower_half_of_losses_to_the_higher_whatever_the_scale():
    for scale in (0.9, 1e-3):
        assert weight_rise(with_curve(*(scale * weight for weight in (1.0, 0.8, 0.2, 0.0)))) == pytest.approx(-0.8)
        assert weight_rise(with_curve(*(scale * weight for weight in (0.1, 0.5, 1.0)))) == pytest.approx(0.9)
    assert weight_rise(with_curve(0.3, 0.3, 0.3)) == pytest.approx(0.0)


def test_the_rise_does_not_depend_on_how_weights_near_zero_were_rounded():
    exact = weight_rise(with_curve(1.0, 0.7, 3e-5, 2e-8))
    assert weight_rise(with_curve(1.0, 0.7, 0.0, 0.0)) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "shape"),
    [
        ((0.5, 0.5, 0.5), "flat"),
        ((0.5, 0.505, 0.5), "flat"),
        ((0.1, 0.5, 0.3), "rises, then falls"),
        ((0.1, 0.3, 0.5), "rises"),
        ((0.1, 0.5, 0.495), "rises"),
        ((0.5, 0.3, 0.1), "falls"),
        ((0.5, 0.1, 0.5), "other"),
    ],
)
def test_a_curve_is_named_for_what_it_does(weights, shape):
    assert curve_shape(with_curve(*weights)) == shape
    reversed_run = make_run("learned", 0, 1.0, weight_curve=tuple(reversed(tuple(enumerate(weights)))))
    assert curve_shape(reversed_run) == shape, "the order of the record is no matter"


@pytest.mark.parametrize("curve", [(), ((1.0, 0.5),), ((1.0, 0.5), (1.0, 0.6)), ((0.0, 0.0), (1.0, 0.0))])
def test_a_curve_of_fewer_than_two_losses_or_without_weight_has_neither_rise_nor_shape(curve):
    run = make_run("learned", 0, 10.0, weight_curve=curve)
    assert (weight_rise(run), curve_shape(run)) == (None, None)
    assert check_nets([run]) is None


def test_peaks_are_counted_only_of_curves_that_have_one():
    runs = [with_curve(0.1, 0.5, 0.3), with_curve(0.1, 0.3, 0.5).model_copy(update={"seed": 1})]
    assert peak_losses(runs) == {0: 1.0}
    assert count_shapes(runs) == {"rises, then falls": 1, "rises": 1}


def test_weight_nets_that_failed_are_counted_by_how_they_did():
    runs = [
        with_curve(0.2, 0.4, effective_sample_size=0.049),
        with_curve(0.2, 0.4, effective_sample_size=0.05),
        with_curve(0.4, 0.4),
        with_curve(0.995, 0.999, meta_loss_ratio=0.9),
        with_curve(0.9, 0.4, effective_sample_size=0.98),
        with_curve(0.9, 0.4, effective_sample_size=0.979),
        with_curve(0.001, 0.009),
        make_run("uniform", 0, 10.0, effective_sample_size=0.01),
    ]
    health = check_nets(runs)
    assert (health.num_runs, health.num_collapsed, health.num_alike) == (7, 1, 3)
    assert health.num_rising == 3
    assert health.median_meta_ratio == 0.9


def topic_runs(seed: int, shares: dict[str, float], gains: dict[str, float]):
    base = dict.fromkeys(shares, 30.0)
    plain = make_run("uniform", seed, 30.0, topic_share=shares, topic_recall=base)
    ours = {topic: 30.0 + gain for topic, gain in gains.items()}
    return make_run("mama", seed, 30.0, topic_share=shares, topic_recall=ours), plain


def test_topics_of_several_seeds_are_joined_by_rank_and_not_by_name():
    first = topic_runs(0, {"cats": 80.0, "dogs": 20.0}, {"cats": 1.0, "dogs": 5.0})
    second = topic_runs(1, {"cats": 10.0, "dogs": 90.0}, {"cats": 7.0, "dogs": 3.0})
    gains = gains_by_seed([first[0], second[0]], [second[1], first[1]])
    common, rare = join_ranks(gains)
    assert (common.share, common.gain.mean, common.baseline.mean) == (85.0, 2.0, 30.0)
    assert (rare.share, rare.gain.mean) == (15.0, 6.0)


def test_a_gain_that_grows_by_two_per_tenfold_rarity_has_a_slope_of_two():
    shares = {"a": 90.0, "b": 9.0, "c": 0.9}
    run, plain = topic_runs(0, shares, {topic: -2 * math.log10(share) for topic, share in shares.items()})
    gains = gains_by_seed([run], [plain])
    assert rarity_slopes(gains)[0] == pytest.approx(2.0)
    assert rarity_correlations(gains)[0] == pytest.approx(1.0)


def test_equal_shares_or_equal_gains_have_no_correlation_and_equal_shares_no_slope():
    equal = topic_runs(0, {"a": 50.0, "b": 50.0}, {"a": 1.0, "b": 2.0})
    level = topic_runs(1, {"a": 60.0, "b": 40.0}, {"a": 1.0, "b": 1.0})
    gains = gains_by_seed([equal[0], level[0]], [equal[1], level[1]])
    assert rarity_correlations(gains) == {}
    assert list(rarity_slopes(gains)) == [1]


def test_a_seed_that_the_baseline_lacks_is_left_out_and_one_without_topics_too():
    run, plain = topic_runs(0, {"a": 60.0, "b": 40.0}, {"a": 1.0, "b": 1.0})
    assert gains_by_seed([run], []) == {}
    assert gains_by_seed([make_run("mama", 0, 1.0)], [plain]) == {}
