"""The files of a narrated video say the same in every format, and lead from page to video on a disk."""

import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import srt
import webvtt

from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.captioning.timeline import TimelineConfig
from mama_ray.orchestration.narration.planning import WINDOW_SCHEMA, PlannedVideo
from mama_ray.orchestration.narration.timelines import TimelineWork, address_of, write_video
from mama_ray.storage.places import Place

TABLE = pa.Table.from_pylist(
    [{"clip_id": f"w{n}", "start_s": float(n), "end_s": n + 1.0, "video": "v"} for n in range(4)], schema=WINDOW_SCHEMA
)
TEXTS = ["a man <b>walks</b>", "a man <b>walks</b>", "he says --> no\n\nmore", "the end"]
ROWS = [{"clip_id": f"w{n}", "sample": 0, "caption": text, "mean_logprob": -1.0, "flags": [], "error": None}
        for n, text in enumerate(TEXTS)]  # fmt: skip


def write(output: Path, rows: list[dict], *others: PlannedVideo) -> PlannedVideo:
    video = PlannedVideo(f"{output}/../my hour.mp4", "my hour", 4.0, 32, 0, 4, None)
    work = TimelineWork(
        str(output), None, (video, *others), TimelineConfig(), PostprocessConfig(), QualityConfig(), 1, "tiny"
    )
    write_video(work, video, TABLE, rows, len(rows))
    return video


def test_all_formats_say_the_same(tmp_path):
    output = tmp_path / "out"
    write(output, ROWS)
    lines = [json.loads(line) for line in (output / "narration.jsonl").read_text("utf-8").splitlines()]
    assert [(line["start_s"], line["end_s"], line["clip_ids"]) for line in lines] == [
        (0, 2, ["w0", "w1"]), (2, 3, ["w2"]), (3, 4, ["w3"])]  # fmt: skip
    assert lines[0]["text"] == TEXTS[0]
    cues = list(webvtt.read(str(output / "narration.vtt")))
    times = ["00:00:00.000", "00:00:02.000", "00:00:03.000", "00:00:04.000"]
    assert [(cue.start, cue.end) for cue in cues] == list(pairwise(times))
    parsed = list(srt.parse((output / "narration.srt").read_text("utf-8")))
    assert [one.content for one in parsed] == ["a man ‹b›walks‹/b›", "he says → no\nmore", "the end"]
    page = (output / "index.html").read_text("utf-8")
    assert 'src="../my%20hour.mp4"' in page and "&lt;b&gt;walks" in page


def test_a_part_of_the_windows_makes_files_that_say_what_is_left(tmp_path):
    write(tmp_path, ROWS[:2])
    assert "2 windows are not narrated yet" in (tmp_path / "index.html").read_text("utf-8")
    assert len((tmp_path / "narration.jsonl").read_text().splitlines()) == 1
    write(tmp_path, [])
    assert (tmp_path / "narration.jsonl").read_text() == "" and list(webvtt.read(str(tmp_path / "narration.vtt"))) == []


def test_several_videos_have_a_folder_each(tmp_path):
    write(tmp_path, ROWS, PlannedVideo("other.mp4", "other", 4.0, 32, 4, 4, None))
    (folder,) = (tmp_path / "videos").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "index.html", "narration.jsonl", "narration.srt", "narration.vtt"}  # fmt: skip


@pytest.mark.parametrize(
    ("video", "address"),
    [
        ("/data/my videos/a#1.mp4", "../my%20videos/a%231.mp4"),
        ("https://host/a.mp4", "https://host/a.mp4"),
        ("s3://bucket/a.mp4", None),
    ],
)
def test_a_page_names_a_video_as_a_browser_finds_it(video, address):
    assert address_of(video, Place.of("/data/out")) == address
