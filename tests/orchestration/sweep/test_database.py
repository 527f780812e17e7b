"""The study outlives the sweep's processes: what a resumed one finds, and what is refused as another's."""

import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from ray.tune import TuneError
from ray.tune.search import Searcher

from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import _failure
from mama_ray.orchestration.sweep.database import (
    FILE_NAME,
    num_finished,
    requeue_unfinished,
)
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.search import StudySearch
from mama_ray.orchestration.sweep.values import FAILURE, IS_OF_STORAGE
from tests.orchestration.sweep.studies import NUM_STEPS, OBJECTIVES, SPACE, opened, result, search_on, store_at
from tests.storage.small_disks import remount


def test_trials_end_complete_pruned_or_failed_and_the_base_comes_first(tmp_path):
    with store_at(tmp_path) as store:
        study = opened(store)
        search = search_on(store)
        first = search.suggest("a")
        assert first == {"run": "trial-0000", "point": {"objective.margin": 0.1}}
        search.on_trial_result("a", result(6, 20.0))
        search.on_trial_complete("a", result(NUM_STEPS, 30.0))
        search.suggest("b")
        search.on_trial_complete("b", result(6, 10.0))
        search.suggest("c")
        search.on_trial_complete("c", None, error=True)
        search.suggest("d")
        search.on_trial_complete("d", result(NUM_STEPS, float("nan")))
        states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
        assert [trial.state for trial in study.trials] == states
        assert study.trials[0].intermediate_values == {6: 20.0, NUM_STEPS: 30.0}
        assert study.trials[1].value == 10.0, "a pruned trial keeps the value at which it was stopped"
        assert study.best_trial.value == 30.0
        assert num_finished(study) == 2


def test_a_trial_that_tells_its_own_end_has_failed_and_the_sweep_goes_on(tmp_path):
    with store_at(tmp_path) as store:
        opened(store)
        search = search_on(store)
        search.suggest("one")
        told = {FAILURE: "train/loss at step 2: got nan", IS_OF_STORAGE: False}
        search.on_trial_complete("one", result(1, 10.0) | told)
        assert search.suggest("two")["run"] == "trial-0001"
        assert [trial.state for trial in opened(store).get_trials()] == [TrialState.FAIL, TrialState.RUNNING]
        assert search.storage_failure is None


def test_a_storage_that_failed_under_a_trial_begins_no_other_and_its_run_is_queued_again(tmp_path):
    told = "no space left on the storage: got /out: No space left on device"
    with store_at(tmp_path) as store:
        opened(store)
        search = search_on(store)
        first, _ = search.suggest("one"), search.suggest("two")
        search.on_trial_complete("one", {FAILURE: told, IS_OF_STORAGE: True})
        assert (search.storage_failure, search.suggest("three")) == (told, Searcher.FINISHED)
        search.on_trial_complete("two", result(NUM_STEPS, 10.0))
    with store_at(tmp_path) as store:
        study = opened(store)
        assert requeue_unfinished(study) == 1
        again = StudySearch(store, study, SPACE, OBJECTIVES, num_samples=5)
        assert again.suggest("one") == first


def test_a_study_on_a_full_disk_is_one_line_also_where_ray_tune_tells_it_as_a_traceback(small_disk):
    disk = small_disk("512k")
    with store_at(disk) as store:
        opened(store)
        search = search_on(store)
        remount(disk, f"size={sum(path.stat().st_blocks * 512 for path in disk.rglob('*'))}")
        try:
            while search.suggest("one"):  # until its pages are full
                pass
        except Exception:
            told = [TuneError(traceback.format_exc()), sys.exc_info()[1]]
    for error in told:
        line = _failure(error, SweepJob(storage=str(disk)))[1]
        assert line.startswith(f"error: no space left on the storage: got {disk}: "), line


def test_a_study_in_which_nothing_was_learned_gives_way_to_another_search(tmp_path):
    with store_at(tmp_path) as store:
        opened(store)
        search = search_on(store)
        search.suggest("a")
        search.on_trial_complete("a", None, error=True)
        study = opened(store, definition='{"num_epochs": 3}')
        assert [trial.state for trial in study.trials] == [TrialState.WAITING]
        search = search_on(store)
        search.suggest("b")
        with pytest.raises(UserError, match="exists with another search"):  # it runs
            opened(store, definition="{}")


