"""What an earlier commit began is the same job to this one: a field that was added since is marked `AddedLater`."""

import contextlib
import json
import sqlite3

from mama_ray.config import load_config
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import plan_sweep
from tests.carry_on.write_folders import FOLDERS


def test_a_sweep_that_was_begun_is_the_same_search(tmp_path):
    copy = tmp_path / "study.db"  # SQLite writes beside what it reads
    copy.write_bytes((FOLDERS / "sweep/study.db").read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as database:
        stored = dict(database.execute("SELECT key, value_json FROM study_user_attributes"))
    _, _, begun = json.loads(json.loads(stored["mama_ray_definition"]))
    plan = plan_sweep(load_config(SweepJob, FOLDERS / "sweep/config.yaml"))
    assert json.loads(plan.definition) == json.loads(begun)
