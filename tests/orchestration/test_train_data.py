"""The meta-set: drawn evenly over topics, taken out of train, disjoint from val and test."""

from collections import Counter

import pyarrow as pa
import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.train_data import draw_meta_set, refuse_meta_overlap


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
