"""What was kept comes back exactly; what is damaged, or another's, is as good as nothing."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.search.cache import VideoFile, cache_file, read_cache, write_cache

KNOWN = {
    VideoFile("a.mp4", 10, 1): np.array([0.6, -0.8], np.float32),
    VideoFile("\udcff.mp4", 11, 2): "not a readable video",
}


@pytest.fixture
def path(tmp_path) -> Path:
    write_cache(tmp_path / "deep/kept.parquet", "id", KNOWN)
    return tmp_path / "deep/kept.parquet"


def test_what_was_kept_comes_back(path):
    found = read_cache(path, "id", 2)
    assert list(found) == list(KNOWN)
    np.testing.assert_array_equal(*(one[VideoFile("a.mp4", 10, 1)] for one in (found, KNOWN)))
    assert found[VideoFile("\udcff.mp4", 11, 2)] == "not a readable video"


def test_another_encoder_s_and_another_folder_s_are_not_ours(path, tmp_path):
    assert read_cache(path, "other", 2) == {}
    places = {cache_file(tmp_path, tmp_path / folder, key) for folder in "ab" for key in ("1", "2")}
    assert len(places) == 4


def rewrite(path: Path, column: str, values: list | None) -> None:
    table = pq.read_table(path)
    number = table.schema.get_field_index(column)
    table = table.remove_column(number) if values is None else table.set_column(
        number, table.schema.field(column), pa.array(values, table.schema.field(column).type)
    )  # fmt: skip
    pq.write_table(table, path)


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04N."),
    "a column less": lambda path: rewrite(path, "features", None),
    "no features": lambda path: rewrite(path, "features", [None, None]),
    "features of another size": lambda path: rewrite(path, "features", [[1.0], None]),
    "features that are no numbers": lambda path: rewrite(path, "features", [[1.0, float("nan")], None]),
    "no path": lambda path: rewrite(path, "path", [None, b"b"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_as_good_as_none(path, damage, caplog):
    DAMAGE[damage](path)
    assert read_cache(path, "id", 2) == {}
    assert "made anew" in caplog.text
