"""Shards that are spread over folders: the same clips in the same way, one prefix of a storage for none of it."""

import json

import pyarrow.parquet as pq
import pytest

from mama_ray.data.index import read_index
from mama_ray.data.reading import read_clip_bytes
from mama_ray.data.shard import shard_folder
from mama_ray.data.shard_check import check_shards
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import make_plan
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import Place
from tests.orchestration.prepare.in_process import DONE, index_rows, options, prepare, run_tasks

ROWS = [{"video": f"{name}.mp4", "clip_id": f"{name}{number}"} for number in range(5) for name in "abcde"]
PLACES = ("shard", "offset")


def plain(rows: list[dict]) -> dict[str, dict]:
    """Rows by clip, without where their bytes lie."""
    return {row["clip_id"]: {name: row[name] for name in row if name not in PLACES} for row in rows}


def test_folders_are_even_and_the_same_in_every_run():
    folders = [shard_folder(number, 256) for number in range(20_000)]
    counts = [folders.count(name) for name in set(folders)]
    assert len(counts) == 256 and 40 < min(counts) <= max(counts) < 120
    assert folders[:3] == ["075/", "076/", "06c/"] and shard_folder(7, 0) == ""


def test_the_clips_are_those_of_shards_side_by_side(folder):
    prepare(**options(folder, ROWS, output=str(folder / "flat")))
    assert prepare(**options(folder, ROWS, shard_folders=4)).startswith("25 clips in 13 shards")
    spread = Place.of(folder / "out")
    index = read_index(spread)  # sorted, or it would be refused
    check_shards(spread, index)
    assert plain(index.to_pylist()) == plain(read_index(Place.of(folder / "flat")).to_pylist())
    names = set(index["shard"].to_pylist())
    assert names == {f"{shard_folder(number, 4)}clips-{number:06d}.tar" for number in range(13)}
    assert len({name[:4] for name in names}) == 4 and not list((folder / "out").glob("*.tar"))
    for row in index.to_pylist():
        read_clip_bytes(spread, row["shard"], row["offset"], row["num_bytes"], sha256=row["sha256"])
    assert prepare(**options(folder, ROWS, shard_folders=4)) == DONE
    with pytest.raises(UserError, match="other inputs"):
        prepare(**options(folder, ROWS, shard_folders=8))


def test_what_a_killed_job_was_writing_is_removed_and_its_shards_are_kept(folder):
    job = PrepareJob(**options(folder, ROWS, shard_folders=4))
    run_tasks(job, make_plan(job))
    name = f"{shard_folder(3, 4)}clips-000003.tar"
    left = folder / "out" / f"{name}.0123abcd.tmp"
    left.write_bytes(b"half")
    times = {path.name: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.tar")}
    prepare(**options(folder, ROWS, shard_folders=4))
    assert not left.exists() and len(index_rows(folder)) == 25
    assert times == {path.name: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.tar")}


def test_videos_that_come_later_get_shards_of_new_numbers(folder, mp4):
    prepare(**options(folder, shard_folders=4))
    for name in "xyz":
        (folder / f"videos/{name}.mp4").write_bytes(mp4)
    prepare(**options(folder, shard_folders=4))
    names = {row["video_id"]: row["shard"] for row in index_rows(folder)}
    assert {names["x"], names["z"]} == {f"{shard_folder(number, 4)}clips-{number:06d}.tar" for number in (3, 4)}
    assert len(names) == 8
    assert json.loads((folder / "out/prepare.json").read_text())["num_shards"] == 5


def test_spread_shards_are_indexed_anew_as_they_were(folder):
    prepare(**options(folder, ROWS, shard_folders=4))
    wanted = index_rows(folder)
    for name in ("index.parquet", "prepare.json"):
        (folder / "out" / name).unlink()
    prepare(shards=str(folder / "out"))
    assert index_rows(folder) == wanted
    assert pq.read_table(folder / "out/quarantine.parquet").num_rows == 0


def test_shards_that_are_there_cannot_be_spread(folder):
    with pytest.raises(UserError, match="--shard_folders is for shards that are written"):
        run(PrepareJob(shards=str(folder), shard_folders=4))
