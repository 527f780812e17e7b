"""Parts: their names alone say which clips they hold, whatever was killed, and a damaged one is known as such."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.parts import (
    CHUNK_CLIPS,
    CLIPS_PER_FILE,
    PART_SCHEMA,
    WORK_FOLDER,
    committed_rows,
    has_parts,
    iterate_parts,
    list_parts,
    part_names,
    part_place,
    read_part,
    require_work_folder,
    rows_of_part,
    write_parts,
)
from mama_ray.orchestration.captioning.pending import _find_pending
from mama_ray.storage.places import Place, storage_errors
from tests.orchestration.captioning.caption_tables import parts_of_version_1
from tests.storage.s3_faults import serving
from tests.storage.test_manifest import FailingStreams
from tests.storage.test_places import Counting

ROWS = st.lists(st.integers(0, 3 * CLIPS_PER_FILE), max_size=200)


def rows_table(rows: list[int], num_captions: int = 1) -> pa.Table:
    empty = dict.fromkeys(PART_SCHEMA.names)
    made = [
        {**empty, "row": row, "clip_id": f"clip-{row}", "sample": sample, "text": f"text {sample} of {row}"}
        for row in rows
        for sample in range(num_captions)
    ]
    return pa.Table.from_pylist(made, schema=PART_SCHEMA)


@given(ROWS)
def test_names_tell_the_rows_and_rows_the_names(rows):
    names = part_names(rows)
    assert sorted(row for own in names.values() for row in own) == sorted(set(rows))
    for name, own in names.items():
        assert rows_of_part(name) == own
        assert part_names(own) == {name: own}
        assert len({row // CHUNK_CLIPS for row in own}) == 1


@given(st.lists(ROWS, max_size=4))
def test_what_is_committed_is_the_union_of_what_the_names_hold(batches):
    num_clips = 2 * CLIPS_PER_FILE + 5
    names = [name for rows in batches for name in part_names(rows)]
    done = committed_rows(names, num_clips)
    wanted = {row for rows in batches for row in rows if row < num_clips}
    assert set(np.flatnonzero(done).tolist()) == wanted
    assert len(done) == num_clips


@pytest.mark.parametrize(
    "name",
    ["captions-000000.parquet", "00000000-0000000g.parquet", "00000000-00000001.parquet.1a2b3c4d.tmp", "job.json",
     "0-1.parquet", "00000000-00000001", "00000000-0000000F.parquet", ""],
)  # fmt: skip
def test_other_files_are_no_parts(name):
    assert rows_of_part(name) is None


def test_parts_come_back_as_they_were_written_from_a_folder_per_file_of_the_table(tmp_path):
    rows = [0, 1, 31, 32, CLIPS_PER_FILE - 1, CLIPS_PER_FILE, CLIPS_PER_FILE + 40]
    write_parts(Place.of(tmp_path), rows_table(rows, num_captions=2))
    names = list_parts(Place.of(tmp_path))
    assert names == sorted(part_names(rows))
    by_file = [list_parts(Place.of(tmp_path), number) for number in range(3)]
    assert by_file == [names[:3], names[3:], []]
    tables = pa.concat_tables(read_part(Place.of(tmp_path), name) for name in names)
    assert tables.sort_by([("row", "ascending"), ("sample", "ascending")]).equals(rows_table(rows, num_captions=2))


def test_a_batch_that_is_committed_twice_leaves_the_same_parts(tmp_path):
    for _ in range(2):
        write_parts(Place.of(tmp_path), rows_table([3, 5, 40]))
    assert list_parts(Place.of(tmp_path)) == sorted(part_names([3, 5, 40]))


def test_a_folder_without_parts_has_committed_nothing(tmp_path):
    assert list_parts(Place.of(tmp_path / "nowhere")) == []
    write_parts(Place.of(tmp_path), rows_table([7]))
    (name,) = list_parts(Place.of(tmp_path))
    unfinished = part_place(Place.of(tmp_path), name).path.replace(name, part_names([9]).popitem()[0] + ".0a1b2c3d.tmp")
    with open(unfinished, "wb") as stream:
        stream.write(b"half a part")
    assert list_parts(Place.of(tmp_path)) == [name]


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -8])
def test_a_truncated_part_is_no_part(tmp_path, cut):
    name, path = written(tmp_path, [0, 1, 2])
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    assert read_part(Place.of(tmp_path), name) is None


@pytest.mark.parametrize("other", [[0, 1], [0, 1, 2, 3], [3, 4, 5], []])
def test_a_part_with_other_rows_than_its_name_says_is_no_part(tmp_path, other):
    name, path = written(tmp_path, [0, 1, 2])
    pq.write_table(rows_table(other), path)
    assert read_part(Place.of(tmp_path), name) is None


def test_a_part_of_another_schema_is_no_part(tmp_path):
    name, path = written(tmp_path, [0])
    pq.write_table(rows_table([0]).drop_columns(["seed"]), path)
    assert read_part(Place.of(tmp_path), name) is None


def test_a_part_of_version_1_is_read_with_todays_names(tmp_path):
    name = part_names([0, 1]).popitem()[0]
    path = Path(part_place(Place.of(tmp_path), name).path)
    path.parent.mkdir(parents=True)
    pq.write_table(parts_of_version_1([0, 1]), path, compression="zstd")
    found = read_part(Place.of(tmp_path), name)
    assert found.schema.equals(PART_SCHEMA)
    assert found["shown_sha256"].to_pylist() == ["grid-0", "grid-1"]
    assert found["text"].to_pylist() == ["an old dog 0 runs", "an old dog 1 runs"]


def test_a_part_on_s3_is_written_by_one_request_and_read_by_two(s3_server, s3_bucket, monkeypatch):
    with serving(Counting(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        folder, rows = Place.of(f"s3://{s3_bucket}/table"), list(range(CHUNK_CLIPS))
        write_parts(folder, rows_table(rows))
        assert proxy.asked == ["PUT"]
        (name,) = list_parts(folder, 0)
        assert read_part(folder, name).equals(rows_table(rows))
        assert proxy.asked == ["PUT", "GET", "HEAD", "GET"]  # the listing, the part's size, the part


def written(folder, rows: list[int]):
    """Commit rows of one chunk; return the part's name and path."""
    write_parts(Place.of(folder), rows_table(rows))
    (name,) = list_parts(Place.of(folder))
    assert read_part(Place.of(folder), name).equals(rows_table(rows))
    return name, Path(part_place(Place.of(folder), name).path)


