"""Foreign shards in any number: what is noted of each is read again, in the form of an earlier version, too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mama_ray.orchestration.prepare.foreign import ForeignShard, list_shards
from mama_ray.orchestration.prepare.inputs import inputs_of, start_work, state_of
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.plan import make_plan
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_JSON_BYTES
from tests.data.shard_factory import tar_bytes
from tests.orchestration.prepare.in_process import DONE, index_rows, prepare, run_tasks

MANY = [ForeignShard(f"{'x' * 900}-{number:06d}.tar", 10240, number) for number in range(40_000)]


@pytest.fixture
def shards(tmp_path, mp4) -> Path:
    """One with two clips, and one in which nothing is of use."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.tar").write_bytes(tar_bytes([("a.mp4", mp4), ("b.mp4", mp4)]))
    (tmp_path / "out/none.tar").write_bytes(tar_bytes([("c.mp4", b"no video")]))
    return tmp_path / "out"


def noted(folder: Path) -> dict:
    return json.loads((folder / "prepare.json").read_text())["inputs"]["shards"]


def note_all(folder: Path, more: list[ForeignShard]) -> None:
    """Write prepare.json as the earlier version did, with all shards."""
    summary = json.loads((folder / "prepare.json").read_text())
    found = [*list_shards(str(folder)), *more]
    summary["inputs"]["shards"] = {shard.name: [shard.num_bytes, shard.modified_ns] for shard in found}
    (folder / "prepare.json").write_text(json.dumps(summary, indent=1))


def test_the_summary_lists_the_shards_alone_that_the_index_does_not(shards, mp4):
    given = {"shards": str(shards)}
    assert prepare(**given).startswith("2 clips in 1 shards, 2 without caption, 1 quarantined")
    (refused,) = [shard for shard in list_shards(str(shards)) if shard.name == "none.tar"]
    assert noted(shards) == {"none.tar": [refused.num_bytes, refused.modified_ns]}
    assert prepare(**given) == DONE
    (shards / "none.tar").write_bytes(tar_bytes([("c.mp4", mp4)]))
    assert prepare(**given).startswith("3 clips in 2 shards, 3 without caption: index")
    assert noted(shards) == {}
    assert prepare(**given) == DONE


def test_a_summary_of_an_earlier_version_is_read_however_long(shards, mp4):
    given = {"shards": str(shards)}
    prepare(**given)
    note_all(shards, MANY)
    assert (shards / "prepare.json").stat().st_size > MAX_JSON_BYTES
    assert prepare(**given) == DONE
    (shards / "late.tar").write_bytes(tar_bytes([("d.mp4", mp4)]))
    assert prepare(**given).startswith("3 clips in 2 shards, 3 without caption, 1 quarantined")
    assert list(noted(shards)) == ["none.tar"]


def test_a_prepare_that_an_earlier_version_began_goes_on(shards):
    job = PrepareJob(shards=str(shards))
    plan = make_plan(job)
    assert plan is not None
    run_tasks(job, replace(plan, names=plan.names[:1], shards=plan.shards[:1]))
    work = shards / ".prepare"
    begun = json.loads((work / "inputs.json").read_text())
    listed = [json.loads(line) for line in (work / "shards.jsonl").read_text().splitlines()]
    (work / "shards.jsonl").unlink()
    (work / "inputs.json").write_text(json.dumps(begun | {"shards": {name: size for name, *size in listed}}))
    assert prepare(shards=str(shards)).startswith("2 clips in 1 shards")
    assert len(index_rows(shards.parent)) == 2


def test_work_on_any_number_of_shards_is_known_again(tmp_path):
    folder = Place.of(tmp_path)
    inputs = inputs_of({"x": 1}, MANY, None, None)
    start_work(folder, inputs, mends=True)
    assert state_of(folder, inputs, foreign=True) == "mending"
