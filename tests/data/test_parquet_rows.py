"""Rows of Parquet files: those of Arrow itself, in memory that no file can blow up."""

import datetime
import decimal
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.data.parquet_rows import MAX_ROW_BYTES, read_rows
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

ROOT = Path(__file__).resolve().parents[2]
MANY_KINDS = pa.table(
    {
        "text": ["a", None, ""],
        "words": pa.array([["a", None], [], None], pa.large_list(pa.large_string())),
        "pairs": pa.array([[("a", "x")], [("b", "y"), ("c", None)], None], pa.map_(pa.string(), pa.string())),
        "both": [{"x": "q", "y": [1, 2]}, None, {"x": None, "y": None}],
        "raw": [b"a", None, b""],
        "price": pa.array([decimal.Decimal("1.20"), None, decimal.Decimal("3.00")], pa.decimal128(10, 2)),
        "day": [datetime.date(2020, 1, 1), None, datetime.date(1999, 12, 31)],
        "coded": pa.array(["x", "y", "x"]).dictionary_encode(),
        "nothing": pa.nulls(3),
    }
)


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"row_group_size": 1}])
def test_rows_of_every_kind_are_those_of_arrow(options, tmp_path):
    pq.write_table(MANY_KINDS, tmp_path / "a.parquet", **options)
    assert list(read_rows(Place.of(tmp_path / "a.parquet"))) == MANY_KINDS.to_pylist()


def write_bomb(path: Path, num_rows: int, num_bytes: int) -> None:
    """Write one text of many bytes into every row, and thrice into every second: kilobytes of a file."""
    text, ones = "x" * num_bytes, [0] * num_rows
    lists = [ones[:3] if row % 2 else [] for row in range(num_rows)]
    offsets = [sum(map(len, lists[:row])) for row in range(num_rows + 1)]
    inner = pa.DictionaryArray.from_arrays(pa.array([0] * offsets[-1], pa.int32()), [text])
    table = {
        "video": [f"v{row}.mp4" for row in range(num_rows)],
        "caption": pa.DictionaryArray.from_arrays(pa.array(ones, pa.int32()), [text]),
        "captions": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner),
    }
    pq.write_table(pa.table(table), path, compression="zstd")
    assert path.stat().st_size < 20_000


READ = """
import sys
from mama_ray.data.parquet_rows import read_rows
from mama_ray.storage.places import Place
rows = ["error" in row for row in read_rows(Place.of(sys.argv[1]))]
print(len(rows), sum(rows))
"""


def test_a_text_that_a_thousand_rows_share_takes_the_memory_of_one(tmp_path):
    write_bomb(tmp_path / "bomb.parquet", num_rows=1000, num_bytes=MAX_ROW_BYTES // 3)  # 5 GiB, and 8 in the lists
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "bomb.parquet")], cwd=ROOT, capture_output=True, text=True,
        check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
    )  # fmt: skip
    assert done.stdout.split() == ["1000", "500"], done.stderr[-2000:]


def test_a_row_group_beyond_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("mama_ray.data.parquet_rows._MAX_COLUMN_BYTES", 1 << 20)
    table = pa.table({"video": ["a.mp4"] * 20, "caption": [f"{row}" + "x" * (60 << 10) for row in range(20)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(UserError, match=r"row groups are too large: got .*a\.parquet: 12\d+ bytes of one column"):
        next(read_rows(Place.of(tmp_path / "a.parquet")))
