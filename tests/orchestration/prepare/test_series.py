"""A chunk of large clips takes several shards, none larger than what a storage can copy."""

import json

import pytest

from mama_ray.data.index import read_index
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import MAX_SHARD_BYTES, scan_shard
from mama_ray.data.shard_check import check_shards
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.orchestration.prepare.chunks import write_chunks
from mama_ray.orchestration.prepare.inputs import start_work
from mama_ray.orchestration.prepare.join import join_parts
from mama_ray.orchestration.prepare.parts import part_place
from mama_ray.orchestration.prepare.series import ShardSeries
from mama_ray.orchestration.prepare.videos import VideoWork, write_chunk_shard
from mama_ray.storage.places import Place
from tests.data.shard_factory import fake_clip
from tests.data.video.video_factory import make_video


def write_series(folder: Place, numbers, *, max_bytes: int) -> dict[str, dict[str, int]]:
    series = ShardSeries(folder, "clips-000003", max_bytes=max_bytes)
    with series:
        for number in numbers:
            series.add(*fake_clip(number))
    return series.finish()


def test_the_limit_leaves_room_below_what_s3_copies():
    assert MAX_SHARD_BYTES < 5 << 30


def test_a_shard_closes_before_the_clip_that_would_pass_the_limit(tmp_path):
    shards = write_series(Place.of(tmp_path), range(20), max_bytes=12_000)
    assert (
        list(shards)
        == sorted(shards)
        == ["clips-000003.tar", *(f"clips-000003_{n:04d}.tar" for n in range(1, len(shards)))]
    )
    assert len(shards) > 3
    found = []
    for name, size in shards.items():
        path = tmp_path / name
        assert path.stat().st_size == size["num_bytes"] <= 12_000 + 10_240  # tar fills up its last record
        with path.open("rb") as stream:
            found += [sample.video_bytes for sample in scan_shard(stream)]
    assert found == [fake_clip(number)[1] for number in range(20)]
    assert sum(size["num_clips"] for size in shards.values()) == 20


def test_names_sort_between_those_of_the_neighbouring_chunks(tmp_path):
    names = ["clips-000002.tar", *write_series(Place.of(tmp_path), range(120), max_bytes=1), "clips-000004.tar"]
    assert len(names) == 122 and names == sorted(names)


def test_without_a_limit_in_sight_it_is_one_shard_and_without_clips_none(tmp_path):
    for name in ("one", "none"):
        (tmp_path / name).mkdir()
    assert list(write_series(Place.of(tmp_path / "one"), range(5), max_bytes=1 << 30)) == ["clips-000003.tar"]
    assert write_series(Place.of(tmp_path / "none"), [], max_bytes=1 << 30) == {}
    assert list((tmp_path / "none").iterdir()) == []


def test_what_fails_leaves_no_half_shard(tmp_path):
    def fail() -> None:
        with ShardSeries(Place.of(tmp_path), "clips-000000", max_bytes=1) as series:
            series.add(*fake_clip(0))
            series.add(*fake_clip(1))
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["clips-000000.tar"]  # the first one was whole


def test_prepare_indexes_all_shards_of_a_chunk_and_makes_lost_ones_again(tmp_path):
    (tmp_path / "videos").mkdir()
    video = make_video(num_frames=8, width=48, height=48, fps=4)
    for number in range(6):
        (tmp_path / f"videos/v{number}.mp4").write_bytes(video)
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"video": f"v{n}.mp4", "caption": f"text {n}"}) + "\n" for n in range(6))
    )
    output = Place.of(tmp_path / "out")
    output.make_folder()
    places = (str(tmp_path / "videos"), str(tmp_path / "a.jsonl"), output.uri)
    work = VideoWork(*places, 4, "clips", "train", "refuse", 1, DecodeConfig(), max_shard_bytes=2 * len(video) + 4_000)
    start_work(output, {"sha256": "", "from": "a test"})
    assert write_chunks(work) == range(2)
    for _ in range(2):
        assert [write_chunk_shard(work, number) for number in range(2)] == [(4, 0), (2, 0)]
        tars = [file.name for file in output.files() if file.name.endswith(".tar")]
        assert tars == ["clips-000000.tar", "clips-000000_0001.tar", "clips-000001.tar"]
        (output / "clips-000000_0001.tar").delete_file()
        assert part_place(output, "000000").exists()
    write_chunk_shard(work, 0)
    assert join_parts(output.uri, ["000000", "000001"], damaged_shards_are_refused=True, max_quarantined=0).startswith(
        "6 clips in 3 shards"
    )
    table = read_index(output)
    check_shards(output, table)
    assert read_payloads(output, table.to_pylist()) == [video] * 6


def test_a_fault_of_the_output_is_no_fact_about_a_clip(tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/v0.mp4").write_bytes(make_video(num_frames=8, width=48, height=48, fps=4))
    (tmp_path / "a.jsonl").write_text(json.dumps({"video": "v0.mp4", "caption": "text"}) + "\n")
    output = Place.of(tmp_path / "out")
    output.make_folder()
    places = (str(tmp_path / "videos"), str(tmp_path / "a.jsonl"), output.uri)
    work = VideoWork(*places, 4, "clips", "train", "refuse", 1, DecodeConfig())
    start_work(output, {"sha256": "", "from": "a test"})
    write_chunks(work)

    def add(*clip) -> None:
        raise FileNotFoundError("the bucket is gone")

    monkeypatch.setattr(ShardSeries, "add", add)
    with pytest.raises(FileNotFoundError, match="the bucket is gone"):
        write_chunk_shard(work, 0)
    assert not part_place(output, "000000").exists()
