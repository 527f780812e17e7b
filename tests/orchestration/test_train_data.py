"""The meta-set: drawn evenly over topics, taken out of train, disjoint from val and test."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.errors import UserError
from mama_ray.orchestration.train_data import DataConfig, _load, draw_meta_set, refuse_meta_overlap


def table_of(ids: list[str], topics: list[str] | None = None, prefix: str = "") -> pa.Table:
    return pa.table(
        {
            "clip_id": ids,
            "video_id": [f"v{prefix}{name}" for name in ids],
            "sha256": [f"h{prefix}{name}" for name in ids],
            "topic": topics or ["t"] * len(ids),
        }
    )


def test_a_drawn_meta_set_is_balanced_over_topics_and_leaves_train():
    topics = ["common"] * 80 + ["rare"] * 15 + ["rarest"] * 5
    train = table_of([f"c{number}" for number in range(100)], topics)
    rest, meta = draw_meta_set(train, 24, seed=1)
    assert Counter(meta["topic"].to_pylist()) == {"common": 10, "rare": 9, "rarest": 5} or Counter(
        meta["topic"].to_pylist()
    ) == {"common": 9, "rare": 10, "rarest": 5}
    assert set(meta["clip_id"].to_pylist()).isdisjoint(rest["clip_id"].to_pylist())
    assert len(rest) + len(meta) == 100
    again = draw_meta_set(train, 24, seed=1)[1]
    assert again.equals(meta)
    assert not draw_meta_set(train, 24, seed=2)[1].equals(meta)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("column", ["clip_id", "video_id", "sha256"])
def test_meta_set_is_disjoint_from_val_and_test(split, column):
    tables = {
        "train": table_of(["a"]),
        "meta": table_of(["m1", "m2"]),
        "val": table_of(["x1"], prefix="val"),
        "test": table_of(["y1"], prefix="test"),
    }
    refuse_meta_overlap(tables)
    stolen = tables[split].set_column(
        tables[split].schema.get_field_index(column), column, [[tables["meta"][column][1].as_py()]]
    )
    with pytest.raises(UserError, match=f"overlaps {split} by {column}.*m2"):
        refuse_meta_overlap(tables | {split: stolen})


def write_splits(directory: Path, video_ids: dict[str, str]) -> str:
    """Write a corpus of one clip per split, cut out of the named video; returns its folder."""
    clips = [
        Clip(f"{split}0", video, 0.0, 1.0, (Caption(f"what {split} shows"),), topic="t", split=split)
        for split, video in video_ids.items()
    ]
    samples = [(clip, f"bytes of {clip.clip_id}".encode(), "mp4") for clip in clips]
    facts = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}
    places = write_shard(directory / "clips-000000.tar", samples)
    rows = [index_row(clip, place, "clips-000000.tar", facts) for clip, place in zip(clips, places, strict=True)]
    sizes = {"clips-000000.tar": {"num_bytes": (directory / "clips-000000.tar").stat().st_size, "num_clips": len(rows)}}
    write_index(pafs.LocalFileSystem(), str(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return str(directory)


def test_train_meta_and_val_are_the_splits_of_their_name_and_test_is_not_read(tmp_path):
    shards = write_splits(tmp_path, {split: f"video of {split}" for split in ("train", "meta", "val", "test")})
    load = _load._function  # what the remote task runs
    *tables, _, _ = load(shards, DataConfig(), 0, None)
    assert [table["clip_id"].to_pylist() for table in tables] == [["train0"], ["meta0"], ["val0"]]


@pytest.mark.parametrize("split", ["val", "test"])
def test_loading_refuses_a_meta_set_that_shares_a_video_with(split, tmp_path):
    videos = {name: f"video of {name}" for name in ("train", "meta", "val", "test")}
    shards = write_splits(tmp_path, videos | {split: videos["meta"]})
    with pytest.raises(UserError, match=f"overlaps {split} by video_id"):
        _load._function(shards, DataConfig(), 0, None)
