"""MLflow and W&B get the metrics by name; a resumed run goes on in theirs; their failure is none of ours."""

import json
import logging
import time

import pytest

from mama_ray.errors import UserError
from mama_ray.reporting import trackers
from mama_ray.reporting.trackers import Trackers, require_trackers
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place

SETTINGS = {"optim.lr": "0.001", "run": "mine"}


def record(folder, names, steps, *, has_failed: bool = False) -> dict[str, str]:
    """Write the records of some steps through the trackers; returns the runs' identities."""
    place = Place.of(folder)
    followers = Trackers(names, "mine", place, SETTINGS)
    with MetricsWriter(place, start_step=min(steps) - 1, tensorboard=False, trackers=followers) as writer:
        for step in steps:
            writer.write(step, {"train/loss": 10.0 / step, "weights/curve_loss": [0.0, 1.0]})
            writer.write(step, {"val/t2v_R@1": float(step), "train/gradient_norm": float("nan")})
    followers.close(has_failed=has_failed)
    return json.loads((folder / "trackers.json").read_text())


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_mlflow_has_the_metrics_and_goes_on_in_the_same_run(tmp_path, monkeypatch, scheme):
    uri = f"sqlite:///{tmp_path}/mlflow.db" if scheme == "sqlite" else f"file://{tmp_path}/mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    first = record(tmp_path, ["mlflow"], [1, 2], has_failed=True)
    assert record(tmp_path, ["mlflow"], [3, 4]) == first
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mama_ray").experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first["mlflow"], "mine", "FINISHED")
    assert run.data.params == SETTINGS
    history = client.get_metric_history(first["mlflow"], "val/t2v_R_at_1")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert set(run.data.metrics) == {"train/loss", "val/t2v_R_at_1"}


def test_wandb_has_the_metrics_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    identity = record(tmp_path, ["wandb"], [1, 2])["wandb"]
    (log,) = tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    names, end = (b"train/loss", b"val/t2v_R@1", b"optim.lr"), time.monotonic() + 20
    while not all(name in log.read_bytes() for name in names):  # its own process writes the file
        assert time.monotonic() < end
        time.sleep(0.1)
    assert b"curve_loss" not in log.read_bytes()


def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://tracker")
    caplog.set_level(logging.WARNING, "mama_ray")
    place = Place.of(tmp_path)
    followers = Trackers(["mlflow"], "mine", place, SETTINGS)
    with MetricsWriter(place, tensorboard=False, trackers=followers) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"train/loss": 1.0})
    followers.close(has_failed=False)
    assert len(caplog.records) == 1 and "mlflow gets no more metrics" in caplog.text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_is_not_installed_is_named_before_anything_starts(monkeypatch):
    require_trackers(["mlflow", "wandb"])
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tracker wandb is not installed; install the extra.*\.\[wandb\]"):
        require_trackers(["wandb"])
