"""The files of a record: whole per stretch of steps, and none of steps that are done again."""

import pyarrow as pa
import pytest

from mama_ray.auditing.record import (
    RECORD_FOLDER,
    RECORD_SCHEMA,
    RecordPart,
    list_parts,
    read_record,
    remove_parts_after,
    write_part,
)
from mama_ray.errors import UserError
from mama_ray.storage.places import Place


def part_of(steps: range) -> pa.Table:
    rows = [
        {"step": step, "epoch": 0, "sample": step, "clip_id": f"c{step}", "loss": 1.0, "weight": 1.0, "cosine": None}
        for step in steps
    ]
    return pa.Table.from_pylist(rows, schema=RECORD_SCHEMA)


def write_run(folder: Place) -> None:
    for first, stop in ((0, 4), (4, 8), (8, 10)):
        for rank in range(2):
            write_part(folder, RecordPart(first, stop, rank, 2), part_of(range(first + rank, stop, 2)))


def test_a_record_is_read_back_up_to_the_step_that_is_asked_for(tmp_path):
    folder = Place.of(tmp_path)
    write_run(folder)
    assert sorted(pa.concat_tables(read_record(folder, 10))["step"].to_pylist()) == list(range(10))
    assert sorted(pa.concat_tables(read_record(folder, 8))["step"].to_pylist()) == list(range(8))


def test_a_run_that_goes_on_finds_no_step_that_it_is_about_to_do_again(tmp_path):
    folder = Place.of(tmp_path)
    write_run(folder)
    remove_parts_after(folder, 4)
    assert list_parts(folder) == [RecordPart(0, 4, 0, 2), RecordPart(0, 4, 1, 2)]
    write_part(folder, RecordPart(4, 10, 0, 1), part_of(range(4, 10)))  # with fewer workers than before
    assert sorted(pa.concat_tables(read_record(folder, 10))["step"].to_pylist()) == list(range(10))


@pytest.mark.parametrize("lost", ["steps_00000004-00000008.rank_0001-of-0002.parquet", None])
def test_a_record_that_lacks_a_part_or_has_steps_twice_is_refused(tmp_path, lost):
    folder = Place.of(tmp_path)
    write_run(folder)
    if lost:
        (tmp_path / RECORD_FOLDER / lost).unlink()
    else:
        write_part(folder, RecordPart(6, 9, 0, 1), part_of(range(6, 9)))
    with pytest.raises(UserError, match="not whole"):
        list(read_record(folder, 10))


def test_a_damaged_file_and_a_run_without_a_record_are_told(tmp_path):
    folder = Place.of(tmp_path)
    with pytest.raises(UserError, match="recorded nothing"):
        list(read_record(folder, 10))
    write_run(folder)
    (tmp_path / RECORD_FOLDER / RecordPart(0, 4, 0, 2).file_name).write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match="cannot be read"):
        list(read_record(folder, 10))
