"""The pool of engines, watched by its processes: it grows while clips queue up and shrinks when they run dry."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow as pa
import pytest

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.storage.places import Place
from tests.orchestration.captioning.captioning_runs import ENGINE_TITLE, ROOT, read_captions
from tests.processes import descendants, title

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]  # at every change test_cluster.py stands for it

NUM_LIGHT, NUM_HEAVY = 512, 160
# An engine that writes one long caption at a time, so that the light clips queue up for about a minute.
SLOW_ENGINE = ["--engine.max_num_seqs", "1", "--sampling.min_tokens", "64"]


def encode_heavy_video(path: Path) -> bytes:
    """Encode a video that is small and takes a second or so to decode."""
    planes = np.full((1620, 1920), 128, np.uint8)  # YUV 4:2:0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "1000"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(600):
            planes[:200, :200] = number % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return path.read_bytes()


def write_drying_shards(directory: Path) -> Path:
    """Write many light clips, then a few heavy ones: the engines wait for those."""
    directory.mkdir(parents=True)
    corpus = CorpusConfig(num_train=NUM_LIGHT)
    light = [generate_clip(corpus, "train", number) for number in range(NUM_LIGHT)]
    heavy = encode_heavy_video(directory / "heavy.mp4")
    samples = [(one.clip, one.video, "mp4") for one in light]
    samples += [
        (Clip(f"heavy-{n}", f"heavy-{n}", 0.0, 12.0, (Caption("noise"),), None, "train"), heavy, "mp4")
        for n in range(NUM_HEAVY)
    ]
    name = "clips-000000.tar"
    places = write_shard(directory / name, samples)
    facts = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}
    rows = [index_row(clip, place, name, facts) for (clip, *_), place in zip(samples, places, strict=True)]
    sizes = {name: {"num_bytes": (directory / name).stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return directory


def test_the_pool_grows_under_backlog_and_shrinks_when_the_clips_run_dry(tmp_path):
    shards = write_drying_shards(tmp_path / "shards")
    command = [sys.executable, str(ROOT / "jobs/caption.py"), "--shards", str(shards), "--model", "embedded"]
    command += ["--output", str(tmp_path / "table"), "--pool.min_size", "1", "--pool.max_size", "3", *SLOW_ENGINE]
    log = tmp_path / "job.log"
    with log.open("wb") as stream:
        environment = os.environ
        job = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    engines, sizes = set(), [0]
    while job.poll() is None:
        engines |= find_engines(job.pid)
        size = sum(psutil.pid_exists(pid) for pid in engines)
        if sizes[-1] != size:
            sizes.append(size)
        time.sleep(0.25)
    assert job.returncode == 0, log.read_text()[-3000:]
    assert sizes[:2] == [0, 1], f"the pool did not start at its minimum: {sizes}"
    assert max(sizes) == 3, f"the pool did not grow to its maximum: {sizes}"
    grown = sizes.index(3)
    assert sizes[:grown] == sorted(sizes[:grown])
    assert 1 in sizes[grown:], f"the pool never shrank to its minimum: {sizes}"
    assert len(read_captions(tmp_path / "table")) == NUM_LIGHT + NUM_HEAVY
    told = [size for _, size in json.loads((tmp_path / "table/report/card.json").read_text())["pool"]]
    assert (told[0], max(told), told[-1]) == (1, 3, 0), f"the report tells of {told}, the processes were {sizes}"
    assert 1 in told[told.index(3) :]


def find_engines(driver: int) -> set[int]:
    """Return the pids of the captioning actors below a driver, as far as their titles can be read right now.

    A process that an actor forks bears the actor's title until it runs its own program: it is no engine.
    """
    titled = {}
    for process in descendants(driver):
        with contextlib.suppress(psutil.Error):
            if ENGINE_TITLE in title(process):
                titled[process.pid] = process.ppid()
    return {pid for pid, parent in titled.items() if parent not in titled}
