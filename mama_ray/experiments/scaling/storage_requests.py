"""Counts what an S3 server on this machine is asked for: clips read, parts committed and read, shards checked."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from mama_ray.data.index import read_index
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard_check import check_sizes
from mama_ray.data.tar_headers import TAR_BLOCK
from mama_ray.experiments.scaling.videos import write_shards
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS, list_parts, read_part, write_parts
from mama_ray.storage.places import Place

NUM_CHECKED = 1100  # more shards than are looked at one by one
_KINDS = re.compile("GET|HEAD|PUT|POST|DELETE")
_COLUMNS = ("shard", "offset", "num_bytes", "sha256")


def measure_storage(folder: Path, videos: dict[str, list[bytes]], part: pa.Table, chunk_clips: int) -> dict:
    """Return requests by kind: per clip of a chunk of 32 neighbours of each size of video, per chunk, part and check.

    part: a table of PART_SCHEMA with the rows of one chunk of `chunk_clips`. folder: an empty one for shards.
    """
    with _counted_server() as seen:
        counts: dict = {"read_of_32": {}}
        for size, own in videos.items():
            write_shards(folder / size, own, CHUNK_CLIPS)
            place = Place.of(f"s3://bucket/{size.replace(' ', '-')}")  # as a job opens it
            pafs.copy_files(str(folder / size), place.path, destination_filesystem=place.filesystem)
            records = read_index(place).select(_COLUMNS).to_pylist()
            counts["read_of_32"][size] = _count(seen, lambda: read_payloads(place, records))  # noqa: B023 - called at once
        table, checked = Place.of("s3://bucket/table"), Place.of("s3://bucket/checked")
        counts["part"] = _count(seen, lambda: write_parts(table, part, chunk_clips))
        counts["part_read"] = _count(seen, lambda: read_part(table, list_parts(table, 0)[0]))
        names = _write_empty_shards(checked)
        expected = {name: {"num_bytes": 2 * TAR_BLOCK, "num_clips": 1} for name in names}
        counts[f"check_of_{NUM_CHECKED}"] = _count(seen, lambda: check_sizes(checked, expected, names))
        return counts


@contextmanager
def _counted_server() -> Iterator[list[str]]:
    """Start an S3 server with an empty bucket, point this process to it, and give the list of what it is asked."""
    import boto3
    from moto.server import ThreadedMotoServer

    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = logging.getLogger("werkzeug")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    before = dict(os.environ)
    try:
        host, port = server.get_host_and_port()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        yield seen
    finally:
        server.stop()
        os.environ.clear()
        os.environ |= before


def _write_empty_shards(folder: Place) -> Sequence[str]:
    """Write archives without members."""
    names = [f"clips-{number:06d}.tar" for number in range(NUM_CHECKED)]
    for name in names:
        (folder / name).write_whole(bytes(2 * TAR_BLOCK))
    return names


def _count(seen: list[str], work: Callable[[], object]) -> dict[str, int]:
    """Return what the server was asked meanwhile; listings, which are GETs by their method, apart."""
    seen.clear()
    work()
    kinds: Counter[str] = Counter()
    for message in seen:
        found = _KINDS.search(message)
        if found:
            kinds["LIST" if "list-type=2" in message else found[0]] += 1
    return dict(sorted(kinds.items()))
