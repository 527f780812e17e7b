"""Clips that are made smaller as they are sharded: whose captions they have, which are refused, and kills."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.captioning.join import join_captions
from mama_ray.data.index import INDEX_SCHEMA, read_index, select_split, write_index
from mama_ray.data.index_form import ADDED
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard_check import check_shards
from mama_ray.data.video.probe import probe_video
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_damaged_video, make_video
from tests.orchestration.prepare.in_process import index_rows, options, prepare

SMALL = {"short_side": 48, "fps": 4.0}
ROOT = Path(__file__).resolve().parents[3]
NUM_KILLS = 5


@pytest.fixture
def videos(tmp_path) -> Path:
    """Two whole clips and two cuts of a third video."""
    (tmp_path / "videos").mkdir()
    for number in range(3):
        video = make_video(first=number, num_frames=32, fps=16, width=128, height=96)
        (tmp_path / f"videos/v{number}.mp4").write_bytes(video)
    return tmp_path


ROWS = [
    {"video": "v0.mp4", "clip_id": "a", "caption": "one"},
    {"video": "v1.mp4", "clip_id": "b", "caption": "two"},
    {"video": "v2.mp4", "clip_id": "c", "caption": "three", "start_s": 0.5, "end_s": 1.5},
    {"video": "v2.mp4", "clip_id": "d", "caption": "four", "start_s": 1.0, "end_s": 2.0},
]


def table_of(clips: pa.Table) -> pa.Table:
    """A caption table that was written from these clips."""
    rows = [
        {"clip_id": row["clip_id"], "video_sha256": row["sha256"], "caption": f"seen: {row['clip_id']}",
         "source": "generated", "flags": [], "error": None}
        for row in clips.to_pylist()
    ]  # fmt: skip
    text = [(name, pa.string()) for name in ("clip_id", "video_sha256", "caption", "source", "error")]
    return pa.Table.from_pylist(rows, schema=pa.schema([*text, ("flags", pa.list_(pa.string()))]))


def test_clips_are_smaller_and_captions_of_the_originals_are_theirs(videos):
    prepare(**options(videos, ROWS, transcode=SMALL))
    prepare(**options(videos, ROWS, output=str(videos / "originals")))
    small, originals = (read_index(Place.of(videos / name)) for name in ("out", "originals"))
    check_shards(Place.of(videos / "out"), small)
    assert small["source_sha256"].to_pylist() == originals["sha256"].to_pylist()
    assert originals["source_sha256"].null_count == len(originals)
    for row in small.to_pylist():
        data = read_clip_bytes(Place.of(videos / "out"), row["shard"], row["offset"], row["num_bytes"])
        assert hashlib.sha256(data).hexdigest() == row["sha256"] != row["source_sha256"]
        info = probe_video(data)
        assert (info.width, info.height, info.fps) == (64, 48, 4.0) == (row["width"], row["height"], row["fps"])
        assert row["end_s"] - row["start_s"] == pytest.approx(row["duration_s"], abs=0.01)
    joined, uses = join_captions(small, {"llava": [table_of(originals)]}, exclude_flags=[])
    assert uses["llava"].used == 4
    assert [texts[-1]["text"] for texts in joined["captions"].to_pylist()] == [f"seen: {name}" for name in "abcd"]
    assert join_captions(small, {"own": [table_of(small)]}, exclude_flags=[])[1]["own"].used == 4
    with pytest.raises(UserError, match="written from other videos"):
        join_captions(originals, {"of small ones": [table_of(small)]}, exclude_flags=[])


def test_shards_of_smaller_clips_are_indexed_anew_as_they_were(videos):
    prepare(**options(videos, ROWS, transcode=SMALL))
    wanted = index_rows(videos)
    for name in ("index.parquet", "prepare.json"):
        (videos / "out" / name).unlink()
    prepare(shards=str(videos / "out"))
    assert index_rows(videos) == wanted


def test_an_index_of_an_earlier_version_is_read(videos):
    prepare(**options(videos, ROWS))
    index = read_index(Place.of(videos / "out"))
    path = videos / "out/index.parquet"
    earlier = pq.read_table(path).drop_columns(ADDED)
    pq.write_table(earlier, path)
    assert read_index(Place.of(videos / "out")).equals(index)
    assert read_index(Place.of(videos / "out"), ["source_sha256", "clip_id"]).column_names == [
        "source_sha256", "clip_id",
    ]  # fmt: skip
    assert len(select_split(read_index(Place.of(videos / "out")), "train")) == 4
    write_index(Place.of(videos), [earlier], {"clips-000000.tar": {"num_bytes": 1, "num_clips": 4}})
    assert pq.read_schema(videos / "index.parquet").names == INDEX_SCHEMA.names


def test_a_damaged_video_is_one_row_of_the_quarantine_and_a_little_damage_is_told(videos):
    (videos / "videos/v1.mp4").write_bytes(make_damaged_video(num_frames=20, first_bad=5, num_bad=12))
    (videos / "videos/v0.mp4").write_bytes(make_damaged_video(num_frames=20, first_bad=5, num_bad=4))
    told = prepare(**options(videos, ROWS, transcode=SMALL | {"short_side": 32}))
    assert told.startswith("3 clips in 2 shards, 1 without some frames, which do not decode, 1 quarantined")
    (refused,) = pq.read_table(videos / "out/quarantine.parquet").to_pylist()
    assert (refused["clip_id"], refused["video"]) == ("b", "v1.mp4")
    assert refused["reason"] == "too many frames cannot be decoded: got 12 of 20, limit 50%"


def test_other_settings_are_another_input_and_both_are_told(videos):
    prepare(**options(videos, ROWS, transcode=SMALL))
    assert json.loads((videos / "out/prepare.json").read_text())["inputs"]["transcode"]["crf"] == 23
    with pytest.raises(UserError, match=r"other inputs.*transcode.fps 4,.*transcode.fps 2,"):
        prepare(**options(videos, ROWS, transcode=SMALL | {"fps": 2.0}))
    with pytest.raises(UserError, match="other inputs"):
        prepare(**options(videos, ROWS))


def test_what_does_nothing_is_refused(videos):
    with pytest.raises(UserError, match="--transcode is for clips that are sharded from videos"):
        run(PrepareJob(shards=str(videos), transcode=SMALL))


def outcome(folder: Path) -> tuple:
    out = folder / "out"
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*") if path.is_file()}
    refused = pq.read_table(out / "quarantine.parquet").drop_columns("file_modified_ns").to_pylist()
    return sorted(hashes), {name: found for name, found in hashes.items() if name.endswith(".tar")}, refused


@pytest.mark.slow
@pytest.mark.promise
def test_five_kills_leave_what_an_undisturbed_prepare_leaves(videos):
    rows = [row | {"clip_id": f"{row['clip_id']}{number}"} for number in range(4) for row in ROWS]
    (videos / "videos/v1.mp4").write_bytes(make_damaged_video(num_frames=20, first_bad=5, num_bad=12))
    asked = options(videos, rows, transcode=SMALL | {"short_side": 32})
    prepare(**asked)
    wanted, index = outcome(videos), index_rows(videos)
    (videos / "out").rename(videos / "undisturbed")
    parts = videos / "out/.prepare/parts"
    program = f"from tests.orchestration.prepare.in_process import prepare; prepare(**{asked!r})"
    for kill in range(NUM_KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        # In the midst of a shard, each time a later one.
        while process.poll() is None and not (
            len(list(parts.glob("*.parquet"))) > kill and list((videos / "out").glob("*.tmp"))
        ):
            time.sleep(0.001)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list((videos / "out").glob("*.tmp"))
    prepare(**asked)
    assert outcome(videos) == wanted and index_rows(videos) == index
    assert len(index) == 12 == len({row["clip_id"] for row in index})
