"""What a study compares: paired differences, synergy and shares against naive twins; what records it refuses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from mama_ray.errors import UserError
from mama_ray.experiments.study.report.compare import (
    bounds,
    check_experiments,
    compare_runs,
    compute_synergy,
    find_reference,
    list_factors,
    list_methods,
    recoverable,
    share_recovered,
)
from tests.experiments.study.report.study_records import make_experiment, make_run

RECALLS = st.dictionaries(st.integers(0, 6), st.floats(0, 100), min_size=1)


def runs_of(method: str, values: dict[int, float], x=None) -> list:
    return [make_run(method, seed, value, x) for seed, value in values.items()]


def naive_interval(values: list[float]) -> tuple[float, float | None]:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, float(student_t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))


def assert_equals(interval, values: list[float]) -> None:
    mean, half_width = naive_interval(values)
    assert (interval.mean, interval.count) == (pytest.approx(mean, abs=1e-9), len(values))
    assert interval.half_width == (None if half_width is None else pytest.approx(half_width, abs=1e-9))


@settings(max_examples=60, deadline=None)
@given(RECALLS, RECALLS)
def test_a_difference_is_taken_seed_by_seed_over_the_seeds_of_both(ours, theirs):
    found = compare_runs(runs_of("mama", ours), runs_of("uniform", theirs))
    naive = []
    for seed, value in ours.items():
        for other_seed, other in theirs.items():
            if seed == other_seed:
                naive.append(value - other)
    if naive:
        assert_equals(found, naive)
    else:
        assert found is None


@settings(max_examples=60, deadline=None)
@given(st.lists(RECALLS, min_size=4, max_size=4))
def test_synergy_is_the_double_difference_of_the_seeds_that_all_four_have(values):
    names = ("mama", "learned", "uniform_margin", "uniform")
    runs = [run for name, by_seed in zip(names, values, strict=True) for run in runs_of(name, by_seed)]
    found = compute_synergy(make_experiment("methods", runs), names)
    naive = [
        (values[0][seed] - values[1][seed]) - (values[2][seed] - values[3][seed])
        for seed in range(7)
        if all(seed in by_seed for by_seed in values)
    ]
    if naive:
        assert_equals(found, naive)
    else:
        assert found is None


def test_parts_that_add_up_have_no_synergy():
    gains = {"uniform": 0.0, "learned": 4.0, "uniform_margin": 1.0, "mama": 5.0}
    runs = [make_run(name, seed, 20.0 + seed + gain) for name, gain in gains.items() for seed in range(3)]
    cells = ("mama", "learned", "uniform_margin", "uniform")
    found = compute_synergy(make_experiment("methods", runs), cells)
    assert (found.mean, found.half_width) == (pytest.approx(0.0), pytest.approx(0.0))


def test_a_difference_of_opposite_signs_has_opposite_intervals():
    ours, theirs = runs_of("a", {0: 3.0, 1: 5.0, 2: 9.0}), runs_of("b", {0: 1.0, 1: 6.0, 2: 2.0})
    there, back = compare_runs(ours, theirs), compare_runs(theirs, ours)
    assert (there.mean, there.half_width) == (pytest.approx(-back.mean), pytest.approx(back.half_width))


def noisy_experiment(gain: float, oracle_gains: tuple[float, ...]) -> dict:
    plain = runs_of("uniform", {seed: 10.0 * seed for seed in range(len(oracle_gains))}, 0.4)
    ours = runs_of("mama", {seed: 10.0 * seed + gain for seed in range(len(oracle_gains))}, 0.4)
    oracle = runs_of("oracle", {seed: 10.0 * seed + found for seed, found in enumerate(oracle_gains)}, 0.4)
    return {"wrong": make_experiment("wrong", [*plain, *ours, *oracle])}


def test_the_share_recovered_is_of_the_oracles_mean_gain():
    experiments = noisy_experiment(2.0, (7.0, 8.0, 9.0))
    assert share_recovered(experiments, "wrong", "mama", 0.4) == pytest.approx(2 / 8)
    assert recoverable(experiments, "wrong", 0.4).mean == pytest.approx(8)


def test_a_share_of_a_gain_that_may_be_nothing_is_not_given():
    assert share_recovered(noisy_experiment(2.0, (-7.0, 8.0, 1.0)), "wrong", "mama", 0.4) is None


def test_references_come_from_the_same_value_then_from_no_factor_then_from_the_experiment_of_all_methods():
    main = make_experiment("methods", [make_run("uniform", 0, 1.0), make_run("oracle", 0, 9.0)])
    own = [make_run("learned", 0, 4.0, 0.1), make_run("uniform", 0, 2.0, 0.1), make_run("uniform", 0, 3.0)]
    experiments = {
        "methods": main,
        "inner_lr": make_experiment("inner_lr", own),
        "wrong": make_experiment("wrong", own),
    }

    def value(name, method, x):
        return [run.reported.test["t2v_R@1"] for run in find_reference(experiments, name, method, x)]

    assert value("inner_lr", "uniform", 0.1) == [2.0]
    assert value("inner_lr", "uniform", 0.2) == [3.0]
    assert value("inner_lr", "oracle", 0.1) == [9.0]
    assert value("wrong", "oracle", 0.1) == [], "noise changes the data: another experiment's oracle is none of it"


def test_factors_come_in_their_order_and_words_as_they_came():
    runs = [make_run("learned", 0, 1.0, x) for x in (10.0, "b", 0.1, "a", 2.0)]
    assert list_factors(make_experiment("extra", runs)) == [0.1, 2.0, 10.0, "b", "a"]
    assert list_factors(make_experiment("methods", [make_run("learned", 0, 1.0)])) == [None]


def test_methods_that_an_experiment_does_not_list_are_kept():
    runs = [make_run("new", 0, 1.0), make_run("uniform", 0, 1.0)]
    experiment = make_experiment("methods", runs, methods=("uniform", "never_run"))
    assert list_methods(experiment) == ["uniform", "new"]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([make_run("mama", 0, 1.0), make_run("mama", 0, 2.0)], "two runs of a study are the same one"),
        ([make_run("mama", 0, 1.0, selected=1)], "no point to report"),
        ([make_run("mama", 0, 1.0, curve=())], "no point to report"),
        ([make_run("mama", 0, math.nan)], "no test t2v_R@1"),
    ],
)
def test_records_that_a_table_would_drop_or_count_twice_are_refused_by_name(runs, reason):
    with pytest.raises(UserError, match=reason) as caught:
        check_experiments({"methods": make_experiment("methods", runs)})
    assert "methods: mama at –, seed 0" in str(caught.value)


def test_no_experiments_are_refused():
    with pytest.raises(UserError, match="no experiments"):
        check_experiments({})


def test_the_interval_of_one_seed_has_no_width():
    found = compare_runs(runs_of("a", {3: 5.0}), runs_of("b", {3: 2.0, 4: 9.0}))
    assert (found.mean, found.half_width, found.count) == (3.0, None, 1)
    assert bounds(found) == (3.0, 3.0)
