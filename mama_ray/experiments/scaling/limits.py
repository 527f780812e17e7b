"""What were limits of the pipeline, run at the size that matters: Arrow's strings, a far storage, and a decode task
whose worker dies.
"""

import json
import os
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from mama_ray.data.index import INDEX_SCHEMA, MEMORY_SCHEMA, SHARDS_KEY
from mama_ray.data.shard_check import check_shards
from mama_ray.experiments.scaling.control import start_ray
from mama_ray.orchestration.cluster.pipelines import dataset_of
from mama_ray.storage.places import Place

_SHA256_BYTES = 64
_ROWS_PER_BATCH = 1_000_000
_CHUNKS, _DIES_AT = 40, 20
_NUM_SHARDS, _SHARD_BYTES, _LATENCY_S = 2000, 10240, 0.1


def show_limits() -> dict[str, str]:
    """Return what happens; takes a minute and some 8 GB of memory."""
    return {
        **{
            f"take of 32 rows of 34,000,000, {where}": take_rows(34_000_000, schema.field("sha256").type)
            for where, schema in (("typed as in the file", INDEX_SCHEMA), ("as in memory", MEMORY_SCHEMA))
        },
        f"check of {_NUM_SHARDS} shards, {_LATENCY_S} s away": time_check(),
        f"a worker dies at chunk {_DIES_AT} of {_CHUNKS}": count_decodings(),
    }


def take_rows(num_rows: int, kind: pa.DataType) -> str:
    """Do to hashes what a captioning job does to its table: combine its chunks, then take the rows of one chunk."""
    offsets = np.arange(_ROWS_PER_BATCH + 1, dtype=np.int32) * _SHA256_BYTES
    letters = pa.py_buffer(np.full(_ROWS_PER_BATCH * _SHA256_BYTES, ord("a"), np.uint8))
    hashes = pa.StringArray.from_buffers(_ROWS_PER_BATCH, pa.py_buffer(offsets), letters).cast(kind)
    table = pa.table({"sha256": pa.chunked_array([hashes] * (num_rows // _ROWS_PER_BATCH))}).combine_chunks()
    try:
        return f"{len(table.take(pa.array(range(32))))} rows"
    except pa.ArrowInvalid as error:
        return f"ArrowInvalid: {error}"


def time_check() -> str:
    """Check shards on a server of this machine that answers after a while, as an object store does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _FarStorage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        s3 = pafs.S3FileSystem(
            access_key="a", secret_key="b", region="us-east-1", scheme="http",
            endpoint_override=f"127.0.0.1:{server.server_address[1]}",
        )  # fmt: skip
        names = list(map(_shard_name, range(_NUM_SHARDS)))
        sizes = {name: {"num_bytes": _SHARD_BYTES, "num_clips": 1} for name in names}
        began = time.perf_counter()
        check_shards(
            Place(s3, "bucket", "s3://bucket"),
            pa.table({"shard": names}).replace_schema_metadata({SHARDS_KEY: json.dumps(sizes)}),
        )
        return f"{time.perf_counter() - began:.1f} s"
    finally:
        server.shutdown()
        server.server_close()


def _shard_name(number: int) -> str:
    return f"clips-{number:06d}.tar"


class _FarStorage(BaseHTTPRequestHandler):
    """Knows sound shards alone, by their names in listings, their size and the zeros at their end."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(200, _SHARD_BYTES)

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            self._list()
            return
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self._answer(206, last + 1 - first)
        self.wfile.write(bytes(last + 1 - first))

    def _list(self) -> None:
        """Answer a listing, a thousand shards at a time."""
        start = int(parse_qs(urlsplit(self.path).query).get("continuation-token", ["0"])[0])
        stop = min(start + 1000, _NUM_SHARDS)
        shards = "".join(
            f"<Contents><Key>{_shard_name(number)}</Key><Size>{_SHARD_BYTES}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for number in range(start, stop)
        )
        more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < _NUM_SHARDS else ""
        is_cut = str(stop < _NUM_SHARDS).lower()
        told = f"<Name>bucket</Name><IsTruncated>{is_cut}</IsTruncated>{more}{shards}"
        content = f'<?xml version="1.0"?><ListBucketResult>{told}</ListBucketResult>'.encode()
        self._answer(200, len(content))
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, num_bytes: int) -> None:
        time.sleep(_LATENCY_S)
        self.send_response(status)
        self.send_header("Content-Length", str(num_bytes))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()


def count_decodings() -> str:
    """Let a decode task's worker die once in the middle of its chunk; tell how many chunks were begun twice."""
    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        log, mark = Path(folder) / "log", Path(folder) / "died"

        def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            with log.open("a") as file:
                file.write(f"{batch['id'][0]}\n")
            time.sleep(0.05)
            if batch["id"][0] == _DIES_AT and not mark.exists():
                mark.touch()
                os._exit(1)
            return {"id": batch["id"], "pixels": np.zeros((1, 6144), np.uint8)}

        context = DataContext.get_current().copy()
        context.enable_progress_bars, context.target_max_block_size = False, 6000  # one chunk is a block of grids
        with DataContext.current(context):
            grids = dataset_of(range(_CHUNKS)).map_batches(
                decode, batch_size=1, num_cpus=0.5, compute=TaskPoolStrategy(size=1)
            )
            done = grids.map_batches(_Engine, batch_size=1, num_cpus=0.25, compute=ActorPoolStrategy(size=1))
            rows = [int(row) for batch in done.iter_batches(batch_size=None) for row in batch["id"]]
        again = sum(count > 1 for count in Counter(log.read_text().split()).values())
    return f"{again} chunks begun twice, {len(rows)} captioned, {len(set(rows))} of them different"


class _Engine:
    """Passes the numbers of chunks on."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"id": batch["id"]}
