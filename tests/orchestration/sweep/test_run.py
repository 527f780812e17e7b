"""The sweep whole: bad input before resources, a kill half way, the best config that trains as it is, an ablation."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pyarrow as pa
import pytest
import yaml
from optuna.trial import TrialState

from mama_ray.config import ConfigError, load_config, parse_config
from mama_ray.data.index import INDEX_SCHEMA, write_index
from mama_ray.errors import UserError
from mama_ray.orchestration.sweep.job import OBJECTIVES, SweepJob
from mama_ray.orchestration.sweep.plan import plan_sweep
from mama_ray.orchestration.sweep.run import num_concurrent, sweep
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.storage.places import Place
from tests.orchestration.runs.training_runs import NUM_STEPS, ROOT, SETTINGS, wait_until, write_shards
from tests.processes import descendants, is_gone, kill_all, title

TRAIN = SETTINGS | {"num_workers": 1, "checkpoint_every": 3, "num_checkpoints_to_keep": 1}
SPACE = {"objective.margin": {"uniform": [0.0, 0.4]}, "optim.lr": {"log_uniform": [1e-7, 3e-3]}}


def job_with(**settings) -> SweepJob:
    return SweepJob.model_validate({"train": TRAIN} | settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objectives": {"eval/embedded/t2v_R@1": "max"}}, "the test split is for one evaluation"),
        ({"objectives": {"test/t2v_R@1": "max"}}, "a sweep chooses by the val split"),
        ({"objectives": {"val/t2v_R@2": "max"}}, "val/t2v_R@2"),
        ({"objectives": {"val/loss": "min"}}, "unknown objective"),  # known, but no trial ever reports it
        ({"objectives": {}}, "objectives is empty"),
        ({"search_space": SPACE, "variants": {"plain": {}}}, "not both"),
        ({"variants": {"plain": {}}, "seeds": (1, 1)}, "all different"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_with_its_config(settings, told):
    with pytest.raises(ValueError, match=r"(?s).+") as caught:
        job_with(**settings)
    assert told in str(caught.value)


def test_an_unknown_objective_lists_all_that_a_trial_reports():
    with pytest.raises(ConfigError) as caught:
        parse_config(SweepJob, ["--objectives", "val/t2v_R@2", "max"])
    assert all(name in str(caught.value) for name in OBJECTIVES), str(caught.value)
    assert len(OBJECTIVES) == 12


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"search_space": {}}, "search_space is empty"),
        ({"search_space": {"objective.marign": {"uniform": [0.0, 0.4]}}}, "did you mean objective.margin"),
        ({"variants": {"plain": {"weighting.kidn": "uniform"}}}, "variant plain is refused"),
        ({"storage": "nowhere://bucket"}, "nowhere://bucket"),
        ({"storage": "/proc/none"}, "not writable"),
        ({"study": "nonsense"}, "study database"),
    ],
)
def test_bad_input_is_one_clear_error_before_ray_starts(settings, told, tmp_path):
    program = (
        "import sys, json, ray\n"
        "from mama_ray.orchestration.sweep.run import SweepJob, sweep\n"
        "try:\n    sweep(SweepJob.model_validate(json.loads(sys.argv[1])))\n"
        "except ValueError as error:\n    print(type(error).__name__, ray.is_initialized(), error)\n"
    )
    job = {"train": TRAIN, "storage": str(tmp_path)} | settings
    command = [sys.executable, "-c", program, json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    kind, is_initialized, message = done.stdout.split(" ", 2)
    assert (kind, is_initialized) in {("UserError", "False"), ("ConfigError", "False")}, done.stderr[-2000:]
    assert told in message


def test_a_sweep_that_exists_is_not_continued_with_another_search(tmp_path):
    study = f"sqlite:///{tmp_path}/study.db"
    plan = plan_sweep(job_with(storage=str(tmp_path), search_space=SPACE))
    from mama_ray.orchestration.sweep.database import StudyStore

    with StudyStore(study, "sweep", Place.of(str(tmp_path))) as store:
        options = {"definition": plan.definition, "first_points": plan.first_points}
        begun = store.open_study(plan.distributions, {"val/t2v_R@1": "max"}, **options)
        begun.tell(begun.ask(plan.distributions), 10.0)
    longer = job_with(storage=str(tmp_path), search_space=SPACE, study=study, train=TRAIN | {"num_epochs": 3.0})
    with pytest.raises(UserError, match=r"num_epochs = 3\.0"):
        sweep(longer)
    wider = job_with(storage=str(tmp_path), search_space=SPACE | {"meta.lr": {"uniform": [0.1, 0.2]}}, study=study)
    with pytest.raises(UserError, match=r"meta\.lr"):
        sweep(wider)


def test_a_start_that_failed_on_its_inputs_leaves_no_study_behind(tmp_path):
    splits = {"train": 40, "meta": 4, "val": 8}
    clips = [{"clip_id": f"{split}-{n}", "split": split} for split, count in splits.items() for n in range(count)]
    rows = [clip | {"shard": "a.tar", "offset": 512 * number} for number, clip in enumerate(clips)]
    sizes = {"a.tar": {"num_bytes": 1024, "num_clips": len(rows)}}
    (tmp_path / "shards").mkdir()
    write_index(Place.of(tmp_path / "shards"), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    job = job_with(storage=str(tmp_path), train=TRAIN | {"shards": str(tmp_path / "shards")})
    with pytest.raises(UserError, match=r"meta-set too small: got 4 clips, wanted at least meta\.batch_size = 8"):
        sweep(job)
    assert not (tmp_path / "sweep" / "study.db").exists()


def test_the_base_config_is_the_first_point_where_it_lies_in_the_space(tmp_path):
    assert plan_sweep(job_with(search_space=SPACE)).first_points == [{"objective.margin": 0.0, "optim.lr": 1e-3}]
    outside = {"objective.margin": {"uniform": [0.2, 0.4]}}
    assert plan_sweep(job_with(search_space=outside)).first_points == []


def test_an_ablation_is_every_variant_with_every_seed():
    plan = plan_sweep(job_with(variants={"a": {}, "b": {"objective.margin": 0.2}}, seeds=(0, 1)))
    assert plan.first_points == [{"variant": name, "seed": seed} for seed in (0, 1) for name in "ab"]
    assert plan.num_samples == 4


@pytest.mark.parametrize(
    ("resources", "settings", "wanted"),
    [
        ({"CPU": 4.0}, {"num_workers": 1}, 2),
        ({"CPU": 1.0}, {"num_workers": 1}, 1),
        ({"CPU": 64.0}, {"num_workers": 2}, 21),
        ({"CPU": 64.0, "GPU": 8.0}, {"num_workers": 2, "use_gpu": True}, 4),
    ],
)
def test_as_many_trials_run_at_a_time_as_the_cluster_holds(resources, settings, wanted):
    assert num_concurrent(TrainJob(**settings), resources) == wanted


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def start_sweep(folder: Path, config: dict) -> subprocess.Popen:
    """Start jobs/tune.py as a user would; its output goes to <run>.log."""
    path = folder / f"{config['run']}.yaml"
    path.write_text(yaml.safe_dump(config))
    with open(folder / f"{config['run']}.log", "ab") as log:
        command = [sys.executable, str(ROOT / "jobs/tune.py"), str(path)]
        environment = os.environ
        options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True, "env": environment}
        return subprocess.Popen(command, cwd=ROOT, **options)


def num_ended(database: Path) -> int:
    """Count trials that came to a result while a sweep writes the database, which Optuna's own opening would alter."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')").fetchone()[0]
    except sqlite3.Error:  # not there yet, or being made at this moment
        return 0


