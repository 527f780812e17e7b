"""Tables and folders as people really bring them, through all of a prepare but Ray."""

import csv
import datetime
import io
import json
import os
import random
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import make_plan
from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.in_process import DONE, captions, index_rows, options, prepare, reasons

NAMES = ("a", "b", "c", "d", "e")


def test_one_row_per_caption_is_one_clip_with_all_captions(folder):
    table = "video,caption\na.mp4,a dog\nb.mp4,a cat\na.mp4,a brown dog\na.mp4,nan\na.mp4,a dog\na.mp4,the dog runs\n"
    assert prepare(**options(folder, table)) == f"2 clips in 1 shards: index at {folder}/out/index.parquet"
    assert captions(folder / "out") == {"a": ["a dog", "a brown dog", "the dog runs"], "b": ["a cat"]}


def test_the_rows_of_a_clip_may_lie_anywhere_in_a_large_table(folder, monkeypatch):
    monkeypatch.setattr("mama_ray.orchestration.prepare.rows._ROWS_AT_ONCE", 7)
    rows = [
        {"video": "a.mp4", "clip_id": f"clip-{clip}", "topic": f"t{clip}", "caption": f"text {clip} {number}"}
        for number in range(5)
        for clip in range(1000)
    ]
    random.Random(0).shuffle(rows)
    job = PrepareJob(**options(folder, rows, clips_per_shard=100))
    plan = make_plan(job)
    assert plan is not None and list(plan.chunks) == list(range(10))
    lines = [
        json.loads(line)
        for number in plan.chunks
        for line in (folder / f"out/.prepare/chunks/{number:06d}.jsonl").read_text().splitlines()
    ]
    assert [line["clip_id"] for line in lines] == list(dict.fromkeys(row["clip_id"] for row in rows))
    for line in lines:
        expected = [row["caption"] for row in rows if row["clip_id"] == line["clip_id"]]
        assert [caption["text"] for caption in line["captions"]] == expected


def test_rows_of_a_clip_that_differ_in_more_than_the_caption_are_refused(folder):
    rows = [
        {"video": "a.mp4", "caption": "one", "split": "train"},
        {"video": "a.mp4", "caption": "two", "split": "test"},
        {"video": "b.mp4", "clip_id": "a", "caption": "three"},
        {"video": "c.mp4", "caption": "x", "split": "test"},
    ]
    assert prepare(**options(folder, rows)).startswith("2 clips in 1 shards, 2 quarantined (2 duplicate clip_id")
    assert captions(folder / "out") == {"a": ["one"], "c": ["x"]}
    assert "again with another split (row 2)" in reasons(folder / "out")[0]
    assert "again with another video (row 3)" in reasons(folder / "out")[1]


def test_videos_that_differ_in_the_extension_are_two_clips(folder, mp4):
    (folder / "videos/a.mkv").write_bytes(make_video(num_frames=3, width=32, height=32, fps=4, container="matroska"))
    rows = [{"video": f"a.{ext}", "caption": f"{ext} {part}"} for part in "xy" for ext in ("mp4", "mkv")]
    rows.append({"video": "a.mkv", "caption": "part", "start_s": 0.25, "end_s": 0.5})
    prepare(**options(folder, rows))
    found = {
        (row["video_id"], row["start_s"]): [text["text"] for text in row["captions"]] for row in index_rows(folder)
    }
    assert found == {("a", 0.0): ["mp4 x", "mp4 y"], ("a.mkv", 0.0): ["mkv x", "mkv y"], ("a.mkv", 0.25): ["part"]}


def test_bad_rows_go_to_the_quarantine_and_the_others_go_on(folder):
    rows = [
        {"video": "a.mp4", "caption": "x"},
        {"vid": "b.mp4", "caption": "y"},
        {"caption": "no video"},
        {"video": "c.mp4", "caption": "z"},
        {"video": "caf\udce9.mp4", "caption": "x"},
        {"video": "d.mp4", "caption": "half \ud83d"},
        {"video": "n" * 300 + ".mp4"},
        {"video": "e.mp4", "start_s": 10**400},
        {"video": ["d.mp4"]},
        {"video": "b.mp4", "topic": {"name": "x"}},
        {"video": "b.mp4/c.mp4"},
    ]
    line = prepare(**options(folder, rows))
    assert line.startswith("2 clips in 1 shards, 9 quarantined (")
    assert captions(folder / "out") == {"a": ["x"], "c": ["z"]}
    found = reasons(folder / "out")
    assert [int(reason.rpartition("(row ")[2].rstrip(")")) for reason in found[:-1]] == [2, 3, 5, 6, 7, 8, 9, 10]
    assert found[-1] == "no such video file"


