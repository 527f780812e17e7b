"""From experiments to cells."""

import pytest

from mama_ray.errors import UserError
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.plan import ExperimentConfig, plan_runs

BASE = CellConfig()
METHODS = {"uniform": {}, "margin": {"objective.margin": 0.2}}


def experiment(**fields) -> ExperimentConfig:
    return ExperimentConfig(title="t", question="q", methods=("uniform", "margin"), **fields)


def test_every_method_meets_every_value_and_seed():
    factor = {"factor": "corpus.swapped_rate", "values": (0.0, 0.5)}
    runs = plan_runs(BASE, {"e": experiment(**factor)}, METHODS, {}, (1, 2, 3))
    assert len(runs) == 2 * 2 * 3
    assert {(run.method, run.x, run.cell.seed) for run in runs} == {
        (method, x, seed) for method in METHODS for x in (0.0, 0.5) for seed in (1, 2, 3)
    }
    assert all(run.cell.corpus.swapped_rate == run.x for run in runs)


def test_later_settings_win():
    base = {"objective.margin": 0.1, "num_steps": 5}
    runs = plan_runs(BASE, {"e": experiment(base=base)}, METHODS, {"margin": {"objective.margin": 0.3}}, (4,))
    by_method = {run.method: run.cell for run in runs}
    assert by_method["uniform"].objective.margin == 0.1
    assert by_method["margin"].objective.margin == 0.3
    assert {cell.num_steps for cell in by_method.values()} == {5} and {c.seed for c in by_method.values()} == {4}
    factor = {"factor": "objective.margin", "values": (0.4,)}
    runs = plan_runs(BASE, {"e": experiment(**factor)}, METHODS, {"margin": {"objective.margin": 0.3}}, (4,))
    assert {run.cell.objective.margin for run in runs} == {0.4}


def test_named_settings_and_an_experiments_own_seeds():
    runs = plan_runs(
        BASE, {"e": experiment(settings={"a": {}, "b": {"meta_set.size": 16}}, seeds=(9,))}, METHODS, {}, (1, 2)
    )
    assert {(run.x, run.cell.meta_set.size) for run in runs} == {("a", 128), ("b", 16)}
    assert {run.cell.seed for run in runs} == {9}


def test_a_whole_number_reaches_a_setting_that_wants_one():
    runs = plan_runs(BASE, {"e": experiment(factor="meta_set.size", values=(64.0,))}, METHODS, {}, (1,))
    assert runs[0].cell.meta_set.size == 64


def test_an_unknown_method_is_named():
    with pytest.raises(UserError, match="unknown method in experiment e: got margins.*did you mean margin"):
        plan_runs(BASE, {"e": ExperimentConfig(title="t", question="q", methods=("margins",))}, METHODS, {}, (1,))


@pytest.mark.parametrize(
    "fields",
    [{"factor": "optim.lr"}, {"values": (1.0,)}, {"factor": "optim.lr", "values": (1.0,), "settings": {"a": {}}}],
)
def test_half_a_factor_is_refused(fields):
    with pytest.raises(ValueError, match="factor and values, or settings, or neither"):
        experiment(**fields)
