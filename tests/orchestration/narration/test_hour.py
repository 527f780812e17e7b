"""An hour is narrated in bounded memory, each second decoded once; a kill costs what was in flight."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import av
import psutil
import pytest

from mama_ray.captioning.table import read_caption_files
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.film import write_film
from mama_ray.orchestration.captioning.parts import rows_of_part
from mama_ray.storage.places import Place
from tests.orchestration.captioning.captioning_runs import parts_of
from tests.processes import descendants, kill_tree, title

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
CORPUS = CorpusConfig(num_train=4, num_val=200, num_test=100)
FIVE_MINUTES = [("val", number) for number in range(200)] + [("test", number) for number in range(100)]


@pytest.fixture(scope="module")
def five_minutes(tmp_path_factory) -> Path:
    return write_film(tmp_path_factory.mktemp("film"), CORPUS, FIVE_MINUTES)


def repeat(film: Path, times: int, target: Path) -> Path:
    """Write a film that is another one several times over, without encoding again."""
    with av.open(str(target), "w") as output:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(film)) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                ticks = round(300 / source.streams.video[0].time_base)
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        output.mux(packet)
            shift += ticks
    return target


def start(film: Path, output: Path, log: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "jobs/narrate.py"), "--videos", str(film), "--model", "embedded"]
    with log.open("ab") as stream:
        return subprocess.Popen(
            [*command, "--output", str(output), *arguments], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT
        )


def num_done(output: Path) -> int:
    return sum(len(rows_of_part(name) or []) for name in parts_of(output))


def private_mib(job: subprocess.Popen) -> dict[int, float]:
    """Return the private memory of the driver and of what decodes, tasks and their children, by process."""
    decoding = [process for process in descendants(job.pid) if "data.video.inspection" in title(process)]
    found = {}
    with contextlib.suppress(psutil.Error, AttributeError):
        for process in (psutil.Process(job.pid), *decoding, *(process.parent() for process in decoding)):
            found[process.pid] = process.memory_full_info().uss / 2**20
    return found


def test_an_hour_is_narrated_in_bounded_memory_each_second_decoded_once(five_minutes, tmp_path):
    hour, output, log = repeat(five_minutes, 12, tmp_path / "hour.mp4"), tmp_path / "out", tmp_path / "log"
    job, seen = start(hour, output, log, "--refresh_s", "5"), []
    while job.poll() is None:
        memory, minute = private_mib(job), num_done(output) / 60
        if 5 <= minute < 60:  # the report, which is made afterwards by other processes, reads a few windows again
            seen.append(memory)
        time.sleep(0.25)
    assert job.returncode == 0, log.read_text()[-3000:]
    early = next(memory for memory in seen if len(memory) > 2)
    growth = {pid: max(memory.get(pid, 0.0) for memory in seen) - early[pid] for pid in early}
    assert sum(growth.values()) < 100, f"{early} MiB at minute 5, then {growth} MiB more"
    summary = json.loads((output / "captions.json").read_text())
    assert summary["num_decoded"] == summary["num_frames"] == 3600 * 8
    rows = [row for table in read_caption_files(Place.of(output), ["clip_id", "error"]) for row in table.to_pylist()]
    assert len({row["clip_id"] for row in rows}) == len(rows) == 3600 and not any(row["error"] for row in rows)
    lines = [json.loads(line) for line in (output / "narration.jsonl").read_text().splitlines()]
    assert lines[-1]["end_s"] == 3600


def test_a_killed_narration_loses_what_was_in_flight_and_says_the_same_in_the_end(five_minutes, tmp_path):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    assert start(five_minutes, whole, log).wait(timeout=300) == 0, log.read_text()[-3000:]
    job = start(five_minutes, killed, log, "--refresh_s", "1")
    while num_done(killed) < 96:
        assert job.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    kill_tree(job)
    committed = num_done(killed)
    assert committed < 300
    (killed / "narration.srt").read_text()  # what was shown until then is whole
    log.write_text("")
    assert start(five_minutes, killed, log).wait(timeout=300) == 0, log.read_text()[-3000:]
    assert f"{300 - committed} of 300 windows" in log.read_text()
    tables = [
        [row for table in read_caption_files(Place.of(output)) for row in table.to_pylist()]
        for output in (whole, killed)
    ]
    assert tables[0] == tables[1]
    for name in ("narration.jsonl", "narration.srt", "narration.vtt"):
        assert (whole / name).read_text() == (killed / name).read_text()
