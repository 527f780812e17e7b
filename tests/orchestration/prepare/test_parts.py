"""A part is there whole, or it is not there; a storage that fails is neither."""

from pathlib import Path

import pytest

from mama_ray.data.index import index_row
from mama_ray.data.shard import MemberLocation, write_shard
from mama_ray.orchestration.prepare.parts import Part, part_place, read_part_facts, write_part
from mama_ray.storage.places import Place
from tests.data.shard_factory import FACTS, fake_clip


@pytest.fixture
def folder(tmp_path) -> Place:
    """An output with one finished part."""
    (clip, video, extension) = fake_clip(0)
    (location,) = write_shard(tmp_path / "clips-000000.tar", [(clip, video, extension)])
    num_bytes = (tmp_path / "clips-000000.tar").stat().st_size
    part = Part(shards={"clips-000000.tar": {"num_bytes": num_bytes, "num_clips": 1}})
    part.take(index_row(clip, location, "clips-000000.tar", FACTS))
    part.refuse("no such video file", video="caf\udce9.mp4", start_s=0.0)
    part_place(Place.of(tmp_path), "000000").parent.make_folder()
    write_part(Place.of(tmp_path), "000000", part)
    return Place.of(tmp_path)


def test_a_whole_part_is_read_back(folder):
    facts = read_part_facts(folder, "000000")
    assert (facts["num_clips"], facts["num_uncaptioned"], facts["splits"]) == (1, 0, {"train": 1})
    assert facts["quarantine"][0]["video"] == "caf\\udce9.mp4"
    assert read_part_facts(folder, "000001") is None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:200], lambda data: b"", lambda data: data[:-30] + b"x" * 26 + data[-4:]]
)
def test_a_damaged_part_is_made_again(folder, damage):
    path = Path(part_place(folder, "000000").path)
    path.write_bytes(damage(path.read_bytes()))
    assert read_part_facts(folder, "000000") is None


def test_a_part_whose_shard_is_not_whole_is_made_again(folder):
    shard = Path(folder.path) / "clips-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    assert read_part_facts(folder, "000000") is None


def test_a_storage_that_fails_is_no_damage(folder, monkeypatch):
    path = Path(part_place(folder, "000000").path)
    path.unlink()
    path.symlink_to(path)  # too many levels of links: a disk's error that is neither "not found" nor a broken file
    monkeypatch.setattr("mama_ray.storage.retries.time.sleep", lambda seconds: None)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        read_part_facts(folder, "000000")


def test_a_row_that_the_index_cannot_hold_is_refused_alone():
    part = Part()
    row = index_row(fake_clip(0)[0], MemberLocation("clip-0000", "mp4", 512, 100, "0" * 64), "a.tar", FACTS)
    for change in ({"topic": 3}, {"width": 2**40}, {"video_id": "\ud800"}, {"captions": "text"}):
        with pytest.raises(ValueError, match="the index cannot hold a value"):
            part.take({**row, **change})
    part.take(row)
    assert part.rows == [row]
