"""Verdicts of a study at the edges of their rules, and what they are drawn from."""

import pytest

from mama_ray.experiments.study.report.claims import choose_on_val, judge, lead_text, list_claims
from mama_ray.experiments.study.report.goals import list_goals
from mama_ray.reporting.intervals import Interval
from tests.experiments.study.report.study_records import make_experiment, make_run, make_study


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(2.0, 1.999, 3), "yes"),
        (Interval(2.0, 2.0, 3), "not told apart"),
        (Interval(0.0, 0.0, 3), "not told apart"),
        (Interval(-2.0, 2.0, 3), "not told apart"),
        (Interval(-2.0, 1.999, 3), "no: the opposite"),
        (Interval(0.1, 0.0, 2), "yes"),
        (Interval(50.0, None, 1), "one seed: no verdict"),
        (None, "not measured"),
    ],
)
def test_a_verdict_follows_from_the_interval_alone(interval, verdict):
    assert judge(interval) == verdict


def methods_of(gains: dict[str, tuple[float, ...]]) -> dict:
    runs = [make_run(name, seed, 20 + gain) for name, found in gains.items() for seed, gain in enumerate(found)]
    return {"methods": make_experiment("methods", runs)}


@pytest.mark.parametrize(
    ("gain", "spread", "oracle", "met"),
    [
        (4.5, 0.1, 7.5, [True, True]),
        (4.49, 0.1, 7.5, [False, False]),
        (4.5, 9.0, 7.0, [False, True]),
        (8.0, 0.1, 7.0, [True, True]),
        (4.6, 0.1, 7.7, [True, False]),
    ],
)
def test_goals_are_met_from_their_very_numbers_on(gain, spread, oracle, met):
    gains = {"uniform": (0.0,) * 3, "mama": (gain - spread, gain, gain + spread), "oracle": (oracle,) * 3}
    goals = list_goals(methods_of(gains))
    assert [goal.is_met for goal in goals] == met


def test_one_seed_meets_no_goal_that_needs_an_interval_and_says_so():
    experiments = methods_of({"uniform": (0.0,), "mama": (9.0,), "oracle": (9.0,)})
    assert [goal.is_met for goal in list_goals(experiments)] == [False, True]
    assert "one seed says nothing about others" in lead_text(experiments)


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ((3.0, 3.1, 3.2), "it is better."),
        ((-3.0, -3.1, -3.2), "it is worse."),
        ((-3.0, 0.0, 3.0), "the two cannot be told apart."),
    ],
)
def test_the_lead_says_what_the_interval_says(gains, words):
    assert words in lead_text(methods_of({"uniform": (0.0,) * 3, "mama": gains}))


def test_captions_belong_to_full_mama_where_they_were_run():
    gains = {"uniform": (0.0, 0.0), "mama": (3.0, 3.0), "mama_captions": (6.0, 6.0)}
    assert lead_text(methods_of(gains)).startswith("Full MAMA (mama_captions) against plain InfoNCE: +6.0")


def test_the_margin_is_chosen_on_val_and_reported_on_test():
    def run(x, seed, val, test):
        found = make_run("uniform", seed, test, x)
        point = found.curve[0].model_copy(update={"val": {"t2v_R@1": val}})
        return found.model_copy(update={"curve": (point,)})

    table = {0.0: (90.0, 10.0), 0.1: (30.0, 12.0), 0.2: (20.0, 50.0)}
    runs = [run(x, seed, val + seed, test + seed) for x, (val, test) in table.items() for seed in range(2)]
    experiment = make_experiment("margin_wrong", runs)
    assert choose_on_val(experiment, "uniform") == 0.1
    (claim,) = list_claims({"margin_wrong": experiment})
    assert claim.found == "+2.0 ± 0.0 points (2 seeds)"
    assert claim.measured == "margin_wrong: uniform, margin 0.1 (best on val) − margin 0"


def test_a_margin_without_runs_at_zero_makes_no_claim():
    experiment = make_experiment("margin", [make_run("uniform", 0, 1.0, 0.1)])
    assert list_claims({"margin": experiment}) == []


def test_claims_that_a_rising_weight_curve_contradicts_are_told_so():
    curve = ((0.0, 0.2), (1.0, 0.4), (2.0, 0.8))
    runs = [make_run("learned", seed, 20.0, weight_curve=curve) for seed in range(2)]
    claims = {claim.claim: claim for claim in list_claims({"methods": make_experiment("methods", runs)})}
    assert claims["High losses are discounted as noise"].verdict == "no: the opposite"
    assert claims["High losses are discounted as noise"].found == "+0.75 ± 0.00 of the peak (2 seeds)"
    assert claims["Weight rises with the loss to a peak, then falls"].verdict == "no"
    assert claims["Weight rises with the loss to a peak, then falls"].found == "rises in 2 of 2 runs"


def test_captions_of_narrators_and_grids_are_compared_with_none_with_one_frame_and_without_the_gate():
    def of(name, gains):
        runs = [make_run("uniform", seed, 20 + gain + seed, x) for x, gain in gains.items() for seed in range(2)]
        return [(claim.measured, claim.found) for claim in list_claims({name: make_experiment(name, runs)})]

    assert of("key_frames", {"none": 0.0, "1 x 1, 1 frame": 1.0, "2 x 2, 4 frames": 4.0}) == [
        ("key_frames: uniform, 1 x 1, 1 frame − none", "+1.0 ± 0.0 points (2 seeds)"),
        ("key_frames: uniform, 2 x 2, 4 frames − none", "+4.0 ± 0.0 points (2 seeds)"),
        ("key_frames: uniform, 2 x 2, 4 frames − 1 x 1, 1 frame", "+3.0 ± 0.0 points (2 seeds)"),
    ]
    gains = {"none": 0.0, "narrator": 4.0, "one that errs, gated": 3.0, "one that errs, ungated": 1.0}
    assert of("narrators", gains)[3:] == [
        ("narrators: uniform, one that errs, gated − one that errs, ungated", "+2.0 ± 0.0 points (2 seeds)"),
        ("narrators: uniform, narrator − one that errs, gated", "+1.0 ± 0.0 points (2 seeds)"),
        ("narrators: uniform, narrator − one that errs, ungated", "+3.0 ± 0.0 points (2 seeds)"),
    ]


def test_every_claim_of_a_whole_study_is_made_once():
    claims = list_claims(make_study(seeds=(0, 1)))
    assert len({(claim.claim, claim.measured) for claim in claims}) == len(claims)
    found = list(dict.fromkeys(claim.claim for claim in claims))
    assert [claim.claim for claim in claims] == sorted((c.claim for c in claims), key=found.index), "grouped"
    assert len(found) == 11
