"""A captioning job whose shards, model and table are S3's."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import s3fs

from mama_ray.captioning.table import SUMMARY_NAME, read_caption_files
from mama_ray.storage.places import Place
from tests.captioning.tiny_models import write_llava
from tests.orchestration.prepare.spoiled_shards import BAD, NUM_CLIPS, write_spoiled_shards
from tests.storage.s3_faults import KINDS, FaultyProxy, Refusing, serving

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
SAMPLING = ["--sampling.max-tokens", "8", "--engine.kv-cache-mib", "32"]


def caption(environment: dict[str, str], shards: str, model: str, output: str, *further: str) -> str:
    """Run the program as a user would; return its last line, all it said being free of the secret."""
    places = ["--shards", shards, "--model", model, "--output", output]
    done = start(environment, *places, *SAMPLING, *further)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def fail_to_caption(environment: dict[str, str], shards: str, model: str, output: str) -> str:
    """Run the program where it must fail; return its last line."""
    done = start(environment, "--shards", shards, "--model", model, "--output", output, *SAMPLING)
    assert done.returncode == 1, done.stdout
    return done.stderr.splitlines()[-1]


def start(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; whatever it said, the secret is no part of it."""
    command = [sys.executable, str(ROOT / "jobs/caption.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    return done


def test_a_table_on_s3_is_that_of_a_local_folder_and_holds_no_secret(s3_server, tmp_path, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    shards, model = write_spoiled_shards(tmp_path / "shards"), write_llava(tmp_path / "tiny")
    bucket = Place.of("s3://captions")
    s3fs.S3FileSystem(endpoint_url=s3_server["AWS_ENDPOINT_URL"]).mkdir("captions")
    for name, folder in (("shards", shards), ("tiny", model)):
        pafs.copy_files(str(folder), f"captions/{name}", destination_filesystem=bucket.filesystem)
    uris = ("s3://captions/shards", "s3://captions/tiny", "s3://captions/runs/table")
    line = caption(s3_server, *uris)
    assert line.startswith(f"captioned {NUM_CLIPS} clips")
    assert line.endswith(f"{len(BAD)} error): s3://captions/runs/table")
    assert caption(s3_server, *uris) == f"done already, {NUM_CLIPS} rows: s3://captions/runs/table"
    caption(s3_server, str(shards), str(model), str(tmp_path / "table"))
    found = [table.to_pylist() for table in read_caption_files(bucket / "runs/table")]
    wanted = [table.to_pylist() for table in read_caption_files(Place.of(tmp_path / "table"))]
    assert without_rounding(found) == without_rounding(wanted)
    files = {
        file.uri.removeprefix("s3://captions/runs/table/") for file in (bucket / "runs/table").files(recursive=True)
    }
    names = {"captions-000000.parquet", SUMMARY_NAME, "config.yaml", "report/index.html", "report/card.json"}
    assert files == names
    for name in names - {"captions-000000.parquet"}:
        assert s3_server["AWS_SECRET_ACCESS_KEY"] not in (bucket / f"runs/table/{name}").read_text()


@pytest.mark.promise
def test_a_table_through_faults_of_every_kind_holds_every_clip_once(s3_server, s3_bucket, tmp_path):
    shards, model = write_spoiled_shards(tmp_path / "shards"), write_llava(tmp_path / "tiny")
    bucket = Place.of(f"s3://{s3_bucket}")
    pafs.copy_files(str(shards), f"{s3_bucket}/shards", destination_filesystem=bucket.filesystem)
    places = (f"s3://{s3_bucket}/shards", str(model), f"s3://{s3_bucket}/table")
    with serving(Refusing(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        proxy.refuse_from(404, "NoSuchKey", passes=3)  # after the look at the shards: one is deleted meanwhile
        told = fail_to_caption(s3_server | {"AWS_ENDPOINT_URL": proxy.endpoint}, *places)
    assert told.startswith(f"error: a file of the storage is missing: got s3://{s3_bucket}/shards/"), told
    with serving(FaultyProxy(s3_server["AWS_ENDPOINT_URL"], seed=1, every=10)) as proxy:
        line = caption(s3_server | {"AWS_ENDPOINT_URL": proxy.endpoint}, *places)
    assert all(proxy.faults[kind] for kind in KINDS), (proxy.num_requests, proxy.faults)
    assert line.endswith(f"{len(BAD)} error): s3://{s3_bucket}/table")
    rows = [row for table in read_caption_files(bucket / "table") for row in table.to_pylist()]
    assert len(rows) == len({row["clip_id"] for row in rows}) == NUM_CLIPS
    assert sum(row["error"] is not None for row in rows) == len(BAD)


def without_rounding(files: list[list[dict]]) -> list[dict]:
    return [
        row | {"mean_logprob": row["mean_logprob"] and round(row["mean_logprob"], 4)} for rows in files for row in rows
    ]
