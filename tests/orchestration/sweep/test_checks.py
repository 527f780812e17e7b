"""What is wrong with a new sweep is told before anything is trained, whichever trial it is of."""

from dataclasses import dataclass, field

import pytest

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.runs.run_folder import write_run_config
from mama_ray.orchestration.sweep.checks import check_all_sizes, refuse_unsound
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import plan_sweep
from mama_ray.orchestration.sweep.report import failures_of
from mama_ray.orchestration.sweep.run import sweep
from mama_ray.orchestration.sweep.space import edges_of
from mama_ray.orchestration.sweep.values import FAILURE
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.storage.places import Place
from mama_ray.training.manifest import step_directory, write_manifest

ANSWERS = {"task.kind": "question_answering", "task.contrast": False}


def checked(settings: dict) -> None:
    job = SweepJob.model_validate(settings)
    refuse_unsound(job, plan_sweep(job))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variants": {"a": {}, "b": ANSWERS}}, "variant b is refused: objectives: val/t2v_R@1 is not measured"),
        (
            {"variants": {"a": ANSWERS, "b": {}}, "objectives": {"val/accuracy": "max"}},
            "variant b is refused: objectives: val/accuracy needs train.task.kind",
        ),
        (
            {
                "train": {"task": {"kind": "question_answering"}},
                "search_space": {"task.contrast": {"choice": [True, False]}},
            },
            "task.contrast = False is refused: objectives: val/t2v_R@1 is not measured",
        ),
        ({"variants": {"a": {}, "b": {"shards": "nowhere"}}}, r"variant b is refused: .*nowhere"),
        ({"variants": {"a": {"model.preset": "none"}}}, "variant a is refused: .*none"),
        ({"search_space": {"model.preset": {"choice": ["tiny", "none"]}}}, "model.preset = none is refused"),
        ({"seeds": [0, 1]}, "seeds are those of an ablation.*wanted train.seed"),
        ({"variants": {"a": {"run": "mine"}}}, "a is refused: the sweep itself says where its trials lie: got run"),
        ({"search_space": {"storage": {"choice": ["x", "y"]}}}, "search_space is refused: .* got storage"),
        (
            {"variants": {"a": {}, "b": {"data.caption_mode": "paragraph"}}},
            "b is refused: values of val on single captions and on paragraphs cannot be compared",
        ),
        (
            {"search_space": {"data.caption_mode": {"choice": ["draw", "paragraph"]}}},
            "data.caption_mode = paragraph is refused: values of val",
        ),
        ({"variants": {"a": {"seed": 3}}}, "variant a is refused: an ablation's seeds"),
        ({"variants": {"a": {}}, "train": {"seed": 5}}, "not with train.seed: got train.seed 5 and seeds"),
    ],
)
def test_a_trial_that_could_tell_nothing_is_refused_with_its_name(settings, told):
    with pytest.raises(UserError, match=told):
        checked(settings)


@pytest.mark.parametrize("is_trained", [True, False])
def test_the_folder_of_a_run_is_refused_and_its_config_stays(tmp_path, is_trained):
    write_run_config(TrainJob(), Place.of(tmp_path / "mine"))
    if is_trained:
        (tmp_path / "mine/checkpoints" / step_directory(3)).mkdir(parents=True)
        write_manifest(tmp_path / "mine/checkpoints" / step_directory(3), step=3, selection=None)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="the folder of the sweep is that of another job"):
        sweep(SweepJob(storage=str(tmp_path), run="mine"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_right_is_let_through_as_a_dump_of_it_is():
    for settings in (
        {},
        {"train": {"seed": 5}},
        {"variants": {"a": {}, "b": {}}, "seeds": [0, 1], "train": {"seed": 1}},
        {"variants": {"a": {"data.caption_mode": "paragraph"}, "b": {"data.caption_mode": "paragraph"}}},
        {"variants": {"a": ANSWERS, "b": ANSWERS | {"task.eta": 2.0}}, "objectives": {"val/accuracy": "max"}},
    ):
        checked(settings)
        checked(SweepJob.model_validate(settings).model_dump())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"variants": {"plain": {}, "mlp": {"weighting.kind": "learned"}}},
            "variant mlp is refused: meta-set too small",
        ),
        (
            {"search_space": {"weighting.kind": {"choice": ["uniform", "learned"]}}},
            "weighting.kind = learned is refused: meta-set too small",
        ),
        ({"search_space": {"global_batch_size": {"int": [8, 64]}}}, "global_batch_size = 64 is refused"),
    ],
)
def test_sizes_are_those_of_every_trial_on_the_same_clips(settings, told):
    job = SweepJob.model_validate({"train": {"weighting": {"kind": "uniform"}, "global_batch_size": 16}} | settings)
    with pytest.raises(UserError, match=told):
        check_all_sizes(plan_sweep(job), {"train": 40, "meta": 4, "val": 8})
    check_all_sizes(plan_sweep(job), {"train": 400, "meta": 40, "val": 8})


def test_trials_find_relative_places_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variants = {"plain": {"optim.lr": 0.5}, "mixed": {"data.caption_tables": ["captions"], "shards": "s3://b/shards"}}
    plan = plan_sweep(SweepJob(variants=variants))
    assert plan.overrides_of({"variant": "plain", "seed": 2}) == {"optim.lr": 0.5, "seed": 2}
    mixed = with_overrides(plan.base, plan.overrides_of({"variant": "mixed", "seed": 0}))
    assert (mixed.data.caption_tables, mixed.shards) == ((str(tmp_path / "captions"),), "s3://b/shards")
    assert '"captions"' in plan.definition, "an ablation that was begun is told by what it was given"

    space = {"data.tokenizer": {"choice": [None, "words"]}, "objective.margin": {"uniform": [0.0, 0.2]}}
    plan = plan_sweep(SweepJob(search_space=space, train={"data": {"tokenizer": "words"}}))
    choices = edges_of(plan.distributions["data.tokenizer"])
    assert choices == [None, "words"], "a study that was begun keeps its choices"
    assert plan.first_points == [{"data.tokenizer": "words", "objective.margin": 0.0}]
    place = {"data.tokenizer": str(tmp_path / "words"), "objective.margin": 0.1}
    assert plan.overrides_of({"data.tokenizer": "words", "objective.margin": 0.1}) == place
    assert plan.overrides_of({"data.tokenizer": None}) == {"data.tokenizer": None}


@dataclass
class Result:
    """A trial's result as Ray Tune gives it, as far as it is looked at."""

    run: str
    metrics: dict
    error: Exception | None = None
    config: dict = field(init=False)

    def __post_init__(self) -> None:
        self.config = {"run": self.run}


def test_a_trial_that_ended_without_an_objective_says_which():
    results = [
        Result("whole", {"val/t2v_R@1": 3.0, "throughput/step_s": 1}),
        Result("other", {"val/accuracy": 3.0, "throughput/step_s": float("nan")}),
        Result("told", {FAILURE: "no captions"}),
        Result("ended", {}, ValueError("gone")),
    ]
    assert failures_of(results, ("val/t2v_R@1", "throughput/step_s")) == {
        "other": "it reported no number of val/t2v_R@1, throughput/step_s",
        "told": "no captions",
        "ended": "gone",
    }
