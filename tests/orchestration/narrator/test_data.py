"""A narrator's training clips of a large corpus stay in the index: the same clips and facts as from a table."""

import pytest

from mama_ray.config import with_overrides
from mama_ray.data.index import clips_per_shard
from mama_ray.data.index_rows import IndexRows
from mama_ray.errors import UserError
from mama_ray.orchestration.narrator.data import _load
from mama_ray.orchestration.narrator.job import NarratorJob
from tests.data.shard_factory import write_dataset
from tests.data.test_index_rows import with_groups_of

load = _load._function  # what the remote task runs


def test_clips_that_are_read_are_those_of_the_table(tmp_path):
    write_dataset(tmp_path, [9, 1, 14, 20], ("train", "val", "train"))
    with_groups_of(tmp_path, 7)
    job = with_overrides(NarratorJob(), {"shards": str(tmp_path), "data.captions": {"human": 1.0}})
    table, val, files, none, (*held, is_held) = load(job, None, 1000)
    rows, same_val, same_files, known, (*told, is_served) = load(job, None, 3)
    assert (none, is_held, is_served) == (None, False, True)
    assert isinstance(rows, IndexRows)
    assert rows.read().equals(table)
    assert len(table) == 29
    assert (same_val, same_files, told) == (val, files, held)
    assert known.clips_per_shard.tolist() == clips_per_shard(table)


def test_clips_without_a_caption_that_is_drawn_from_are_told(tmp_path):
    write_dataset(tmp_path, [5])
    job = with_overrides(NarratorJob(), {"shards": str(tmp_path), "data.captions": {"generated": 1.0}})
    with pytest.raises(UserError, match="no clips to learn from.*5 of split train"):
        load(job, None, 3)