def ended_trials(database: Path) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that came to a result."""
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{database}")
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def kill_driver(process: subprocess.Popen) -> None:
    """SIGKILL the driver alone, and see that all that works for it ends as well (Ray's own agents take minutes)."""
    below = [
        one for one in descendants(process.pid) if not title(one).startswith(("ray::Dashboard", "ray::RuntimeEnv"))
    ]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=90)
    alive = [one for one in alive if not is_gone(one)]
    kill_all(alive)
    assert not alive, "a killed sweep left processes behind"


@pytest.mark.ray
@pytest.mark.slow  # seven minutes; at every change test_job_submission.py runs a sweep whole
def test_a_killed_sweep_goes_on_prunes_and_its_best_config_trains_as_it_is(shards, tmp_path):
    train = TRAIN | {"shards": str(shards)}
    # The mean rank tells trials apart on sixteen clips. Three steps teach next to nothing, so which trial falls behind
    # is chance: at this factor all that are not nearly the best so far do, and only eight in rising order all stay.
    config = {"storage": str(tmp_path), "run": "sweep", "train": train, "search_space": SPACE, "num_samples": 8}
    config |= {"objectives": {"val/t2v_mean_rank": "min"}, "halving": {"factor": 8.0}}
    database = tmp_path / "sweep" / "study.db"
    process = start_sweep(tmp_path, config)
    wait_until(lambda: process.poll() is not None or num_ended(database) >= 3)
    assert process.poll() is None, (tmp_path / "sweep.log").read_text()[-3000:]
    kill_driver(process)
    before = ended_trials(database)
    assert 3 <= len(before) < 8, "killed too late to prove anything"
    process = start_sweep(tmp_path, config)
    assert process.wait(timeout=500) == 0, (tmp_path / "sweep.log").read_text()[-3000:]

    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{database}")
    ended = ended_trials(database)
    assert len(ended) == 8
    assert ended[: len(before)] == before, "a finished trial was touched"
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    orphans = study.get_trials(states=(TrialState.FAIL,))
    assert orphans, "nothing was running when the sweep was killed"
    begun = {trial.user_attrs["run"] for trial in orphans if "run" in trial.user_attrs}  # not if killed in its making
    assert begun <= {trial.user_attrs["run"] for trial in ended}
    trials = json.loads((tmp_path / "sweep" / "trials.json").read_text())
    assert len({trial["run"] for trial in trials}) == len(trials) == 8
    values = {trial.number: trial.intermediate_values for trial in ended}
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}, f"no trial was pruned: {values}"
    assert {"objective.margin": 0.0, "optim.lr": 1e-3} in [trial["point"] for trial in trials], "the base was not tried"
    assert study.best_value == min(trial.value for trial in ended if trial.state == TrialState.COMPLETE)
    assert "All trials" in (tmp_path / "sweep/report/index.html").read_text()

    best = tmp_path / "sweep" / "best.yaml"
    chosen = load_config(TrainJob, best)
    assert {"objective.margin": chosen.objective.margin, "optim.lr": chosen.optim.lr} == study.best_params
    command = [sys.executable, str(ROOT / "jobs/train.py"), str(best)]
    environment = os.environ
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"trained {NUM_STEPS} steps" in done.stdout.splitlines()[-1]
    assert str(tmp_path / "sweep-best") in done.stdout.splitlines()[-1]


@pytest.mark.ray
@pytest.mark.slow
def test_an_ablation_reports_means_over_its_seeds_and_a_failed_trial_with_its_reason(
    ray_cluster, shards, tmp_path, caplog
):
    variants = {
        "plain": {"weighting.kind": "uniform", "objective.margin": 0.0},
        "broken": {"data.captions": {"asr": 1.0}},
    }
    job = job_with(
        storage=str(tmp_path), train=TRAIN | {"shards": str(shards), "num_epochs": 0.5}, variants=variants, seeds=(0, 1)
    )
    line = sweep(job)
    assert "2 complete, 2 failed" in line
    assert sum(" failed: " in told and "asr" in told for told in caplog.messages) == 2
    page = (tmp_path / "sweep/report/index.html").read_text()
    assert "The variants compared" in page
    assert "asr" in page[page.index("Why trials failed") :]


def test_a_config_error_of_the_sweep_says_where(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("search_space: {objective.margin: {unifrom: [0.0, 0.4]}}")
    with pytest.raises(ConfigError, match="unifrom"):
        load_config(SweepJob, path)
