"""Clips of a large corpus get the captions of tables, lose what is excluded and give up a meta-set as a table's do."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from mama_ray.auditing.exclusions import Exclusion, caption_id, exclusions_to_csv
from mama_ray.captioning import large_join
from mama_ray.data import row_facts
from mama_ray.data.index import CAPTIONS_TYPE, INDEX_NAME, clips_per_shard
from mama_ray.data.index_rows import IndexRows
from mama_ray.data.plan import PlanConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.row_server import served_rows
from mama_ray.orchestration.training import clip_choice
from mama_ray.orchestration.training.clip_choice import draw_by_topic
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.orchestration.training.data import COLUMNS, _load, truth_kinds
from mama_ray.orchestration.training.settings import DataConfig
from tests.data.shard_factory import write_dataset
from tests.data.test_index_rows import with_groups_of
from tests.orchestration.captioning.caption_tables import captions_of, write_table

SPLITS = ("train", "train", "val", "train", "meta", "train", "test")
SHARES = {"human": 0.5, "generated": 0.3, "rephrased": 0.2}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(large_join, "_CLIPS_PER_RANGE", 16)
    monkeypatch.setattr(large_join, "_CAPTIONS_PER_RANGE", 8)
    monkeypatch.setattr(row_facts, "_ROWS_AT_ONCE", 16)
    monkeypatch.setattr(clip_choice, "_CLIPS_AT_ONCE", 11)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, str]:
    """Shards with topics, truths, and clips with several captions and none; tables of captions; a list to exclude."""
    folder = tmp_path_factory.mktemp("corpus")
    write_dataset(folder / "shards", [30, 1, 44, 6, 50], SPLITS)
    index = pq.read_table(folder / "shards" / INDEX_NAME)
    texts = [
        [{"text": f"text {row}", "source": "human"}] * (row % 5 > 0)
        + [{"text": "more", "source": "asr"}] * (row % 3 == 0)
        for row in range(len(index))
    ]
    truths = [
        json.dumps({"kind": ("wrong", "swapped")[row // 4 % 2]}) if row % 4 == 0 else None for row in range(len(index))
    ]
    topics = [
        (None, "", "cooking", "sports", "rare" if row % 11 == 0 else "cooking")[row % 5] for row in range(len(index))
    ]
    for name, values in (("captions", pa.array(texts, CAPTIONS_TYPE)), ("truth", truths), ("topic", topics)):
        column = pa.array(values) if isinstance(values, list) else values
        index = index.set_column(index.column_names.index(name), index.schema.field(name), column)
    pq.write_table(index, folder / "shards" / INDEX_NAME)
    with_groups_of(folder / "shards", 7)
    shards = str(folder / "shards")
    rng = np.random.default_rng(0)
    rows = captions_of(shards, "train", "meta", "val")
    for number, row in enumerate(rows):
        row |= {"caption": None, "error": "bad"} if number % 13 == 0 else {}
        row |= {"flags": ["too_long"]} if number % 7 == 0 else {}
    first = write_table(folder / "first", rows)
    again = captions_of(shards, "train", "meta", "test", text="another of {}")
    mixed = [again[place] | {"source": "rephrased"} for place in rng.permutation(len(again))]
    second = write_table(folder / "second", mixed)
    ids = index["clip_id"].to_pylist()
    listed = [Exclusion(ids[row]) for row in (0, 3, 4, 11, 60)]
    listed += [Exclusion(ids[row], caption_id(f"text {row}")) for row in (1, 7, 8, 18, 61)]
    listed += [Exclusion(ids[row], caption_id(f"another of {ids[row]}")) for row in (7, 18, 35)]
    (folder / "exclude.csv").write_text(exclusions_to_csv(listed))
    return {"shards": shards, "first": first, "second": second, "exclude": str(folder / "exclude.csv")}


CONFIGS = {
    "as they are": {},
    "drawn": {"meta_draw": 17},
    "shares": {"shares": {"human": 0.5, "asr": 0.5}},
    "excluded": {"exclude": "exclude"},
    "excluded and drawn": {"exclude": "exclude", "meta_draw": 9, "captions": {"human": 1.0}},
    "tables": {"caption_tables": ("first", "second")},
    "tables alone": {"caption_tables": ("second",), "captions": {"rephrased": 1.0}, "meta_draw": 12},
    "tables of all": {"caption_tables": ("first", "second"), "meta_captions": "all"},
    "everything": {"caption_tables": ("second", "first"), "exclude": "exclude", "meta_draw": 12, "shares": SHARES},
    "everything of all": {
        "caption_tables": ("first", "second"), "exclude": "exclude", "meta_draw": 12, "shares": SHARES,
        "meta_captions": "all", "exclude_flags": (),
    },
}  # fmt: skip


def config_of(corpus: dict[str, str], name: str) -> DataConfig:
    given = dict(CONFIGS[name])
    given["caption_tables"] = tuple(corpus[table] for table in given.get("caption_tables", ()))
    given["exclude"] = corpus[given["exclude"]] if "exclude" in given else None
    return DataConfig(vocab_size=514, **given)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_told_of_clips_that_are_read_is_what_is_told_of_their_table(corpus, tmp_path, name):
    config = config_of(corpus, name)
    table, *others, files, none, held = _load._function(corpus["shards"], config, 3, None)
    rows, *same, same_files, facts, summary = _load._function(
        corpus["shards"], config, 3, None, max_held=20, work=str(tmp_path)
    )
    assert (held.pop("is_served"), summary.pop("is_served"), none) == (False, True, None)
    assert isinstance(rows, IndexRows)
    assert rows.read().to_pylist() == table.to_pylist()
    assert [other.to_pylist() for other in same] == [other.to_pylist() for other in others]
    assert (summary, same_files) == (held, files)
    assert facts.clips_per_shard.tolist() == clips_per_shard(table)
    every = np.arange(len(table))
    assert facts.kinds.of(every).tolist() == truth_kinds(table).of(every).tolist()
    assert set(facts.kinds.of(every)) == {"clean", "wrong", "swapped"}


@pytest.mark.parametrize("topics", [[0, 0, 1, 2, 2, 2, 2, 0, 2], [0] * 30, list(range(20)), [3, 3, 0, 0, 0] * 9])
@pytest.mark.parametrize("num_clips", [1, 4, 8])
def test_a_draw_in_pieces_takes_turns_of_the_topics(topics, num_clips):
    order = np.random.default_rng(np.random.SeedSequence([5, 0x6D657461])).permutation(len(topics)).tolist()
    turns = [sum(topics[earlier] == topics[place] for earlier in order[:number]) for number, place in enumerate(order)]
    wanted = [place for _, _, place in sorted(zip(turns, range(len(order)), order, strict=True))][:num_clips]
    assert draw_by_topic(np.array(topics), num_clips, seed=5).tolist() == sorted(wanted)


def test_what_no_clip_has_is_told_of_rows_as_well(corpus, tmp_path):
    config = DataConfig(vocab_size=514, shares={"generated": 1.0})
    with pytest.raises(UserError, match="no training clips"):
        _load._function(corpus["shards"], config, 0, None, max_held=20)
    (tmp_path / "list.csv").write_text("clip_id\nof-another-corpus\n")
    config = DataConfig(vocab_size=514, exclude=str(tmp_path / "list.csv"))
    with pytest.raises(UserError, match="names no clip"):
        _load._function(corpus["shards"], config, 0, None, max_held=20, work=str(tmp_path))


def test_clips_with_other_captions_are_in_memory_where_there_is_no_folder_for_them(corpus):
    *_, summary = _load._function(corpus["shards"], config_of(corpus, "tables"), 0, None, max_held=20)
    assert not summary["is_served"]


@pytest.mark.ray
def test_batches_with_shares_of_sources_are_those_of_the_table(ray_cluster, corpus, tmp_path):
    config, readers = config_of(corpus, "everything"), []
    for max_held in (20, 1000):
        work = str(Path(tmp_path, str(max_held)))
        train, _, _, files, facts, _ = _load._function(corpus["shards"], config, 3, None, max_held=max_held, work=work)
        table = ray.put(train)
        if max_held == 20:
            table = served_rows(table, len(train), COLUMNS, facts=ray.put(facts))
        readers.append(
            ClipReader(
                table=table, shards=corpus["shards"], tokenizer_files=ray.put(files), num_frames=2,
                transform=TransformConfig(image_size=16), decode=config.decode, caption_probabilities=None,
                joins_captions=False, seed=3, plan=PlanConfig(seed=3, window_shards=2),
                shares=tuple(sorted(SHARES.items())),
            )
        )  # fmt: skip
    served, held = readers
    for step in range(8):
        samples, epochs = served.epoch_plan().global_batch(step, 16)
        assert np.array_equal(samples, held.epoch_plan().global_batch(step, 16)[0])
        ours, theirs = (reader.assembler().assemble(samples, epochs) for reader in readers)
        for name in theirs:
            assert np.array_equal(ours[name], theirs[name]), name
