"""What a run's folder tells of where its numbers come from, in today's runs and in those that told less."""

import json

from mama_ray.reporting.provenance import read_num_val, read_provenance, read_settings
from mama_ray.storage.places import Place


def test_a_run_tells_its_command_dates_versions_and_settings(tmp_path):
    environment = {
        "command": "python jobs/train.py --run mine", "started_s": 0.0, "python": "3.11.2", "platform": "Linux",
        "packages": {"mama-ray": "0.1.0", "torch": "2.13.0", "ray": "2.60.0", "numpy": "2.0"},
        "cluster": {"CPU": 16.0, "GPU": 1.0, "memory": 1e9}, "data": {"num_clips": {"train": 1200, "val": 50}},
    }  # fmt: skip
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "config.yaml").write_text("run: mine\noptim: {lr: 0.001}\nshards: null\n")
    told = read_provenance(Place.of(tmp_path), [{"step": 1, "time_s": 86400.0}], "runs/mine, step 4")
    assert told == {
        "command": "python jobs/train.py --run mine",
        "checkpoint": "runs/mine, step 4",
        "started": "1970-01-01 00:00 UTC",
        "last record": "1970-01-02 00:00 UTC",
        "clips": "1,200 train, 50 val",
        "versions": "mama-ray 0.1.0, torch 2.13.0, ray 2.60.0",
        "python": "3.11.2 on Linux",
        "Ray's resources": "16 CPU, 1 GPU",
    }
    assert read_settings(Place.of(tmp_path)) == {"run": "mine", "optim.lr": "0.001", "shards": "–"}
    assert read_num_val(Place.of(tmp_path)) == 50


def test_a_folder_without_any_of_it_tells_nothing(tmp_path):
    assert read_provenance(Place.of(tmp_path), []) == {}
    assert read_settings(Place.of(tmp_path)) == {}
    assert read_num_val(Place.of(tmp_path)) is None


def test_the_folder_of_a_run_that_wrote_secrets_down_tells_none(tmp_path):
    environment = {"command": "python jobs/tune.py --study postgresql://me:hunter/2@host/x"}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "config.yaml").write_text("study: postgresql://me:hunter/2@host/x\nhub: {api_key: hunter2}\n")
    assert read_provenance(Place.of(tmp_path), []) == {"command": "python jobs/tune.py --study postgresql://***@host/x"}
    assert read_settings(Place.of(tmp_path)) == {"study": "postgresql://***@host/x", "hub.api_key": "***"}
