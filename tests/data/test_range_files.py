"""Records come back by range in the order they came, whether they were held or written."""

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data import range_files
from mama_ray.data.range_files import RangeTables


@pytest.mark.parametrize("held", [8, 500, 1 << 20])
def test_a_range_has_its_records_in_the_order_they_came(monkeypatch, held):
    monkeypatch.setattr(range_files, "_HELD_BYTES", held)
    rng = np.random.default_rng(0)
    numbers, records = rng.integers(0, 9, 1000), rng.integers(0, 1 << 60, 1000)
    numbers[numbers == 4] = 5
    with range_files.range_files(np.dtype("<i8")) as files:
        for start in range(0, 1000, 77):
            files.add(numbers[start : start + 77], records[start : start + 77])
            if start == 385:
                files.read(0)  # in between
        for number in range(9):
            assert files.read(number).tolist() == records[numbers == number].tolist()
        assert not len(files.read(4))


def test_a_range_has_its_rows_in_the_order_they_came(tmp_path):
    schema = pa.schema([("number", pa.int64()), ("text", pa.large_string())])
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 3, 100)
    rows = pa.table({"number": numbers, "text": [f"text {place}" for place in range(100)]}, schema=schema)
    files = RangeTables(tmp_path, schema)
    for start in range(0, 100, 30):
        files.add(numbers[start : start + 30], rows.slice(start, 30))
    for number in range(3):
        assert files.read(number).equals(rows.filter(pa.array(numbers == number)))
    assert files.read(7).equals(schema.empty_table())
