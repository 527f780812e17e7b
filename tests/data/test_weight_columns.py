"""Columns for a weight net: read from a table by clip, or told in one line why not; sources of drawn captions."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.assemble import text_of
from mama_ray.data.batch import WEIGHT_INPUTS
from mama_ray.data.index import CAPTIONS_TYPE
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.weight_columns import ColumnAssembler, DrawnSource, add_columns, columns_of_clips
from mama_ray.errors import UserError

CLIPS = pa.table({"clip_id": ["b", "a", "c"], "topic": ["sports", None, "news"]})
CATEGORIES = {"topic": ("news", "sports"), "domain": ("x",)}
ROWS = "clip_id,agreement,domain,unread\na,0.5,x,1\nb,-2,y,two\nc,1e-3,,3\nunused,7,x,4\n"


def columns_of(path, columns=("topic", "agreement", "domain")):
    categories = {name: CATEGORIES[name] for name in columns if name in CATEGORIES}
    return columns_of_clips(CLIPS, columns, categories, None if path is None else str(path))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_stand_beside_their_clips_whatever_the_order_of_the_table(tmp_path, kind):
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        path.write_text(ROWS)
    else:
        table = {"clip_id": ["a", "b", "c"], "agreement": [0.5, -2, 1e-3], "domain": ["x", "y", None]}
        pq.write_table(pa.table(table), path)
    found, drawn, digest = columns_of(path)
    expected = np.array([[1, -2, np.nan], [np.nan, 0.5, 0], [0, 1e-3, np.nan]], np.float32)
    np.testing.assert_array_equal(found, expected)
    assert drawn is None and len(digest) == 64
    clips = add_columns(CLIPS, found)
    np.testing.assert_array_equal(np.stack(clips.take([2, 0])[WEIGHT_INPUTS].to_pylist()), expected[[2, 0]])


def test_the_hash_is_that_of_what_the_clips_have_of_the_table(tmp_path):
    first, other, same = (tmp_path / f"{name}.csv" for name in ("first", "other", "same"))
    first.write_text(ROWS)
    other.write_text(ROWS.replace("-2", "-3"))
    same.write_text(ROWS.replace("unused,7", "unused,8"))
    hashes = [columns_of(path)[2] for path in (first, other, same)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_topic_of_the_table_comes_before_that_of_the_index(tmp_path):
    (tmp_path / "own.csv").write_text("clip_id,topic\na,news\nb,news\nc,else\n")
    found, _, _ = columns_of(tmp_path / "own.csv", ("topic",))
    np.testing.assert_array_equal(found[:, 0], np.array([0, 0, np.nan], np.float32))
    np.testing.assert_array_equal(columns_of(None, ("topic",))[0][:, 0], np.array([1, np.nan, 0], np.float32))


def test_declared_values_that_no_clip_has_are_told_once(tmp_path, caplog):
    (tmp_path / "table.csv").write_text(ROWS)
    columns_of(tmp_path / "table.csv")
    assert not caplog.records
    captions = pa.array([[{"text": "h", "source": "human"}], [], []], CAPTIONS_TYPE)
    categories = {"topic": ("news", "sprots"), "domain": ("x", "z"), "source": ("human", "asr")}
    clips = CLIPS.append_column("captions", captions)
    columns_of_clips(clips, list(categories), categories, str(tmp_path / "table.csv"))
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"weighting.categories: 1 of 2 values of {name} are no training clip's: {value}"
        for name, value in {"topic": "sprots", "domain": "z", "source": "asr"}.items()
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("clip_id,domain\na,x\nb,y\nc,x\n", "has no column agreement.*'clip_id', 'domain'.*wanted"),
        ("clip_id,agreement,domain\na,1,x\nb,2,x\n", "lacks training clips.*1 in .*among them c"),
        ("clip_id,agreement,domain\na,1,x\nb,,x\nc,3,x\n", "no number agreement of clips.*among them b.*finite"),
        ("clip_id,agreement,domain\na,1,x\nb,inf,x\nc,nan,x\n", "no number agreement of clips.*2 in .*among them b, c"),
        ("clip_id,agreement,domain\na,1,x\nb,two,x\nc,3,x\n", "cannot be read.*two.*wanted.*numbers in agreement"),
        ("clip_id,agreement,domain\na,1,x\nb,2,x\nc,3,x\na,4,x\n", "clips more than once.*among them a"),
    ],
)
def test_a_table_that_lacks_something_is_refused_in_one_line(tmp_path, content, told):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(UserError, match=told) as caught:
        columns_of(tmp_path / "table.csv")
    assert "\n" not in str(caught.value)


def test_no_table_and_another_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no table of weighting\.features"):
        columns_of(tmp_path / "none.csv")
    (tmp_path / "other.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        columns_of(tmp_path / "other.parquet")


class Rows:
    """Makes arrays of clips without any video."""

    def assemble(self, rows, epochs=None):
        return {"rows": np.asarray(rows)}


def test_the_source_is_that_of_the_very_caption_that_the_epoch_draws():
    captions = [
        [{"text": "h", "source": "human"}, {"text": "g", "source": "generated"}, {"text": "r", "source": "rephrased"}],
        [{"text": "h", "source": "human"}],
        [],
    ]
    columns = np.array([[7, np.nan], [8, np.nan], [9, np.nan]], np.float32)
    table = add_columns(pa.table({"captions": pa.array(captions, CAPTIONS_TYPE)}), columns)
    drawn_by = {"probabilities": {"human": 0.5, "generated": 0.3, "rephrased": 0.2}, "joins": False}
    made = ColumnAssembler(Rows(), table, DrawnSource(1, ("generated", "human")), seed=3, **drawn_by)
    codes = {"g": 0, "h": 1, "r": None, "": None}
    counts = Counter()
    for epoch in range(40):
        rows, epochs = np.array([2, 0, 1]), np.full(3, epoch)
        found = made.assemble(rows, epochs)[WEIGHT_INPUTS]
        assert found[:, 0].tolist() == [9, 7, 8]
        for row, code in zip(rows, found[:, 1], strict=True):
            text = text_of(captions[row], row_rng(3, epoch, int(row)), **drawn_by)
            assert codes[text] == (None if np.isnan(code) else code)
            counts[text] += row == 0
    assert all(counts[text] > 2 for text in "hgr")
    assert made.assemble([0])[WEIGHT_INPUTS].tolist() == [[7, 1]]
