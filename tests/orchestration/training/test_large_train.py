"""Training clips that stay in the index: the same clips in the same order, told by the same hashes, as from a table."""

import numpy as np
import pytest
import ray

from mama_ray.data import contents
from mama_ray.data.contents import hash_clips, hash_ids_of
from mama_ray.data.index import clips_per_shard, hash_ids, read_index
from mama_ray.data.index_file import open_index
from mama_ray.data.index_rows import IndexRows
from mama_ray.data.plan import EpochPlan, PlanConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.orchestration.cluster.row_server import served_rows
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.orchestration.training.data import COLUMNS, _load, truth_kinds
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset
from tests.data.test_index_rows import with_groups_of

CONFIG = DataConfig(vocab_size=514, captions={"human": 1.0})


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("large")
    write_dataset(folder, [9, 1, 14, 6, 20], ("train", "train", "val", "train", "meta", "train", "test"))
    with_groups_of(folder, 7)
    return str(folder)


def test_what_is_told_of_rows_that_stay_is_what_is_told_of_their_table(shards):
    table, *others, files, _, held = _load._function(shards, CONFIG, 0, None)
    rows, *same_others, same_files, facts, summary = _load._function(shards, CONFIG, 0, None, max_held=3)
    assert (held.pop("is_served"), summary.pop("is_served")) == (False, True)
    assert isinstance(rows, IndexRows)
    assert rows.read().equals(table.replace_schema_metadata(None).combine_chunks())
    assert (summary, same_others, same_files) == (held, others, files)
    assert rows.clips_per_shard().tolist() == facts.clips_per_shard.tolist() == clips_per_shard(table)


def test_hashes_of_rows_are_those_of_their_table(shards, monkeypatch):
    monkeypatch.setattr(contents, "_IDS_AT_ONCE", 8)
    monkeypatch.setattr(contents, "_SAMPLED", 3)
    monkeypatch.setattr(contents, "_ROWS_AT_ONCE", 10)
    table = read_index(Place.of(shards))
    rows = IndexRows(open_index(Place.of(shards)), tuple(table.column_names))
    assert hash_ids_of(rows) == hash_ids(table["clip_id"].to_pylist())
    assert hash_clips({"train": rows}) == hash_clips({"train": table})


@pytest.mark.ray
def test_batches_of_rows_that_are_served_are_those_of_the_table(ray_cluster, shards):
    readers = []
    for max_held in (3, 1000):
        train, _, _, files, facts, _ = _load._function(shards, CONFIG, 0, None, max_held=max_held)
        table = ray.put(train)
        readers.append(
            ClipReader(
                table=served_rows(table, len(train), COLUMNS, facts=ray.put(facts)) if max_held == 3 else table,
                shards=shards,
                tokenizer_files=ray.put(files),
                num_frames=2,
                transform=TransformConfig(image_size=16),
                decode=CONFIG.decode,
                caption_probabilities=CONFIG.captions,
                joins_captions=False,
                seed=3,
                plan=PlanConfig(seed=3, window_shards=2),
            )
        )
    served, held = readers
    assert truth_kinds(ray.get(served.table)) is None
    counts = clips_per_shard(ray.get(held.table))
    for step in range(6):
        rows, epochs = served.epoch_plan().global_batch(step, 8)
        assert np.array_equal(rows, EpochPlan(counts, PlanConfig(seed=3, window_shards=2)).global_batch(step, 8)[0])
        ours, theirs = (reader.assembler().assemble(rows, epochs) for reader in readers)
        assert ours["token_ids"].shape[0] == 8
        for name in theirs:
            assert np.array_equal(ours[name], theirs[name]), name