def test_bytes_and_dates_in_parquet_are_reasons_of_their_rows(folder):
    kinds = {
        "captions": pa.list_(pa.string()),
        "truth": pa.struct([("seen", pa.timestamp("us")), ("raw", pa.binary())]),
    }
    table = pa.table(
        {
            "video": ["a.mp4", "b.mp4", "c.mp4"],
            "captions": pa.array([["one", None], None, ["three"]], kinds["captions"]),
            "truth": pa.array([None, {"at": datetime.datetime(2020, 1, 1), "raw": b"\xff"}, None], kinds["truth"]),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    line = prepare(**options(folder, sink.getvalue(), "t.parquet"))
    assert line.startswith("2 clips in 1 shards, 1 quarantined (1 truth: got what JSON cannot hold")
    assert captions(folder / "out") == {"a": ["one"], "c": ["three"]}


def test_usual_names_of_splits_are_taken_and_a_lost_split_ends_the_job(folder):
    table = "video,caption,split\na.mp4,x,Train\nb.mp4,x,validation\nc.mp4,x,testing\nd.mp4,x,dev\ne.mp4,x, val\n"
    prepare(**options(folder, table))
    splits = {row["video_id"]: row["split"] for row in index_rows(folder)}
    assert splits == {"a": "train", "b": "val", "c": "test", "d": "val", "e": "val"}
    table = "video,split\na.mp4,train\nb.mp4,holdout\nc.mp4,holdout\nd.mp4,\n"
    with pytest.raises(UserError, match=r"all rows of 1 splits were refused: got holdout \(2 split: got 'holdout'"):
        prepare(**options(folder, table, output=str(folder / "other")))
    table = table.replace("holdout", "test")
    assert prepare(**options(folder, table, output=str(folder / "other"))).startswith("4 clips in 2 shards")


def test_a_split_whose_videos_all_fail_ends_the_job_until_they_are_there(folder, mp4):
    rows = [{"video": "a.mp4"}, {"video": "late.mp4", "split": "val"}, {"video": "b.mp4"}]
    with pytest.raises(UserError, match=r"all clips of a split were refused: got val \(1 no such video file"):
        prepare(**options(folder, rows))
    (folder / "videos/late.mp4").write_bytes(mp4)
    assert prepare(**options(folder, rows)).startswith("3 clips in 2 shards")


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("Clip One.MP4", "clip one.mp4"),
        (unicodedata.normalize("NFD", "café.mp4"), unicodedata.normalize("NFC", "café.mp4")),
        (unicodedata.normalize("NFC", "Größe.mp4"), unicodedata.normalize("NFD", "größe.mp4")),
        ("sub/Deep/a.mp4", "sub\\deep\\a.mp4"),
        ("SUB/x.mp4", "sub/x.mp4"),
    ],
)
def test_a_name_that_differs_in_form_case_or_slashes_is_told(folder, mp4, there, asked):
    (folder / "videos" / there).parent.mkdir(parents=True, exist_ok=True)
    (folder / "videos" / there).write_bytes(mp4)
    prepare(**options(folder, [{"video": "a.mp4"}, {"video": asked}, {"video": "other.mp4"}]))
    assert reasons(folder / "out") == [f"no such video file; did you mean {there}?", "no such video file"]


@pytest.mark.parametrize(("name", "container"), [("a.mts", "mpegts"), ("b.M2TS", "mpegts"), ("c.vob", "vob")])
def test_recordings_of_cameras_and_discs_are_read(folder, name, container):
    (folder / "videos" / name).write_bytes(make_video(num_frames=8, width=32, height=32, fps=25, container=container))
    assert prepare(**options(folder, [{"video": name, "caption": "x"}])).startswith("1 clips in 1 shards: index at")
    assert index_rows(folder)[0]["extension"] == name.rpartition(".")[2].lower()


def test_the_quarantine_opens_in_a_spreadsheet_and_runs_nothing(folder):
    evil = [
        "=cmd|' /C calc'!A0.mp4",
        "+1.mp4",
        "-1.mp4",
        "@SUM(A1).mp4",
        "\t=1.mp4",
        'quo"te,\r\nline.mp4',
        "caf\u00e9.mp4",
    ]
    prepare(**options(folder, [{"video": "a.mp4"}, *({"video": name} for name in evil)]))
    data = (folder / "out/quarantine.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfvideo,")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert len(rows) == len(evil) and data.count(b"\r\n") == data.count(b"\n") == len(evil) + 1
    for row in rows:
        assert not any(str(cell).lstrip().startswith(("=", "+", "-", "@")) for cell in row.values())
    assert rows[0]["video"] == "'" + evil[0]
    assert [row["video"] for row in rows][-1] == "café.mp4"


def test_the_last_line_says_what_became_of_all_rows(folder, mp4):
    rows = [{"video": "a.mp4", "caption": "x"}, {"video": "b.mp4"}, {"video": "gone.mp4"}, {"video": "away.mp4"}]
    rows += [{"video": "c.mp4", "start_s": 3, "end_s": 2}, {"video": "d.mp4", "start_s": 90}, {"video": "notes.txt"}]
    line = prepare(**options(folder, rows))
    assert line == (
        "2 clips in 1 shards, 1 without caption, 5 quarantined (2 no such video file; "
        "1 end_s: got 2.0, wanted more than start_s = 3.0 (row 5); "
        "1 video: got extension 'txt', wanted one of mp4, webm, mkv, avi, gif, mov, m4v, mpg, mpeg, ts, mts, m2ts, "
        "vob, ogv, flv, w "
        f"and 1 more reasons; all of them in {folder}/out/quarantine.csv): index at {folder}/out/index.parquet"
    )


def test_names_of_files_that_are_no_utf_8_fail_nothing_else(folder, mp4):
    odd = os.fsencode(folder / "videos") + b"/caf\xe9.mp4"
    with open(odd, "wb") as file:
        file.write(mp4)
    (folder / "videos/nowhere.mp4").symlink_to("none.mp4")
    line = prepare(**options(folder))
    assert line.startswith("5 clips in 3 shards, 5 without caption, 1 quarantined (1 video: got a lone surrogate")
    assert pq.read_table(folder / "out/quarantine.parquet")["video"].to_pylist() == ["caf\\udce9.mp4"]
    assert prepare(**options(folder)) == DONE
    table = options(folder, [{"video": "a.mp4"}, {"video": "café.mp4"}], output=str(folder / "other"))
    assert prepare(**table).startswith("1 clips in 1 shards, 1 without caption, 1 quarantined (1 no such video file;")
