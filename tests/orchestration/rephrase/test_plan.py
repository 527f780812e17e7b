"""Captions of a large corpus stay in the index: the same texts, told by the same hash, as from a table."""

import pytest

from mama_ray.captioning.quality import QualityConfig
from mama_ray.data.index_rows import IndexRows
from mama_ray.errors import UserError
from mama_ray.orchestration.rephrase.job import RephraseJob
from mama_ray.orchestration.rephrase.plan import _load_texts, with_texts
from tests.data.shard_factory import write_dataset
from tests.data.test_index_rows import with_groups_of

load = _load_texts._function  # what the remote task runs


@pytest.mark.parametrize("split", [None, "train"])
def test_texts_of_rows_that_are_read_are_those_of_the_table(tmp_path, split):
    write_dataset(tmp_path, [9, 1, 14], ("train", "val", "train"))
    with_groups_of(tmp_path, 7)
    for shard in tmp_path.glob("*.tar"):  # nobody looks at them
        shard.unlink()
    table, facts = load(str(tmp_path), split, 1000)
    rows, same_facts = load(str(tmp_path), split, 3)
    assert isinstance(rows, IndexRows)
    assert facts == same_facts
    assert facts[:2] == ((24, 24) if split is None else (16, 16))
    assert with_texts(rows.read()) == with_texts(table)
    numbers = [number for number in range(24) if split is None or number % 3 != 1]
    assert [row["texts"] for row in with_texts(rows.slice(2, 5))] == [[f"text {number}"] for number in numbers[2:7]]


def test_a_split_without_human_captions_is_told(tmp_path):
    write_dataset(tmp_path, [3])
    with pytest.raises(UserError, match="no human captions.*0 clips of split val with no captions"):
        load(str(tmp_path), "val", 1000)


def test_a_line_for_similarities_which_nobody_measures_is_refused():
    with pytest.raises(ValueError, match="quality.min_similarity has no use here"):
        RephraseJob(model="t5", quality=QualityConfig(min_similarity=0.2))
