"""Clips of a large corpus stay in the index: the same clips, captions and parts as from a table."""

from collections.abc import Sequence

import pytest

from mama_ray.captioning import large_join
from mama_ray.data.index_rows import IndexRows
from mama_ray.orchestration.indexing.job import IndexJob
from mama_ray.orchestration.indexing.plan import _load_clips, _parts
from tests.data.shard_factory import write_dataset
from tests.data.test_index_rows import with_groups_of
from tests.orchestration.captioning.caption_tables import captions_of, write_table

load = _load_clips._function  # what the remote task runs


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("has_tables", [False, True])
def test_clips_that_are_read_are_those_of_the_table(tmp_path, monkeypatch, split, has_tables):
    monkeypatch.setattr(large_join, "_CLIPS_PER_RANGE", 8)
    shards = tmp_path / "shards"
    write_dataset(shards, [9, 1, 14], ("train", "val", "train"))
    with_groups_of(shards, 7)
    table_uri = write_table(tmp_path / "table", captions_of(str(shards), "train", "val")[::-1])
    captions = (table_uri,) if has_tables else ()
    job = IndexJob(
        shards=str(shards), model="m", output=str(tmp_path / "out"), split=split, captions=captions, part_clips=5
    )
    work = tmp_path / "work"
    table, parts = load(job, 1000, str(work))
    rows, same_parts = load(job, 3, str(work))
    assert isinstance(rows, IndexRows)
    assert rows.read().to_pylist() == table.to_pylist()
    assert parts == same_parts
    assert [part.name for part in parts][:2] == ["clips-000000-0000.parquet", "clips-000000-0001.parquet"]
    assert parts[-1].stop == len(table) == (24 if split is None else 16)
    assert all(len(own) == 1 + has_tables for own in rows.read()["captions"].to_pylist())
    assert work.exists() == has_tables


class Shards:
    """Rows of which nothing but their shards is known."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def shards(self) -> list[tuple[str, int]]:
        return [(name, 3) for name in self._names]


def test_shards_that_would_be_called_the_same_have_files_of_their_own():
    names = ["a--b.tar", "a/b.tar", "c", "c.tar", "d/e.tar", "f--g.tar"]
    found = [[part.name for part in _parts(Shards(order), 2)] for order in (names, names[::-1])]
    assert len(set(found[0])) == 12 and set(found[0]) == set(found[1])
    plain = {f"{name}-{number:04d}.parquet" for name in ("a--b", "c", "d--e", "f--g") for number in range(2)}
    assert plain < set(found[0]), "tables that are there go on"
    assert (
        [part.name for part in _parts(Shards(["a/b.tar"]), 2)]
        == found[0][2:4]
        == ["a--b-0000.parquet", "a--b-0001.parquet"]
    )


def test_a_flag_that_the_gate_does_not_know_is_refused():
    with pytest.raises(ValueError, match="exclude_flags"):
        IndexJob(shards="shards", model="m", captions=["table"], exclude_flags=["repeated"])
    with pytest.raises(ValueError, match="exclude_flags needs captions"):
        IndexJob(shards="shards", model="m", exclude_flags=["empty"])
