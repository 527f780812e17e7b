"""What an earlier commit began goes on, from folders that it wrote: a corpus, a run, a table, a sweep and a study.

The folders are those of write_folders.py. Each test works on a copy and asserts that what was done before was kept, and
was not done again.
"""

import contextlib
import itertools
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState

from mama_ray.config import load_config, with_overrides
from mama_ray.data.index import read_index
from mama_ray.experiments.study.job import StudyJob
from mama_ray.experiments.study.results import read_experiments
from mama_ray.experiments.study.run import study
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run as prepare
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.run import sweep
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.storage.places import Place
from tests.carry_on.write_folders import CORPUS, FOLDERS, PLACE, PREPARE, SOURCE

pytestmark = pytest.mark.ray

NUM_CLIPS = sum(value for name, value in CORPUS.items() if name.startswith("num_"))
NUM_STEPS = 24


@pytest.fixture
def begun(tmp_path) -> Callable[..., Path]:
    """Copies folders to a place of the test's own, as if all of it had been written there."""

    def copy(*names: str) -> Path:
        for name in names:
            shutil.copytree(FOLDERS / name, tmp_path / name)
        for path in tmp_path.rglob("*"):
            # A checkpoint's own config stays: its manifest has the hash, and nothing reads paths from it.
            if path.suffix in (".yaml", ".json") and "checkpoints" not in path.parts:
                path.write_text(path.read_text().replace(str(PLACE), str(tmp_path)))
            elif path.name == "study.db":
                with contextlib.closing(sqlite3.connect(path)) as database, database:
                    change = "UPDATE study_user_attributes SET value_json = replace(value_json, ?, ?)"
                    database.execute(change, (str(PLACE), str(tmp_path)))
        return tmp_path

    return copy


@pytest.fixture(scope="module")
def source() -> None:
    """Puts the videos where they were when their prepare began, whole at once; other runs of the tests share them."""
    if not SOURCE.exists():
        PLACE.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=PLACE))
        shutil.copytree(FOLDERS / "source", scratch / "source")
        try:
            (scratch / "source").rename(SOURCE)
        except OSError:  # another run was faster
            assert SOURCE.exists()
        shutil.rmtree(scratch)


def state_of(*paths: Path) -> dict[Path, tuple[bytes, int]]:
    """Return content and time of files, and of all files of folders."""
    files = itertools.chain(*(path.rglob("*") if path.is_dir() else [path] for path in paths))
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files if path.is_file()}


def metrics_lines(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def lines_to_keep(run: Path) -> list[str]:
    """Return what a run recorded up to its newest checkpoint."""
    step = max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())
    lines = [line for line in metrics_lines(run) if steps_done(json.loads(line)) <= step]
    assert set(losses(lines)) == set(range(1, step + 1)), "the folder is not what it should be"
    return lines


def steps_done(record: dict) -> int:
    """Return how many steps are done at a record: until there was a format, it bore the number of the last, from 0."""
    return record["step"] + ("format" not in record)


def losses(lines: list[str]) -> dict[int, float]:
    records = [json.loads(line) for line in lines]
    return {steps_done(record): record["train/loss"] for record in records if "train/loss" in record}


def test_a_prepare_keeps_the_shards_that_it_had_made(ray_cluster, begun, source):
    output = begun("prepare_begun", "shards") / "prepare_begun"
    made = state_of(*sorted(output.glob("*.tar")))
    assert len(made) == 2
    line = prepare(PrepareJob(**PREPARE, output=str(output)))
    assert str(NUM_CLIPS) in line
    assert state_of(*made) == made
    assert not (output / ".prepare").exists()
    whole = output.parent / "shards"
    assert read_index(Place.of(output)).equals(read_index(Place.of(whole)))  # an older one has fewer columns
    assert [path.read_bytes() for path in sorted(output.glob("*.tar"))] == [
        path.read_bytes() for path in sorted(whole.glob("*.tar"))
    ]


