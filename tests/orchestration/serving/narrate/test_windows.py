"""Windows are seen as they are committed, each once, and the page is told what it does not know."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, file_name
from mama_ray.orchestration.captioning.parts import PART_SCHEMA, WORK_FOLDER, write_parts
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.serving.narrate.record import NarrationFolder, Record, Settings
from mama_ray.orchestration.serving.narrate.windows import NarratedWindows, log_reason, read_windows
from mama_ray.storage.places import Place

RECORD = Record(narration_id="0" * 16, name="a.mp4", file_name="a.mp4", created_s=0.0, num_bytes=1, duration_s=6.0,
                settings=Settings(num_captions=2))  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> NarrationFolder:
    return NarrationFolder(tmp_path)


def commit(folder: NarrationFolder, *rows: int, error: str | None = None) -> None:
    names = [window.clip_id for window in RECORD.windows()]
    empty = dict.fromkeys(PART_SCHEMA.names)
    found = [
        {**empty, "row": row, "clip_id": names[row], "sample": sample, "text": None if error else f"{row} in {sample}",
         "finish_reason": "stop", "mean_logprob": float(sample - 2), "error": error}
        for row in rows
        for sample in range(2)
    ]  # fmt: skip
    write_parts(Place.of(folder.output), pa.Table.from_pylist(found, schema=PART_SCHEMA))


def finish(folder: NarrationFolder, flags: list[str]) -> None:
    empty = dict.fromkeys(CAPTION_SCHEMA.names)
    rows = [{**empty, "clip_id": window.clip_id, "sample": sample, "caption": f"{row} in {sample}",
             "mean_logprob": float(sample - 2), "flags": flags}
            for row, window in enumerate(RECORD.windows()) for sample in range(2)]  # fmt: skip
    folder.output.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTION_SCHEMA), folder.output / file_name(0))
    summary = {"version": 2, "job": {}, "files": {file_name(0): len(rows)}}
    (folder.output / SUMMARY_NAME).write_text(json.dumps(summary))


def starts(windows: NarratedWindows, revision: int) -> list[float]:
    return [window["start_s"] for window in windows.since(revision)]


def test_a_look_tells_what_was_committed_since(folder):
    windows = NarratedWindows(folder, RECORD, NarrateJob())
    assert not windows.look() and (windows.num_done, windows.num_windows) == (0, 6)
    commit(folder, 3, 1)
    assert windows.look() and starts(windows, 0) == [1, 3] and not windows.look()
    seen = windows.revision
    commit(folder, 0)
    commit(folder, 4, error="no frames")
    assert windows.look() and starts(windows, seen) == [0, 4] and starts(windows, 0) == [0, 1, 3, 4]
    told = windows.since(seen)
    assert [text["text"] for text in told[0]["texts"]] == ["0 in 1", "0 in 0"]  # the likelier first
    assert told[1]["error"] == "no frames" and told[1]["texts"] == []


def test_the_table_takes_the_place_of_parts_and_tells_its_flags(folder):
    windows = NarratedWindows(folder, RECORD, NarrateJob())
    commit(folder, *range(6))
    windows.look()
    seen = windows.revision
    finish(folder, [])
    assert not windows.look() and starts(windows, seen) == []  # it says the same
    other = NarratedWindows(folder, RECORD, NarrateJob())
    commit(folder, 0)
    finish(folder, ["duplicate"])
    assert other.look() and other.num_done == 6
    assert other.since(0)[0]["texts"][0]["flags"] == ("duplicate",)


def test_what_is_read_anew_is_news_to_whoever_saw_an_earlier_reading(folder):
    commit(folder, 0)
    seen = read_windows(folder, RECORD, NarrateJob()).revision
    commit(folder, 1)
    again = read_windows(folder, RECORD, NarrateJob())
    assert again.revision > seen and starts(again, seen) == [0, 1]


@pytest.mark.parametrize("damage", [b"", b"no parquet"])
def test_a_damaged_part_is_left_out(folder, damage):
    commit(folder, 0)
    (part,) = (folder.output / WORK_FOLDER).rglob("*.parquet")
    part.write_bytes(damage)
    commit(folder, 1)
    assert starts(read_windows(folder, RECORD, NarrateJob()), 0) == [1]


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        ("12:00 INFO begun\nerror: no video: got {folder}/a.mp4\n", 1, "no video: got a.mp4"),
        ("begun\nended\n", 3, "ended"),
        ("", 3, "its process ended with status 3"),
        ("error: x\n", -9, "its process was killed by signal 9"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_its_last_word_without_the_apps_folder(tmp_path, lines, status, reason):
    log = Path(tmp_path) / "log.txt"
    log.write_text(lines.format(folder=tmp_path))
    assert log_reason(log, status).startswith(reason)
