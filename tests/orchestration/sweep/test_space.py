"""The search space: typed domains, checked against the training job before anything runs."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mama_ray.config import ConfigError, with_overrides
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import plan_sweep
from mama_ray.orchestration.sweep.space import check_search_space, describe_space, point_of, values_of
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.training.settings import TaskConfig

SPACE = {
    "objective.margin": {"uniform": [0.0, 0.4]},
    "optim.lr": {"log_uniform": [1e-4, 1e-2]},
    "meta.meta_every": {"int": [1, 4]},
    "weighting.kind": {"choice": ["uniform", "learned"]},
}


def test_every_domain_becomes_optunas_distribution_of_the_same_values():
    assert check_search_space(TrainJob(), SPACE) == {
        "objective.margin": FloatDistribution(0.0, 0.4),
        "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "meta.meta_every": IntDistribution(1, 4),
        "weighting.kind": CategoricalDistribution(["uniform", "learned"]),
    }


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "search_space is empty"),
        ({"objective.marign": {"uniform": [0.0, 0.4]}}, "did you mean objective.margin"),
        ({"lr": {"log_uniform": [1e-4, 1e-2]}}, "optim.lr"),
        ({"objective": {"choice": ["a", "b"]}}, "objective is a group of settings"),
        ({"objective.margin": {"uniform": [0.0, 9.0]}}, "objective.margin = 9.0 is refused"),
        ({"objective.margin": {"uniform": [0.4, 0.0]}}, "low < high"),
        ({"objective.margin": {"uniform": [0.1]}}, "two numbers"),
        ({"optim.lr": {"log_uniform": [0.0, 1.0]}}, "a low end > 0"),
        ({"meta.meta_every": {"int": [1.0, 4.0]}}, "two whole numbers"),
        ({"meta.meta_every": {"int": [0, 4]}}, "meta.meta_every = 0 is refused"),
        ({"meta.meta_every": {"uniform": [1.0, 4.5]}}, "meta.meta_every = 1.0 is refused"),
        ({"weighting.kind": {"choice": ["uniform", "learnt"]}}, "learnt"),
        ({"weighting.kind": {"choice": ["uniform"]}}, "two or more different values"),
        (
            {"optim.lr": {"log_uniform": [1e-4, 1e-2], "uniform": [0.1, 0.2]}},
            "one of uniform, log_uniform, int, choice",
        ),
    ],
)
def test_a_wrong_space_is_one_clear_error(space, told):
    with pytest.raises(ConfigError) as caught:
        check_search_space(TrainJob(), space)
    assert told in str(caught.value)


def test_the_factor_of_the_task_loss_is_searched_and_reaches_the_trial():
    base = TrainJob(task=TaskConfig(kind="question_answering", eta=0.5))
    job = SweepJob(
        train=base, search_space={"task.eta": {"log_uniform": [0.1, 2.0]}}, objectives={"val/accuracy": "max"}
    )
    distributions = check_search_space(job.train, job.search_space)
    assert distributions == {"task.eta": FloatDistribution(0.1, 2.0, log=True)}
    assert plan_sweep(job).first_points == [{"task.eta": 0.5}]
    trial = with_overrides(job.train, plan_sweep(job).overrides_of({"task.eta": 1.7}))
    assert (trial.task.eta, trial.task.kind) == (1.7, "question_answering")
    with pytest.raises(ConfigError, match=r"task.eta = -1.0 is refused"):
        check_search_space(base, {"task.eta": {"uniform": [-1.0, 1.0]}})


@pytest.mark.parametrize(
    ("task", "objective", "told"),
    [
        ({}, "val/accuracy", "val/accuracy needs train.task.kind question_answering"),
        (
            {"kind": "question_answering", "contrast": False},
            "val/t2v_R@1",
            "t2v_R@1 is not measured without the contrast",
        ),
    ],
)
def test_a_sweep_chooses_by_what_its_trials_measure(task, objective, told):
    with pytest.raises(ValueError, match=told):
        SweepJob(train=TrainJob(task=TaskConfig(**task)), objectives={objective: "max"})


def test_the_base_is_a_point_of_the_space_only_where_it_lies_inside():
    distributions = check_search_space(TrainJob(), SPACE)
    point = {"objective.margin": 0.0, "optim.lr": 1e-3, "meta.meta_every": 2, "weighting.kind": "learned"}
    assert point_of(TrainJob(), distributions) == point == values_of(TrainJob(), list(SPACE))
    for outside in ({"objective.margin": 0.5}, {"weighting.kind": "focal"}, {"meta.meta_every": 5}):
        assert point_of(with_overrides(TrainJob(), outside), distributions) is None


def test_a_key_of_a_group_that_the_base_leaves_null_is_searched_and_the_base_lies_outside():
    job = SweepJob(search_space={"model.lora.rank": {"int": [4, 16]}})
    assert job.train.model.lora is None
    plan = plan_sweep(job)
    assert (plan.first_points, plan.distributions) == ([], {"model.lora.rank": IntDistribution(4, 16)})


def test_equal_spaces_are_described_alike_and_others_are_not():
    distributions = check_search_space(TrainJob(), SPACE)
    turned = check_search_space(TrainJob(), dict(reversed(SPACE.items())))
    wider = check_search_space(TrainJob(), SPACE | {"objective.margin": {"uniform": [0.0, 0.3]}})
    assert describe_space(distributions) == describe_space(turned) != describe_space(wider)
