"""The training job whole: resume after any kill equals an undisturbed run; bad input is one clear error."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from mama_ray.auditing.record import read_record
from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.storage.places import Place
from tests.orchestration.captioning.caption_tables import captions_of, write_table
from tests.orchestration.runs.training_runs import (
    NUM_STEPS,
    SETTINGS,
    checkpoint,
    outcome,
    start_training,
    train_workers,
    wait_until,
    write_shards,
)
from tests.processes import kill_tree

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("corpus") / "shards")


def job_on(shards: Path, folder: Path, /, **overrides) -> TrainJob:
    base = TrainJob.model_validate(SETTINGS)
    return with_overrides(base, {"shards": str(shards), "storage": str(folder)} | overrides)


def recorded(folder: Path, run: str) -> list[tuple]:
    rows = [row for table in read_record(Place.of(folder / run), NUM_STEPS) for row in table.to_pylist()]
    return sorted((row["step"], row["clip_id"], row["loss"], row["weight"], row["cosine"]) for row in rows)


def test_a_run_trains_validates_and_keeps_the_best_and_newest_checkpoints(ray_cluster, shards, folder):
    line = train(job_on(shards, folder, run="whole", num_checkpoints_to_keep=1))
    assert str(folder / "whole") in line
    result = outcome(folder, "whole")
    assert [step for step, *_ in result["losses"]] == list(range(1, NUM_STEPS + 1))
    assert [step for step, *_ in result["validation"]] == [4, 8, 12]
    assert result["state"] == {"step": NUM_STEPS, "samples_seen": NUM_STEPS * 16}
    best_step = max(result["validation"], key=lambda record: (record[1], record[0]))[0]
    kept = {path.name for path in (folder / "whole" / "checkpoints").iterdir()}
    assert kept == {checkpoint(folder, "whole", step).name for step in {best_step, NUM_STEPS}}
    card = (checkpoint(folder, "whole", NUM_STEPS) / "README.md").read_text()
    assert f"step {NUM_STEPS} of {NUM_STEPS}, {NUM_STEPS * 16} samples" in card
    assert str(folder) not in card, "where the run lies is not told"
    assert "Learned weight" in (folder / "whole" / "report" / "index.html").read_text()
    assert {"config.yaml", "environment.json", "metrics.jsonl"} <= {p.name for p in (folder / "whole").iterdir()}
    assert "done already" in train(job_on(shards, folder, run="whole", num_checkpoints_to_keep=1))


@pytest.mark.slow
def test_a_finished_run_whose_last_checkpoint_is_damaged_makes_it_again(ray_cluster, shards, tmp_path):
    settings = {"num_epochs": 1.0, "checkpoint_every": 3, "num_workers": 1, "weighting.kind": "uniform"}
    job = job_on(shards, tmp_path, run="flipped", **settings)
    train(job)
    weights = checkpoint(tmp_path, "flipped", 6) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "trained 6 steps" in train(job)
    assert weights.read_bytes() == whole
    assert "done already" in train(job)


@pytest.mark.slow
@pytest.mark.promise
def test_resume_on_one_worker_is_bit_exact_after_the_whole_job_was_killed(shards, folder):
    for run in ("undisturbed-1", "killed-1"):
        process = start_training(folder, shards, run, num_workers=1, record={"every": 1})
        if run == "killed-1":
            wait_until(checkpoint(folder, run, 4).is_dir)
            kill_tree(process)
            assert not checkpoint(folder, run, NUM_STEPS).is_dir(), "it was killed too late to prove anything"
            process = start_training(folder, shards, run, num_workers=1, record={"every": 1})
        assert process.wait(timeout=400) == 0, (folder / f"{run}.log").read_text()[-3000:]
    assert "resumed at step" in (folder / "killed-1.log").read_text()
    assert outcome(folder, "killed-1") == outcome(folder, "undisturbed-1")
    assert recorded(folder, "killed-1") == recorded(folder, "undisturbed-1")


@pytest.mark.slow
@pytest.mark.promise
def test_a_killed_worker_costs_no_clip_and_repeats_none(shards, folder):
    """Two workers: the losses, weights and validation of every step equal an undisturbed run's, so did the data."""
    for run in ("undisturbed-2", "killed-2"):
        process = start_training(folder, shards, run, num_workers=2, max_failures=2, record={"every": 1})
        if run == "killed-2":
            wait_until(checkpoint(folder, run, 4).is_dir)
            workers = train_workers(process.pid)
            assert len(workers) == 2
            workers[1].send_signal(signal.SIGKILL)
            assert not checkpoint(folder, run, NUM_STEPS).is_dir(), "it was killed too late to prove anything"
        assert process.wait(timeout=400) == 0, (folder / f"{run}.log").read_text()[-3000:]
    ours, theirs = outcome(folder, "killed-2"), outcome(folder, "undisturbed-2")
    assert "resumed at step" in (folder / "killed-2.log").read_text()
    assert ours["state"] == theirs["state"]
    assert [step for step, *_ in ours["losses"]] == list(range(1, NUM_STEPS + 1))
    for mine, other in zip(ours["losses"], theirs["losses"], strict=True):
        assert mine == pytest.approx(other, rel=1e-4)
    mine, others = recorded(folder, "killed-2"), recorded(folder, "undisturbed-2")
    assert [row[:2] for row in mine] == [row[:2] for row in others]
    assert len(set(mine)) == NUM_STEPS * 16, "each clip of each step once"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"shards": "missing-folder"}, "missing-folder"),
        ({"model.preset": "gigantic"}, "gigantic"),
        ({"meta.batch_size": 64}, "meta-set too small"),
        ({"global_batch_size": 128}, "fewer training clips than one batch"),
        ({"data.captions": {"asr": 1.0}}, "caption"),
        ({"storage": "/proc/no-such-place"}, "not writable"),
        ({"model.pretrained": "no/such-model"}, "no/such-model"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_worker_starts(ray_cluster, shards, tmp_path, overrides, named):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what matters is the user's error inside
        train(job_on(shards, tmp_path, **overrides))
    error = find_user_error(caught.value)
    assert isinstance(error, UserError), repr(caught.value)
    assert named in str(error)


def test_a_truncated_shard_is_named_and_refused(ray_cluster, folder, tmp_path):
    damaged = write_shards(tmp_path / "damaged")
    tar = damaged / "clips-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-4096])
    with pytest.raises(Exception) as caught:  # noqa: PT011
        train(job_on(damaged, folder, run="damaged"))
    assert "clips-000001.tar" in str(find_user_error(caught.value))


def test_a_run_that_exists_is_not_continued_with_another_config(ray_cluster, shards, folder, tmp_path):
    job = job_on(shards, tmp_path, run="once")
    (tmp_path / "once" / "checkpoints" / "step_00000004").mkdir(parents=True)
    (tmp_path / "once" / "config.yaml").write_text(job.to_yaml())
    with pytest.raises(UserError, match="objective"):
        train(with_overrides(job, {"objective.margin": 0.3}))


def test_a_start_that_failed_before_its_first_checkpoint_may_be_corrected(ray_cluster, shards, tmp_path):
    job = job_on(shards, tmp_path, run="typo", **{"model.preset": "tiniest"})
    with pytest.raises(UserError, match="tiniest"):
        train(job)
    assert not (tmp_path / "typo" / "config.yaml").exists(), "what is wrong at a look leaves nothing behind"
    job = job_on(shards, tmp_path, run="typo", **{"data.captions": {"asr": 1.0}})  # seen when the clips are loaded
    for _ in range(2):
        with pytest.raises(UserError, match="asr"):
            train(job)
        job = with_overrides(job, {"objective.margin": 0.3})
    assert "margin: 0.3" in (tmp_path / "typo" / "config.yaml").read_text()


@pytest.mark.slow
def test_a_finished_run_goes_on_longer_from_moved_shards_without_the_weights_it_began_with(
    ray_cluster, shards, tmp_path
):
    """Its schedule does not depend on its length, so it equals a run that was as long from the start, bit for bit."""
    constant = {"num_workers": 1, "optim.warmup_share": 0.0, "optim.final_lr_share": 1.0, "checkpoint_every": 6}
    base = job_on(shards, tmp_path, run="base", num_epochs=0.1, **constant)
    train(base)
    weights = tmp_path / "weights"
    shutil.copytree(checkpoint(tmp_path, "base", 1), weights)  # the best checkpoint of base
    constant |= {"model.pretrained": str(weights), "checkpoint_every": 6}
    long = job_on(shards, tmp_path, run="long", num_epochs=2.0, **constant)
    train(long)
    short = with_overrides(long, {"run": "short", "num_epochs": 1.0})
    assert "trained 6 steps" in train(short)
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)
    shutil.rmtree(weights)
    longer = with_overrides(short, {"num_epochs": 2.0, "shards": str(moved)})
    assert "trained 12 steps" in train(longer)
    ours, theirs = outcome(tmp_path, "short"), outcome(tmp_path, "long")
    assert ours["weights"] == theirs["weights"]
    assert ours["losses"] == theirs["losses"]
    assert f"shards: {moved}" in (tmp_path / "short" / "config.yaml").read_text()
    others = write_shards(tmp_path / "others", seed=7)
    with pytest.raises(UserError, match=f"began with other contents of shards: got {others} with sha256"):
        train(with_overrides(longer, {"shards": str(others)}))
    assert "done already" in train(longer), "what was refused is not in its config"


@pytest.mark.slow
def test_a_run_on_generated_captions_is_not_continued_with_others(ray_cluster, shards, tmp_path):
    rows = captions_of(str(shards), "train")
    table = write_table(tmp_path / "table", rows)
    job = job_on(
        shards, tmp_path, num_epochs=0.1, num_workers=1, **{"weighting.kind": "uniform", "data.caption_tables": [table]}
    )
    train(job)
    data = json.loads((tmp_path / "train" / "environment.json").read_text())["data"]
    assert data["caption_tables"][table]["used"] == len(rows) == 96
    assert "done already" in train(job)
    write_table(tmp_path / "table", [*rows[:-1], rows[-1] | {"caption": "another caption"}])
    with pytest.raises(UserError, match=f"began with other contents of data.caption_tables: got {table} with"):
        train(job)
