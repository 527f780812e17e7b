"""The tuning: equal budgets, grids that are widened where their edge wins, and what is chosen."""

import pytest

from mama_ray.errors import UserError
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.results import TuningTrial
from mama_ray.experiments.study.tuning import PlannedTrial, Tuning, choose, tune

BASE = CellConfig()
METHODS = {"uniform": {}, "margin": {"objective.margin": 0.2}, "keep": {"rule.kind": "keep_lowest"}}


def tuning(grids, seeds=(100, 101)) -> Tuning:
    return Tuning(BASE, METHODS, grids, seeds)


def test_a_grid_is_the_product_of_its_settings_on_every_seed():
    trials = tuning({"margin": {"optim.lr": (1e-3, 2e-3), "objective.margin": (0.1, 0.2)}}).plan()
    assert [(t.cell.optim.lr, t.cell.objective.margin, t.cell.seed) for t in trials] == [
        (lr, margin, seed) for lr in (1e-3, 2e-3) for margin in (0.1, 0.2) for seed in (100, 101)
    ]


def test_methods_are_tuned_over_equally_many_points():
    with pytest.raises(UserError, match="unequally many values"):
        tuning({"uniform": {"optim.lr": (1e-3, 2e-3)}, "margin": {"optim.lr": (1e-3,)}}).plan()
    equal = {"uniform": {"optim.lr": (1e-3, 2e-3)}, "margin": {"optim.lr": (1e-3,), "objective.margin": (0.1, 0.2)}}
    assert len(tuning(equal).plan()) == 8
    with pytest.raises(UserError, match="tuning of uniform: got no settings"):
        tuning({"uniform": {}}).plan()
    with pytest.raises(UserError, match="unknown method in tuning: got margins"):
        tuning({"margins": {"optim.lr": (1.0,)}}).plan()


def test_a_grid_is_widened_where_its_edge_wins_until_it_does_not():
    calls = []

    def run_all(cells):
        calls.append(sorted({cell.optim.lr for cell in cells}))
        return [-abs(cell.optim.lr - 7e-3) for cell in cells]

    chosen, table = tune(tuning({"uniform": {"optim.lr": (5e-4, 1e-3, 2e-3)}}), run_all, num_widenings=5)
    assert calls == [[5e-4, 1e-3, 2e-3], [4e-3], [8e-3], [0.016]]
    assert chosen == {"uniform": {"optim.lr": 8e-3}}
    assert {row.value: row.beyond for row in table} == {
        5e-4: False, 1e-3: False, 2e-3: False, 4e-3: True, 8e-3: True, 0.016: True,
    }  # fmt: skip
    assert {row.at_edge for row in table if row.chosen} == {()}


def test_widening_is_bounded_and_told():
    grid = tuning({"uniform": {"optim.lr": (5e-4, 1e-3, 2e-3)}})
    chosen, table = tune(grid, lambda cells: [cell.optim.lr for cell in cells], num_widenings=1)
    assert chosen == {"uniform": {"optim.lr": 4e-3}}
    assert {row.at_edge for row in table if row.chosen} == {("optim.lr",)}
    unchanged, table = tune(grid, lambda cells: [cell.optim.lr for cell in cells], num_widenings=0)
    assert unchanged == {"uniform": {"optim.lr": 2e-3}} and len(table) == 6


def test_only_the_setting_at_its_edge_is_widened_from_the_best_point():
    grid = {"margin": {"optim.lr": (1e-3, 2e-3, 4e-3), "objective.margin": (-0.1, 0.0, 0.1)}}
    seen = []

    def run_all(cells):
        seen.append({(cell.optim.lr, cell.objective.margin) for cell in cells})
        return [-abs(cell.optim.lr - 2e-3) - cell.objective.margin for cell in cells]

    chosen, _ = tune(tuning(grid), run_all, num_widenings=2)
    assert seen[1:] == [{(2e-3, -0.2)}, {(2e-3, -0.3)}]
    assert chosen["margin"] == {"optim.lr": 2e-3, "objective.margin": -0.3}


def test_a_grid_whose_edge_is_that_of_the_setting_stays_as_it_is():
    grid = tuning({"keep": {"rule.keep_share": (0.5, 0.75, 1.0)}})
    chosen, table = tune(grid, lambda cells: [cell.rule.keep_share for cell in cells], num_widenings=3)
    assert chosen == {"keep": {"rule.keep_share": 1}} and len(table) == 6


def test_the_best_mean_is_chosen_and_of_equals_the_first():
    def trial(method, value):
        return PlannedTrial(method, (("optim.lr", value),), BASE)

    scores = [("a", 1.5, 10.0), ("a", 1.5, 30.0), ("a", 2.5, 15.0), ("a", 2.5, 26.0), ("b", 1.5, 5.0), ("b", 2.5, 5.0)]
    chosen, table = choose([(trial(method, value), score) for method, value, score in scores])
    assert chosen == {"a": {"optim.lr": 2.5}, "b": {"optim.lr": 1.5}}
    assert [row.chosen for row in table] == [False, False, True, True, True, False]
    assert {(row.key, row.value) for row in table} == {("optim.lr", 1.5), ("optim.lr", 2.5)}


def test_a_point_of_several_settings_is_told_in_words():
    point = (("optim.lr", 2e-3), ("objective.margin", 0.1))
    (row,) = choose([(PlannedTrial("margin", point, BASE), 3.0)])[1]
    assert (row.key, row.value) == ("optim.lr × objective.margin", "0.002, 0.1")
    assert TuningTrial.model_validate_json(row.model_dump_json()) == row


def test_a_trial_of_before_can_still_be_read():
    old = {"method": "a", "key": "optim.lr", "value": 0.001, "seed": 1, "val": 3.0, "chosen": True}
    assert TuningTrial.model_validate(old).value == 0.001
