"""The goals that a study with controls has, and margins that were tuned to be added."""

import pytest

from mama_ray.experiments.study.report.claims import lead_text, list_claims
from mama_ray.experiments.study.report.goals import list_goals
from mama_ray.experiments.study.report.quotes import short_table
from mama_ray.experiments.study.results import TuningTrial
from tests.experiments.study.report.study_records import make_experiment, make_run

SEEDS = range(6)


def study_of(gains: dict[str, float], tuning=()) -> dict:
    """Runs whose differences spread a little around those of `gains`."""
    runs = [
        make_run(method, seed, 30 + gain + seed + 0.2 * (-1) ** (seed + len(method)))
        for method, gain in gains.items()
        for seed in SEEDS
    ]
    return {"methods": make_experiment("methods", runs, tuning=tuple(tuning))}


@pytest.mark.parametrize(("keep", "met"), [(2.0, True), (3.0, False), (5.0, False)])
def test_learned_weights_must_beat_the_best_control_too(keep, met):
    goals = list_goals(study_of({"uniform": 0.0, "uniform_meta4": 1.0, "keep_lowest": keep, "learned": 3.0}))
    (goal,) = [goal for goal in goals if goal.text.startswith("methods: learned beats every control")]
    assert goal.is_met is met
    assert f"{3 if met else 2} of 3 of them, and the best of all (keep_lowest)" in goal.text


@pytest.mark.parametrize(("oracle", "met"), [(3.9, True), (4.0, True), (4.1, False)])
def test_full_mama_is_held_against_the_oracle_with_captions(oracle, met):
    gains = {"uniform": 0.0, "mixture": 1.0, "mama_captions": 4.0, "oracle": 2.0, "oracle_captions": oracle}
    (goal,) = [goal for goal in list_goals(study_of(gains)) if "like with like" in goal.text]
    assert goal.is_met is met


def tuned(value: str, method: str = "mama") -> list[TuningTrial]:
    key = "optim.lr × objective.margin"
    others = {"0.0005, 0.1": False, value: True}
    return [
        TuningTrial(method=method, key=key, value=one, seed=100, val=30.0, chosen=chosen)
        for one, chosen in others.items()
    ]


def test_a_margin_that_was_tuned_to_be_added_is_no_subtractive_one():
    gains = {"uniform": 0.0, "learned": 1.0, "mama": 3.0, "mama_captions": 4.0}
    added, subtracted = (study_of(gains, tuned(value)) for value in ("0.001, -0.1", "0.001, 0.05"))
    claims = {claim.measured: claim.claim for claim in list_claims(added)}
    assert claims["mama (margin -0.1: added) − learned"] == "An added margin (below 0) helps"
    assert "mama_captions (margin -0.1: added)" in lead_text(added) and "(margin -0.1: added)" in short_table(
        added["methods"]
    )
    claims = {claim.measured: claim.claim for claim in list_claims(subtracted)}
    assert claims["mama − learned"] == "A subtractive margin helps"
    assert "added" not in lead_text(subtracted) + short_table(subtracted["methods"])
