"""A caption table is read whole or refused: unfinished, damaged, mixed up and of another version."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.captioning.join import COLUMNS
from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, TABLE_VERSION, file_name, read_caption_files
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

# The columns of version 1, as its tables have them.
SCHEMA_1 = pa.schema(
    [
        ("clip_id", pa.string()), ("sample", pa.int32()), ("video_sha256", pa.string()),
        ("frame_indices", pa.list_(pa.int32())), ("num_filled", pa.int32()), ("grid_sha256", pa.string()),
        ("caption", pa.string()), ("source", pa.string()), ("model", pa.string()), ("weights_sha256", pa.string()),
        ("prompt", pa.string()), ("temperature", pa.float32()), ("top_p", pa.float32()), ("max_tokens", pa.int32()),
        ("seed", pa.int64()), ("num_tokens", pa.int32()), ("finish_reason", pa.string()),
        ("mean_logprob", pa.float32()), ("similarity", pa.float32()), ("flags", pa.list_(pa.string())),
        ("error", pa.string()),
    ]
)  # fmt: skip
ROWS_1 = [
    {
        "clip_id": "clip-0", "sample": 0, "video_sha256": "video", "frame_indices": [0, 3], "num_filled": 1,
        "grid_sha256": "grid", "caption": "a dog runs", "source": "generated", "model": "m", "weights_sha256": "w",
        "prompt": "p", "temperature": 0.5, "top_p": 1.0, "max_tokens": 9, "seed": 7, "num_tokens": 3,
        "finish_reason": "stop", "mean_logprob": -0.5, "similarity": 0.25, "flags": ["duplicate"], "error": None,
    },
    {"clip_id": "clip-1", "sample": 0, "video_sha256": "bad", "source": "generated", "flags": [], "error": "no video"},
]  # fmt: skip
SIZES = (3, 1)


def rows_of(number: int, count: int) -> pa.Table:
    empty = dict.fromkeys(CAPTION_SCHEMA.names)
    rows = [{**empty, "clip_id": f"clip-{number}-{row}", "caption": f"caption {row}"} for row in range(count)]
    return pa.Table.from_pylist(rows, schema=CAPTION_SCHEMA)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, count in enumerate(SIZES):
        pq.write_table(rows_of(number, count), tmp_path / file_name(number))
    summarise(tmp_path)
    return tmp_path


def summarise(folder: Path, **changes) -> None:
    files = {file_name(number): count for number, count in enumerate(SIZES)}
    (folder / SUMMARY_NAME).write_text(json.dumps({"version": TABLE_VERSION, "files": files} | changes))


def read(folder: Path, columns=None) -> list[pa.Table]:
    return list(read_caption_files(Place.of(folder), columns))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        read(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_finished_table_is_read_file_by_file_in_order(folder):
    found = read(folder)
    assert [
        table.equals(rows_of(number, count)) for number, (table, count) in enumerate(zip(found, SIZES, strict=True))
    ] == [True, True]
    assert [table.column_names for table in read(folder, ["caption", "clip_id"])] == [["caption", "clip_id"]] * 2


def test_files_that_the_summary_does_not_name_are_no_part_of_the_table(folder):
    pq.write_table(rows_of(2, 5), folder / file_name(2))
    assert sum(map(len, read(folder))) == sum(SIZES)


def test_an_unfinished_table_is_no_table_and_the_error_says_how_to_finish_it(folder):
    (folder / SUMMARY_NAME).unlink()
    message = refusal(folder)
    assert message.startswith(f"no finished caption table: got {folder / SUMMARY_NAME}")
    assert "jobs/caption.py with the same arguments" in message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'"table"', b'{"version": 1}', b'{"version": 1, "files": []}']
)
def test_a_damaged_summary_is_named(folder, content):
    (folder / SUMMARY_NAME).write_bytes(content)
    assert str(folder / SUMMARY_NAME) in refusal(folder)


def test_a_table_of_another_version_is_refused(folder):
    summarise(folder, version=TABLE_VERSION + 1)
    assert refusal(folder) == "caption table of another version: got 3, wanted 1 or 2"


def test_a_table_of_version_1_has_the_columns_of_today_with_all_that_was_in_it(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS_1, schema=SCHEMA_1), tmp_path / file_name(0))
    (tmp_path / SUMMARY_NAME).write_text(json.dumps({"version": 1, "files": {file_name(0): 2}, "num_rows": 2}))
    (table,) = read(tmp_path)
    assert table.schema.equals(CAPTION_SCHEMA)
    wanted = [{name.replace("grid_sha", "shown_sha"): row.get(name) for name in SCHEMA_1.names} for row in ROWS_1]
    assert table.to_pylist() == wanted
    (some,) = read(tmp_path, ["shown_sha256", "clip_id"])
    assert some.to_pylist() == [
        {"shown_sha256": "grid", "clip_id": "clip-0"},
        {"shown_sha256": None, "clip_id": "clip-1"},
    ]
    (joined,) = read(tmp_path, COLUMNS)
    assert joined.column_names == list(COLUMNS)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_file_with_another_number_of_rows_is_refused(folder, count):
    pq.write_table(rows_of(0, count), folder / file_name(0))
    message = refusal(folder)
    assert f"{folder / file_name(0)}, {count} rows, wanted 3" in message


def test_a_missing_or_truncated_file_is_named(folder):
    path = folder / file_name(1)
    path.write_bytes(path.read_bytes()[:-9])
    assert f"cannot be read: got {path}" in refusal(folder)
    path.unlink()
    assert f"cannot be read: got {path}" in refusal(folder)
