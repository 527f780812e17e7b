"""The goals that a study with controls has, and margins that were tuned to be added."""

import pytest

from mama_ray.experiments.study.report.claims import lead_text, list_claims
from mama_ray.experiments.study.report.compare import mean_over_factors
from mama_ray.experiments.study.report.contrasts import list_contrasts
from mama_ray.experiments.study.report.goals import list_goals
from mama_ray.experiments.study.report.quotes import list_quotes, short_table
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


def test_one_choice_for_both_kinds_of_data_is_judged_by_the_mean_over_both():
    gains = {
        "uniform_meta4": (0.0, 0.0),
        "mixture_meta4": (1.0, 5.0),
        "joint_meta4": (5.0, 1.0),
        "learned_meta4": (4.5, 4.5),
    }
    runs = [
        make_run(method, seed, 30 + gain + seed + 0.2 * (-1) ** (seed + len(method)), x)
        for method, both in gains.items()
        for x, gain in zip(("one", "other"), both, strict=True)
        for seed in SEEDS
    ]
    study = study_of({"uniform": 0.0}) | {"both": make_experiment("both", runs)}
    (goal,) = [goal for goal in list_goals(study) if goal.text.startswith("both: learned_meta4 beats every control")]
    assert goal.is_met and "3 of 3 of them" in goal.text
    found = {one.measured: one.interval.mean for one in list_contrasts(study) if one.experiment == "both"}
    assert found["learned_meta4, one − joint_meta4, one"] == pytest.approx(-0.5, abs=0.41)
    assert {name: mean for name, mean in found.items() if name.endswith("kinds")} == {
        f"learned_meta4 − {control}, mean over both kinds": pytest.approx(lead, abs=0.41)
        for control, lead in {"uniform_meta4": 4.5, "mixture_meta4": 1.5, "joint_meta4": 1.5}.items()
    }
    rows = [line.split(" | ") for line in list_quotes(study)["both_table"].splitlines() if line.startswith("| ")][1:]
    assert [row[3] for row in rows] == ["+4.5 ± 0.0", "+1.5 ± 0.0", "+1.5 ± 0.0", ""]
    assert [float(value) for value in rows[-1][1:3]] == [37.0, 37.0]
    half = study["both"].model_copy(update={"runs": [run for run in runs if (run.x, run.seed) != ("other", 0)]})
    assert 0 not in mean_over_factors(half, "mixture_meta4")


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
