"""Memory of a captioning job by size of the corpus: driver, engines and decoding, at 1,000 and at 10,000 clips.

.venv/bin/python benchmarks/captioning_memory.py [--sizes 1000 10000] [--model DIR]

The clips are those of the embedded corpus's train split, again and again under new ids. Each size is captioned by
jobs/caption.py as a process of its own; printed are the peaks of private memory (RssAnon), by kind of process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pyarrow as pa
import tyro

from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.storage.places import Place

_ROOT = Path(__file__).resolve().parents[1]
_CLIPS_PER_SHARD = 500
_NUM_DISTINCT = 250
_KINDS = {"Captioning": "engine", "MapBatches(decode)": "decode task", "CaptionLedger": "ledger"}


def main(sizes: tuple[int, ...] = (1000, 10000), model: str | None = None) -> None:
    """Measure every size and print one JSON object."""
    num_distinct = min(_NUM_DISTINCT, max(sizes))
    corpus = CorpusConfig(num_train=num_distinct)
    clips = [generate_clip(corpus, "train", number) for number in range(num_distinct)]
    result = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            shards = write_repeated(Path(folder) / "shards", corpus, clips, size)
            result[f"{size} clips"] = measure(shards, Path(folder) / "table", model)
    print(json.dumps(result, indent=1))


def write_repeated(directory: Path, corpus: CorpusConfig, clips: list, size: int) -> Path:
    """Write `size` clips with ids of their own from a few videos."""
    directory.mkdir()
    facts = {"duration_s": corpus.duration_s, "width": 48, "height": 48, "fps": float(corpus.fps), "codec": "h264"}
    tables, sizes = [], {}
    for start in range(0, size, _CLIPS_PER_SHARD):
        name = f"clips-{start // _CLIPS_PER_SHARD:06d}.tar"
        samples = []
        for number in range(start, min(start + _CLIPS_PER_SHARD, size)):
            one = clips[number % len(clips)]
            name_of_clip = f"clip-{number:08d}"
            clip = type(one.clip)(**(vars(one.clip) | {"clip_id": name_of_clip, "video_id": name_of_clip}))
            samples.append((clip, one.video, "mp4"))
        places = write_shard(directory / name, samples)
        rows = [index_row(clip, place, name, facts) for (clip, *_), place in zip(samples, places, strict=True)]
        tables.append(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
        sizes[name] = {"num_bytes": (directory / name).stat().st_size, "num_clips": len(rows)}
    write_index(Place.of(directory), tables, sizes)
    return directory


def measure(shards: Path, output: Path, model: str | None) -> dict[str, float]:
    """Caption in a process of its own; return peaks of private memory in MiB, and seconds."""
    command = [sys.executable, str(_ROOT / "jobs/caption.py"), "--shards", str(shards), "--output", str(output)]
    command += ["--model", model] if model else []
    began = time.monotonic()
    environment = os.environ
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    peaks: dict[str, float] = defaultdict(float)
    while job.poll() is None:
        for kind, mib in private_memory(job.pid):
            peaks[kind] = max(peaks[kind], mib)
        time.sleep(0.25)
    if job.returncode:
        raise SystemExit(f"jobs/caption.py failed with status {job.returncode}")
    return {kind: round(mib) for kind, mib in sorted(peaks.items())} | {"seconds": round(time.monotonic() - began)}


def private_memory(driver: int) -> list[tuple[str, float]]:
    """Return (kind, MiB) of the driver and of the processes of its tasks and actors."""
    found = []
    try:
        processes = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]
    except psutil.Error:
        return []
    for process in processes:
        try:
            title = " ".join(process.cmdline())
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (psutil.Error, OSError):
            continue
        kind = "driver" if process.pid == driver else next((k for t, k in _KINDS.items() if t in title), None)
        anonymous = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        if kind and anonymous:
            found.append((kind, int(anonymous[0]) / 1024))
    return found


if __name__ == "__main__":
    tyro.cli(main)
