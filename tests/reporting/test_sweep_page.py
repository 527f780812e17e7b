"""The page of a sweep: what it compares, ranks and marks."""

from dataclasses import replace

import pytest

from mama_ray.reporting.sweep_page import (
    SweepReport,
    SweepTrial,
    render_sweep_report,
    show_interval,
    summarise_variants,
)

OBJECTIVES = {"val/t2v_R@1": "max"}


def trial(number: int, state: str, value: float | None, **fields) -> SweepTrial:
    values = () if value is None else (value,)
    point = fields.pop("point", {"optim.lr": 10.0**-number})
    return SweepTrial(f"trial-{number:04d}", number, state, point, values, **fields)


def variant(number: int, name: str, seed: int, value: float, step_s: float = 1.0) -> SweepTrial:
    return trial(number, "complete", value, point={"variant": name, "seed": seed}, step_s=step_s)


def test_variants_are_compared_with_the_first_seed_by_seed():
    trials = [
        variant(0, "plain", 0, 10.0),
        variant(1, "plain", 1, 20.0),
        variant(2, "margin", 0, 13.0, step_s=1.5),
        variant(3, "margin", 1, 23.0, step_s=1.5),
        trial(4, "failed", None, point={"variant": "broken", "seed": 0}),
    ]
    plain, margin = summarise_variants(trials, ["plain", "margin", "broken"])
    assert (plain.interval.mean, plain.difference, plain.step_share) == (15.0, None, 1.0)
    assert (margin.interval.mean, margin.difference.mean, margin.step_share) == (18.0, 3.0, 1.5)
    assert margin.difference.half_width == 0.0, "seeds differ by 10, the variants by 3 in each of them"
    assert margin.interval.half_width > 50


def test_a_variant_without_a_seed_in_common_has_no_difference():
    trials = [variant(0, "plain", 0, 10.0), variant(1, "margin", 1, 13.0)]
    assert summarise_variants(trials, ["plain", "margin"])[1].difference is None


def test_intervals_are_written_as_a_reader_expects():
    trials = [variant(0, "plain", 0, 10.0), variant(1, "margin", 0, 13.0)]
    margin = summarise_variants(trials, ["plain", "margin"])[1]
    assert (show_interval(margin.interval), show_interval(margin.difference, signed=True)) == ("13.0", "+3.0")
    assert show_interval(None) == "–"


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_page_ranks_trials_from_the_best_on_and_gives_reasons(mode):
    trials = (
        trial(0, "complete", 20.0, curve=((3, 10.0), (6, 20.0))),
        trial(1, "complete", 30.0, curve=((3, 12.0), (6, 30.0))),
        trial(2, "pruned", 5.0, curve=((3, 5.0),)),
        trial(3, "failed", None, error="CUDA <out> of memory"),
    )
    best = "trial-0001" if mode == "max" else "trial-0000"
    page = render_sweep_report(
        SweepReport(
            "Sweep one", {"val/t2v_R@1": mode}, trials, best=best, base="trial-0000", importances={"optim.lr": 1.0}
        )
    )
    table = page[page.index("All trials") :]
    order = ["trial-0001", "trial-0000"] if mode == "max" else ["trial-0000", "trial-0001"]
    places = [table.index(name) for name in [*order, "trial-0002", "trial-0003"]]
    assert places == sorted(places)
    assert "CUDA &lt;out&gt; of memory" in page
    assert all(title in page for title in ("How they learned", "What mattered", "best so far", "pruned"))
    assert f"best: {best}" in page


def test_two_objectives_show_the_trials_that_no_other_beats():
    trials = tuple(
        SweepTrial(f"trial-{n:04d}", n, "complete", {"optim.lr": 0.1}, values)
        for n, values in enumerate(((20.0, 0.1), (30.0, 0.3), (10.0, 0.4)))
    )
    objectives = {"val/t2v_R@1": "max", "throughput/step_s": "min"}
    report = SweepReport("Two", objectives, trials, best="trial-0001", front=("trial-0000", "trial-0001"))
    assert "no other beats in both" in render_sweep_report(report)


def test_a_trial_that_was_pruned_at_its_first_validation_is_on_the_page():
    trials = (
        trial(0, "complete", 30.0, curve=((4, 20.0), (8, 30.0)), num_steps=8),
        trial(1, "pruned", 5.0, curve=((4, 5.0),), num_steps=4),
        trial(2, "pruned", 6.0, curve=((4, 6.0),), num_steps=4),
    )
    page = render_sweep_report(SweepReport("sweep", {"val/t2v_R@1": "max"}, trials, best="trial-0000"))
    assert "All 3 trials that validated" in page
    assert all(f"trial-000{number}" in page for number in range(3))


def test_an_ablation_draws_a_curve_for_every_seed_of_every_variant():
    trials = tuple(
        replace(variant(n, name, n, 30.0 + n), curve=((4, 20.0 + n), (8, 30.0 + n))) for n, name in enumerate("ab")
    )
    variants = summarise_variants(trials, ["a", "b"])
    page = render_sweep_report(SweepReport("ablation", {"val/t2v_R@1": "max"}, trials, best=None, variants=variants))
    assert "How they learned" in page
