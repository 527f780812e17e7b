"""Requests to an S3 server for each clip that is read: every clip by itself, and neighbours by one request.

    .venv/bin/python benchmarks/storage_requests.py [--clips 4096] [--clip-bytes 20000] [--batch 256]

The server is a real one on loopback; what it was asked is counted. Prints JSON: GET and HEAD per clip, by what is read
and how, the share of requests that is left, and the requests of a small file.
"""

import argparse
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
import numpy as np
import pyarrow.fs as pafs
from moto.server import ThreadedMotoServer

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import write_shard
from mama_ray.storage.places import Place

_CLIPS_PER_SHARD = 256
_CHUNK_CLIPS = 32  # of captioning, evaluation and the narrator


@contextmanager
def counted_server() -> Iterator[list[str]]:
    """Start an S3 server, point this process to it, and give the list of what it is asked."""
    asked: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: asked.extend(re.findall("GET|HEAD|PUT|POST|DELETE", record.getMessage())[:1])
    logger = logging.getLogger("werkzeug")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        yield asked
    finally:
        server.stop()


def write_shards(folder: Path, num_clips: int, clip_bytes: int) -> list[dict]:
    """Write shards of random bytes; returns the records of their clips, as an index has them."""
    rng, records = np.random.default_rng(0), []
    for start in range(0, num_clips, _CLIPS_PER_SHARD):
        name = f"clips-{start // _CLIPS_PER_SHARD:06d}.tar"
        samples = []
        for number in range(start, min(start + _CLIPS_PER_SHARD, num_clips)):
            clip = Clip(f"clip-{number:08d}", f"video-{number}", 0.0, 1.0, (Caption("a caption"),))
            samples.append((clip, rng.bytes(int(clip_bytes * rng.uniform(0.5, 1.5))), "mp4"))
        for place in write_shard(folder / name, samples):
            records.append(
                {"shard": name, "offset": place.offset, "num_bytes": place.num_bytes, "sha256": place.sha256}
            )
    return records


def read_one_by_one(folder: Place, records: Sequence[dict]) -> None:
    """Open the shard of every clip and read the clip: what a reader does that knows no neighbours."""
    for record in records:
        with (folder / record["shard"]).open_file() as file:
            file.read_at(record["num_bytes"], record["offset"])


def count(asked: list[str], work: Callable[[], object], num_clips: int = 1) -> dict[str, float]:
    """Return requests per clip by kind."""
    asked.clear()
    work()
    return {kind: round(asked.count(kind) / num_clips, 3) for kind in sorted(set(asked))}


def batches_of(num_clips: int, batch: int, run_length: int) -> Iterator[np.ndarray]:
    """Yield the rows of an epoch's whole batches."""
    sizes = [min(_CLIPS_PER_SHARD, num_clips - start) for start in range(0, num_clips, _CLIPS_PER_SHARD)]
    plan = EpochPlan(sizes, PlanConfig(run_length=run_length))
    for step in range(num_clips // batch):
        yield plan.global_batch(step, batch)[0]


def write_small_file(place: Place) -> None:
    """Write under another name first, as a disk wants it."""
    with place.open_whole() as stream:
        stream.write(b"a few bytes")


def main() -> None:
    """Count, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4096)
    parser.add_argument("--clip-bytes", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=256, help="clips of a training batch of one worker")
    options = parser.parse_args()
    batch = min(options.batch, options.clips)
    chunks = [range(start, min(start + _CHUNK_CLIPS, options.clips)) for start in range(0, options.clips, _CHUNK_CLIPS)]
    reads = {"neighbours, 32 at a time (captioning, evaluation)": chunks}
    for run_length in (1, 8, 32):
        rows = list(batches_of(options.clips, batch, run_length))
        reads[f"training, batches of {batch}, run_length {run_length}"] = rows
    result = {}
    with tempfile.TemporaryDirectory() as scratch, counted_server() as asked:
        records = write_shards(Path(scratch), options.clips, options.clip_bytes)
        folder = Place.of("s3://bucket/shards")
        pafs.copy_files(scratch, folder.path, destination_filesystem=folder.filesystem)
        for name, groups in reads.items():
            wanted = [[records[row] for row in rows] for rows in groups]
            num_clips = sum(map(len, wanted))
            alone = count(asked, lambda w=wanted: [read_one_by_one(folder, group) for group in w], num_clips)
            merged = count(asked, lambda w=wanted: [read_payloads(folder, group) for group in w], num_clips)
            share = round(sum(merged.values()) / sum(alone.values()), 3)
            result[name] = {"one by one": alone, "merged": merged, "share of the requests": share}
        result["a small file"] = {
            "under another name first": count(asked, lambda: write_small_file(folder / "small")),
            "whole at once": count(asked, lambda: (folder / "small").write_whole(b"a few bytes")),
        }
    print(json.dumps({"options": vars(options), "requests per clip": result}, indent=1))


if __name__ == "__main__":
    main()