def test_a_failed_trial_with_a_checkpoint_binds_its_study(tmp_path):
    with store_at(tmp_path) as store:
        opened(store)
        search = search_on(store)
        run = search.suggest("a")["run"]
        search.on_trial_complete("a", None, error=True)
        checkpoint = tmp_path / "trials" / run / "checkpoints" / "step_00000004"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text('{"version": 1, "step": 4, "selection": null, "files": {}}')
        with pytest.raises(UserError, match="num_epochs = 3"):
            opened(store, definition='{"num_epochs": 3}')


def test_a_trial_with_fewer_steps_than_the_base_is_complete_at_its_own_last_one(tmp_path):
    with store_at(tmp_path) as store:
        study = opened(store)
        search = search_on(store)
        search.suggest("a")
        search.on_trial_complete("a", result(6, 30.0, num_steps=6))
        assert study.trials[0].state == TrialState.COMPLETE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {"objective.margin": FloatDistribution(0.0, 0.3)}}, "objective.margin"),
        ({"space": {"optim.lr": FloatDistribution(0.1, 0.3)}}, "optim.lr"),
        ({"objectives": {"val/t2v_R@1": "min"}}, "objectives"),
        ({"definition": '{"num_epochs": 3}'}, "num_epochs = 3"),
    ],
)
def test_a_study_of_another_search_is_refused_and_says_what_differs(tmp_path, changes, told):
    with store_at(tmp_path) as store:
        opened(store)
        search_on(store).suggest("a")  # from here on there is something to lose
        with pytest.raises(UserError, match="exists with another search") as caught:
            opened(store, **changes)
        assert told in str(caught.value)


def test_a_study_that_something_else_made_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/other.db"
    study = optuna.create_study(storage=url, study_name="sweep")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with store_at(tmp_path, url) as store, pytest.raises(UserError, match="was not made by this job"):
        opened(store)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "got nonsense"),
        ("sqlite:////proc/none/study.db", "cannot be opened"),
        ("oracle://me:hunter2@host/db", "install the driver"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_clear_error_without_its_password(tmp_path, url, told):
    with pytest.raises(UserError) as caught:
        store_at(tmp_path, url)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_study_in_an_object_store_is_there_after_the_machine_is_gone():
    folder = "memory://bucket/sweeps/one"
    with store_at(folder) as store:
        opened(store)
        search = search_on(store)
        search.suggest("a")
        search.on_trial_complete("a", result(NUM_STEPS, 30.0))
        search.suggest("b")
    with store_at(folder) as store:
        study = opened(store)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
        assert study.trials[0].value == 30.0


# Pages of the file are changed and the change is not whole when the process is gone.
KILLED_IN_MID_COMMIT = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.executescript("pragma cache_size = 1; pragma cache_spill = 1; begin immediate; create table other (text)")
database.executemany("insert into other values (?)", [("x" * 3000,)] * 200)
database.execute("update trials set state = 'FAIL'")
database.execute("drop table other")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_in_mid_commit(folder: Path) -> Path:
    """Make a study with one running trial in a folder, and kill who changes it; return what is left to roll back."""
    with store_at(folder) as store:
        opened(store)
        search_on(store).suggest("a")
    subprocess.run([sys.executable, "-c", KILLED_IN_MID_COMMIT, str(folder / FILE_NAME)], check=False)
    return folder / f"{FILE_NAME}-journal"


def test_a_sweep_that_was_killed_in_mid_commit_goes_on_from_the_commit_before(tmp_path):
    journal = killed_in_mid_commit(tmp_path)
    assert journal.stat().st_size > 512
    with store_at(tmp_path) as store:
        assert [trial.state for trial in opened(store).trials][:1] == [TrialState.RUNNING]
    assert not journal.exists() or journal.stat().st_size == 0


def test_a_journal_that_names_another_file_is_refused_and_deletes_nothing(tmp_path):
    victim, journal = tmp_path / "victim.txt", killed_in_mid_commit(tmp_path)
    victim.write_text("precious")
    name, data = str(victim).encode(), journal.read_bytes()
    lock_page = 2**30 // int.from_bytes(data[24:28], "big") + 1
    tail = [lock_page.to_bytes(4, "big"), name, len(name).to_bytes(4, "big"), sum(name).to_bytes(4, "big")]
    journal.write_bytes(data + b"".join(tail) + bytes.fromhex("d9d505f920a163d7"))
    for url in (None, f"sqlite+pysqlite:///{tmp_path / FILE_NAME}"):
        with pytest.raises(UserError, match="the study's journal is that of several databases"):
            store_at(tmp_path, url)
    assert victim.exists()
    sqlite3.connect(tmp_path / FILE_NAME).execute("SELECT * FROM trials")
    assert not victim.exists()  # as SQLite does
