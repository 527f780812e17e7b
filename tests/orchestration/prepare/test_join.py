"""Ids of several shards: the first keeps its own, whatever the number of parts, and made ids take nobody else's."""

import pyarrow as pa
import pytest

from mama_ray.data.clip import make_clip_id
from mama_ray.data.index import INDEX_SCHEMA, read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.chunks import write_chunks
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.join import _write_index
from mama_ray.orchestration.prepare.parts import MAX_PARTS, Part, part_name, write_part
from mama_ray.orchestration.prepare.plan import video_work
from mama_ray.storage.places import Place
from tests.orchestration.prepare.in_process import options


def write_parts(folder: Place, ids_of_shards: list[list[str]]) -> tuple[list[str], dict]:
    sizes = {}
    for number, ids in enumerate(ids_of_shards):
        shard = f"clips-{number:06d}.tar"
        sizes[shard] = {"num_bytes": 1024, "num_clips": len(ids)}
        empty = dict.fromkeys(INDEX_SCHEMA.names)
        part = Part()
        part.rows = [
            {**empty, "clip_id": name, "shard": shard, "offset": place, "num_bytes": 1, "captions": []}
            for place, name in enumerate(ids)
        ]
        write_part(folder, part_name(number), part)
    return [part_name(number) for number in range(len(ids_of_shards))], sizes


def renamed_one_by_one(ids_of_shards: list[list[str]]) -> list[str]:
    """The rule in one set of all ids."""
    taken: set[str] = set()
    found = []
    for number, ids in enumerate(ids_of_shards):
        for own in ids:
            name = own
            while name in taken:
                name = make_clip_id(f"clips-{number:06d}.tar/{name}", 0, None)
            taken.add(name)
            found.append(name)
    return found


FIRST_MADE = make_clip_id("clips-000001.tar/a", 0, None)


@pytest.mark.parametrize(
    "ids_of_shards",
    [
        [["a", "b"], ["c"]],
        [["a", "b"], ["a", "c"], ["a", "b"]],
        [["a"], ["a"], [FIRST_MADE]],  # an id of a later shard is the one that is made for an earlier one
        [["a", FIRST_MADE], ["a"]],
        [["a", "a"], ["a", "a"]],
    ],
)
def test_ids_are_those_of_the_rule(tmp_path, ids_of_shards):
    folder = Place.of(tmp_path)
    names, sizes = write_parts(folder, ids_of_shards)
    _write_index(folder, names, sizes, None)
    found = read_index(folder)["clip_id"].to_pylist()
    assert found == renamed_one_by_one(ids_of_shards)
    assert len(set(found)) == len(found)
    assert read_index(folder).schema.field("clip_id").type == pa.large_string()


def test_more_shards_than_names_in_order_are_refused_before_one_is_made(folder):
    work = video_work(PrepareJob(**options(folder)))
    assert sorted([part_name(MAX_PARTS - 1), part_name(9)]) == ["000009", "999999"]
    with pytest.raises(UserError, match="too many shards for one output: wanted 1000000 at most; set a larger clips_"):
        write_chunks(work, first=MAX_PARTS - 1)
    assert list((folder / "out").glob("*.tar")) == []
