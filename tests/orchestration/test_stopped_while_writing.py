"""Told to stop in mid-checkpoint and while a table is finished, on a storage that does not answer: gone within seconds,
and the same command comes to the result of an undisturbed job.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from aiohttp import web

from mama_ray.captioning.table import read_caption_files
from mama_ray.storage.places import Place
from tests.captioning.tiny_models import write_llava
from tests.orchestration.cluster.listening import family
from tests.orchestration.cluster.test_stopping import GONE_AFTER_S, LEAVES_WITHIN_S, left_of
from tests.orchestration.prepare.spoiled_shards import NUM_CLIPS, write_spoiled_shards
from tests.orchestration.runs.training_runs import ROOT, outcome, start_training, wait_until, write_shards
from tests.storage.s3_faults import FaultyProxy, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Holding(FaultyProxy):
    """Does not answer what writes to some names, until it is told to."""

    def __init__(self, upstream: str, below: str) -> None:
        super().__init__(upstream)
        self.below: str | None = below
        self.num_held = 0

    def choose(self, request: web.BaseRequest) -> str | None:
        if self.below is None or request.method not in ("PUT", "POST") or self.below not in request.path:
            return None
        self.num_held += 1
        return "silence"


def stop(process: subprocess.Popen, log: Path) -> None:
    """Send SIGTERM and wait for the end that was promised."""
    processes, began_s = family(process.pid), time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=60)
    assert time.monotonic() - began_s < LEAVES_WITHIN_S
    assert status == 128 + signal.SIGTERM, log.read_text()[-3000:]
    assert log.read_text().splitlines()[-1].startswith("stopped by SIGTERM"), log.read_text()[-3000:]
    assert left_of(processes, GONE_AFTER_S) == []


def test_training_is_stopped_in_the_midst_of_a_checkpoint(s3_server, s3_bucket, tmp_path, monkeypatch):
    shards = write_shards(tmp_path / "shards")
    log = tmp_path / "run.log"
    assert start_training(tmp_path, shards, "run", num_workers=1).wait(timeout=400) == 0, log.read_text()[-3000:]
    undisturbed = outcome(tmp_path, "run")
    bucket, settings = Place.of(f"s3://{s3_bucket}"), {"storage": f"s3://{s3_bucket}/runs", "num_workers": 1}
    with serving(Holding(s3_server["AWS_ENDPOINT_URL"], "/checkpoints/step_00000008/model")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        process = start_training(tmp_path, shards, "cloud", **settings)
        wait_until(lambda: proxy.num_held > 0 or process.poll() is not None)
        stop(process, tmp_path / "cloud.log")
        proxy.below = None
        process = start_training(tmp_path, shards, "cloud", **settings)
        assert process.wait(timeout=400) == 0, (tmp_path / "cloud.log").read_text()[-3000:]
    assert "resumed at step 4 of" in (tmp_path / "cloud.log").read_text()
    pafs.copy_files(f"{bucket.path}/runs/cloud", str(tmp_path / "cloud"), source_filesystem=bucket.filesystem)
    assert outcome(tmp_path, "cloud") == undisturbed


@pytest.mark.vllm
def test_captioning_is_stopped_in_the_midst_of_finishing_its_table(s3_server, s3_bucket, tmp_path):
    shards, model = write_spoiled_shards(tmp_path / "shards"), write_llava(tmp_path / "tiny")
    table, log = f"s3://{s3_bucket}/table", tmp_path / "job.log"
    command = [sys.executable, str(ROOT / "jobs/caption.py"), "--shards", str(shards), "--model", str(model)]
    command += ["--output", table, "--sampling.max-tokens", "8", "--engine.kv-cache-mib", "32"]

    def start(endpoint: str) -> subprocess.Popen:
        environment = os.environ | s3_server | {"AWS_ENDPOINT_URL": endpoint}
        with log.open("ab") as stream:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=stream, stderr=stream, start_new_session=True
            )

    with serving(Holding(s3_server["AWS_ENDPOINT_URL"], "/table/captions-")) as proxy:
        process = start(proxy.endpoint)
        wait_until(lambda: proxy.num_held > 0 or process.poll() is not None)
        stop(process, log)
        proxy.below = None
        process = start(proxy.endpoint)
        assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    rows = [row for part in read_caption_files(Place.of(table)) for row in part.to_pylist()]
    assert len(rows) == len({row["clip_id"] for row in rows}) == NUM_CLIPS