def test_a_prepared_corpus_is_found_as_it_is(ray_cluster, begun, source):
    shards = begun("shards") / "shards"
    before = state_of(shards)
    assert "already prepared" in prepare(PrepareJob(**PREPARE, output=str(shards)))
    assert state_of(shards) == before


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_with_the_captions_of_its_table(ray_cluster, begun):
    place = begun("run_begun", "shards", "model", "table_finished")
    run = place / "run_begun"
    before, kept = state_of(run / "checkpoints"), lines_to_keep(run)
    assert 0 < len(losses(kept)) < NUM_STEPS
    job = with_overrides(load_config(TrainJob, run / "config.yaml"), {"num_checkpoints_to_keep": NUM_STEPS})
    assert train(job).startswith(f"trained {NUM_STEPS} steps")
    after = metrics_lines(run)
    assert after[: len(kept)] == kept, "steps of before were done again"
    assert {path: state for path, state in state_of(run / "checkpoints").items() if path in before} == before
    # The same clips, captions and optimiser as in a run that was never killed, on another processor maybe.
    undisturbed = losses((FOLDERS / "run_whole.jsonl").read_text().splitlines())
    assert list(undisturbed) == list(range(1, NUM_STEPS + 1))
    assert losses(after) == pytest.approx(undisturbed, rel=1e-3)
    assert train(job).startswith("done already")


@pytest.mark.vllm
def test_a_finished_table_is_left_alone(ray_cluster, begun):
    table = begun("table_finished", "shards") / "table_finished"
    before = state_of(table)
    job = load_config(CaptionJob, table / "config.yaml")
    assert caption(job) == f"done already, {NUM_CLIPS} rows: {table}"
    assert state_of(table) == before


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.promise
def test_a_table_keeps_the_captions_that_were_written(ray_cluster, begun, caplog):
    table = begun("table_begun", "shards") / "table_begun"
    parts = list((table / ".captioning/parts").rglob("*.parquet"))
    written = pa.concat_tables([pq.read_table(path) for path in parts]).to_pylist()
    assert len(written) == NUM_CLIPS // 2
    with caplog.at_level("INFO", logger="mama_ray"):
        assert caption(load_config(CaptionJob, table / "config.yaml")).startswith(f"captioned {NUM_CLIPS} clips")
    assert f"{NUM_CLIPS // 2} of {NUM_CLIPS} clips" in caplog.text, "clips were captioned again"
    rows = pq.read_table(table / "captions-000000.parquet").to_pylist()
    assert len(rows) == len({row["clip_id"] for row in rows}) == NUM_CLIPS
    found = {row["clip_id"]: row for row in rows}
    for row in written:
        same = set(row) & set(found[row["clip_id"]])
        assert {name: found[row["clip_id"]][name] for name in same} == {name: row[name] for name in same}
        assert found[row["clip_id"]]["caption"] == row["text"].strip()


def finished_trials(database: Path) -> list[optuna.trial.FrozenTrial]:
    stored = optuna.load_study(study_name="sweep", storage=f"sqlite:///{database}")
    return stored.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


@pytest.mark.slow
@pytest.mark.promise
def test_a_sweep_keeps_its_finished_trials_and_goes_on_within_the_one_that_was_cut_off(ray_cluster, begun):
    folder = begun("sweep", "shards", "model") / "sweep"
    trials, database = folder / "trials", folder / "study.db"
    finished = finished_trials(database)
    before = state_of(trials / "trial-0000", trials / "trial-0001")
    kept = lines_to_keep(trials / "trial-0002")
    assert len(finished) == 2
    job = load_config(SweepJob, folder / "config.yaml")
    sweep(job)
    after = finished_trials(database)
    assert after[: len(finished)] == finished
    assert len(after) == job.num_samples == 4
    assert [trial.user_attrs["run"] for trial in after][:3] == ["trial-0000", "trial-0001", "trial-0002"]
    assert {path: state for path, state in state_of(trials).items() if path in before} == before
    assert metrics_lines(trials / "trial-0002")[: len(kept)] == kept, "the trial that was cut off began afresh"
    assert load_config(TrainJob, folder / "best.yaml")


def test_a_study_keeps_the_results_that_it_has(ray_cluster, begun):
    folder = begun("study") / "study"
    (pretrained,) = folder.glob("pretrained-*")
    (corpus,) = folder.glob("corpus-*")
    before = state_of(folder / "cells", pretrained, corpus)
    assert len(list((folder / "cells").iterdir())) == 2
    job = load_config(StudyJob, folder / "study.yaml")
    study(job)
    after = state_of(folder / "cells", pretrained, corpus)
    assert {path: state for path, state in after.items() if path in before} == before
    assert len(list((folder / "cells").iterdir())) == len(job.methods)
    runs = read_experiments(folder / "results")["methods"].runs
    assert {run.method for run in runs} == set(job.methods)
    assert len(list(folder.glob("corpus-*"))) == len(list(folder.glob("pretrained-*"))) == 1
