"""Shards that something else wrote: indexed in place, odd keys and captions read, damage named."""

import io
import json
import re
import tarfile

import pyarrow.parquet as pq
import pytest

from mama_ray.data.clip import CLIP_ID_PATTERN, Caption
from mama_ray.data.index import read_index
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard import Sample
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.foreign import clip_id_of, clip_of
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import Place
from tests.data.shard_factory import tar_bytes
from tests.data.video.video_factory import make_video


@pytest.fixture(scope="module")
def webm() -> bytes:
    return make_video(num_frames=6, fps=6, codec="libvpx")


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return make_video(num_frames=8, width=48, height=48, fps=4)


@pytest.fixture
def shards(tmp_path, webm, mp4):
    folder = tmp_path / "shards"
    (folder / "more").mkdir(parents=True)
    first = [
        ("000 1.webm", webm),
        ("000 1.txt", b"a dog runs\n"),
        ("dir/a.b.mp4", mp4),
        ("dir/a.b.json", json.dumps({"caption": "a cat", "extra": 1}).encode()),
        ("picture.jpg", b"no video"),
        ("bad.mp4", b"no video at all"),
        ("bad.txt", b"x"),
        ("broken.mp4", mp4),
        ("broken.json", b"{"),
    ]
    second = [("7.mp4", mp4), ("7.json", json.dumps({"captions": ["one", "two"], "split": "test"}).encode())]
    (folder / "one.tar").write_bytes(tar_bytes(first))
    (folder / "more" / "two.tar").write_bytes(tar_bytes([*second, ("8.mp4", webm)]))
    return folder


def rows_of(folder) -> dict[str, dict]:
    return {row["clip_id"]: row for row in read_index(Place.of(folder)).to_pylist()}


@pytest.mark.ray
def test_foreign_shards_are_indexed_in_place(shards, mp4, webm, ray_cluster):
    before = {path: path.read_bytes() for path in shards.rglob("*.tar")}
    line = run(PrepareJob(shards=str(shards)))
    assert line.startswith("4 clips in 2 shards, 1 without caption, 2 quarantined (")
    assert {path: path.read_bytes() for path in shards.rglob("*.tar")} == before
    rows = rows_of(shards)
    assert len(rows) == 4
    seven, eight = rows["7"], rows["8"]
    assert (seven["shard"], seven["split"], seven["extension"]) == ("more/two.tar", "test", "mp4")
    assert [caption["text"] for caption in seven["captions"]] == ["one", "two"]
    assert (eight["split"], eight["captions"]) == ("train", [])
    (dog,) = [row for row in rows.values() if row["captions"] == [{"text": "a dog runs", "source": "human"}]]
    assert (dog["extension"], dog["codec"]) == ("webm", "vp8")
    assert dog["duration_s"] == pytest.approx(1.0, abs=0.01)
    for row in rows.values():
        data = read_clip_bytes(Place.of(shards), row["shard"], row["offset"], row["num_bytes"], sha256=row["sha256"])
        assert data in (mp4, webm)
    reasons = [row["reason"] for row in pq.read_table(shards / "quarantine.parquet").to_pylist()]
    assert any("not a readable video" in reason for reason in reasons)
    assert "annotations: the .json member is not JSON" in reasons
    assert run(PrepareJob(shards=str(shards))).startswith("already prepared")


@pytest.mark.ray
def test_the_same_keys_in_two_shards_get_two_clip_ids(tmp_path, mp4, ray_cluster):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes([("000.mp4", mp4), ("001.mp4", mp4)]))
    run(PrepareJob(shards=str(tmp_path)))
    rows = rows_of(tmp_path)
    assert len(rows) == 4
    assert {row["shard"] for row in (rows["000"], rows["001"])} == {"a.tar"}


def damaged(mp4: bytes) -> dict[str, bytes]:
    whole = tar_bytes([("a.mp4", mp4), ("b.mp4", mp4), ("c.mp4", mp4)])
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        second = archive.getmembers()[1].offset
    zeroed = bytearray(whole)
    zeroed[second : second + 512] = bytes(512)
    return {
        "cut": whole[: second + 700],
        "boundary": whole[:second],
        "zeroed": bytes(zeroed),
        "interleaved": tar_bytes([("a.mp4", mp4), ("b.mp4", mp4), ("a.txt", b"x")]),
        "duplicated": tar_bytes([("a.mp4", mp4), ("a.mp4", mp4)]),
        "html": b"<html>no such page</html>" * 100,
        "void": b"",
    }


@pytest.mark.ray
def test_damaged_shards_are_all_named_and_refused_or_left_out(tmp_path, mp4, ray_cluster):
    bad = damaged(mp4)
    for name, data in bad.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
    (tmp_path / "good.tar").write_bytes(tar_bytes([("good.mp4", mp4)]))
    with pytest.raises(UserError, match="7 shards are damaged") as raised:
        run(PrepareJob(shards=str(tmp_path)))
    assert all(f"{name}.tar" in str(raised.value) for name in bad)
    assert not (tmp_path / "index.parquet").exists()
    line = run(PrepareJob(shards=str(tmp_path), damaged_shards="quarantine"))
    assert line.startswith("1 clips in 1 shards, 1 without caption, 7 quarantined")
    assert list(rows_of(tmp_path)) == ["good"]
    reasons = {row["video"]: row["reason"] for row in pq.read_table(tmp_path / "quarantine.parquet").to_pylist()}
    assert "interleaved" in reasons["interleaved.tar"]
    assert "duplicated" in reasons["duplicated.tar"]
    for name in ("cut", "boundary", "zeroed", "html", "void"):
        assert "truncated or damaged" in reasons[f"{name}.tar"]


@pytest.mark.ray
def test_folders_without_shards_are_named(tmp_path, ray_cluster):
    with pytest.raises(UserError, match="the folder has no shards"):
        run(PrepareJob(shards=str(tmp_path)))


@pytest.mark.parametrize("key", ["a b", "ü", "x" * 200, "dir/a", "../a", "a'b\"c", "\x01"])
def test_odd_keys_become_legal_clip_ids(key):
    clip_id = clip_id_of(key)
    assert re.fullmatch(CLIP_ID_PATTERN, clip_id)
    assert clip_id == clip_id_of(key) != "a"


def test_legal_keys_stay():
    assert clip_id_of("video7010") == clip_id_of("./video7010") == "video7010"


@pytest.mark.parametrize(
    ("texts", "captions"),
    [
        ({"txt": b" hi \n"}, ["hi"]),
        ({"txt": b"  "}, []),
        ({"json": b'{"text": "hi"}'}, ["hi"]),
        ({"txt": b"hi", "json": b'{"caption": "hi", "text": "there"}'}, ["hi", "there"]),
        ({"json": b'{"captions": [{"text": "hi"}, "there"]}'}, ["hi", "there"]),
        ({"json": b"{}"}, []),
        ({}, []),
    ],
)
def test_captions_of_foreign_samples(texts, captions):
    clip = clip_of(Sample("k", texts=texts), 2.0, default_split="train", source="asr")
    assert clip.captions == tuple(Caption(text, "asr") for text in captions)
    assert (clip.start_s, clip.end_s, clip.split) == (0.0, 2.0, "train")


@pytest.mark.parametrize("texts", [{"txt": b"\xff\xfe"}, {"json": b"{"}, {"json": b"[1]"}, {"json": b'{"caption": 3}'}])
def test_unreadable_annotations_of_a_foreign_sample_are_refused(texts):
    with pytest.raises(ValueError, match=r"annotations|caption"):
        clip_of(Sample("k", texts=texts), 2.0, default_split=None, source="human")