def test_a_part_that_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch):
    """What is damaged is removed and captioned again; an outage must not cost captions."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    folder = Place.of(tmp_path)
    write_parts(folder, rows_table([1, 2]))
    (name,) = list_parts(folder)
    path = Path(part_place(folder, name).path)
    path.write_bytes(path.read_bytes()[:-40])
    assert read_part(folder, name) is None
    failing = Place(pafs.PyFileSystem(FailingStreams(name)), str(tmp_path), str(tmp_path))
    with pytest.raises(UserError, match=f"the storage failed: got .*{name}"):
        read_part(failing, name)


def test_a_job_whose_folder_is_taken_away_is_told_so_and_makes_no_other(tmp_path):
    folder = Place.of(tmp_path / "table")
    (folder / f"{WORK_FOLDER}/job.json").write_whole("{}")
    require_work_folder(folder)
    (tmp_path / "table").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a file of the storage is missing.*work folder"), storage_errors(folder.uri):
        require_work_folder(folder)
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize("chunk_clips", [32, 64, 128])
def test_a_part_tells_the_size_of_its_chunk(tmp_path, chunk_clips):
    rows = [0, 1, chunk_clips - 1, chunk_clips, CLIPS_PER_FILE - 1, CLIPS_PER_FILE + 40]
    write_parts(Place.of(tmp_path), rows_table(rows), chunk_clips)
    names = list_parts(Place.of(tmp_path))
    assert len(names) == len({row // chunk_clips for row in rows})
    assert sorted(row for name in names for row in rows_of_part(name)) == rows
    assert list(iterate_parts(Place.of(tmp_path))) == [list_parts(Place.of(tmp_path), number) for number in (0, 1)]
    assert all(read_part(Place.of(tmp_path), name) is not None for name in names)


def test_parts_of_several_sizes_of_chunks_are_read_together(tmp_path):
    folder = Place.of(tmp_path)
    assert not has_parts(folder)
    write_parts(folder, rows_table([3, 40, 100]))
    write_parts(folder, rows_table([4, 99]), 128)
    assert has_parts(folder)
    assert np.flatnonzero(committed_rows(list_parts(folder, 0), 120)).tolist() == [3, 4, 40, 99, 100]
    chunks, done, counts = _find_pending._function(str(tmp_path), 140, 64)
    assert (chunks.tolist(), counts) == ([0, 1, 2], (3, 135))
    assert np.flatnonzero(np.unpackbits(done) == 0).tolist() == sorted(set(range(140)) - {3, 4, 40, 99, 100})
