"""A table of embeddings on disk and in memory."""

import asyncio
from collections import Counter

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.search import embedding_table
from mama_ray.search.embedding_parts import (
    IDENTITY_NAME,
    SUMMARY_NAME,
    PartCounts,
    Summary,
    find_summary,
    read_summary,
    write_summary,
)
from mama_ray.search.embedding_table import EmbeddingTable, read_clip_ids
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_JSON_BYTES
from tests.search.made_table import as_of_version_1, make_rows, write_table
from tests.storage.s3_faults import FaultyProxy, serving

DIM = 16


def test_a_table_comes_back_as_it_was_written(tmp_path):
    rows = make_rows(130, DIM)
    write_table(Place.of(tmp_path), rows, DIM, part_clips=50)
    table = EmbeddingTable.open(str(tmp_path))
    assert table.clip_ids.to_pylist() == [row["clip_id"] for row in rows]
    for number, row in enumerate(rows):
        assert table.has_video[number] == (row["video"] is not None)
        np.testing.assert_array_equal(table.video[number], 0 if row["video"] is None else row["video"])
        own = table.caption_rows(number)
        assert len(own) == len(row["captions"])
        for place, caption in zip(own, row["captions"], strict=True):
            np.testing.assert_array_equal(table.captions[place], caption["feature"])
            assert table.caption_sources[place].as_py() == caption["source"]
            assert table.caption_numbers[place] == caption["index"]
        assert table.row_of(row["clip_id"]) == number
    assert table.row_of("no such clip") is None
    assert [table.clip_ids[int(row)].as_py() for row in np.argsort(table.id_rank)] == sorted(table.clip_ids.to_pylist())


def test_a_folder_that_is_no_finished_table_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no index of embeddings.*jobs/index\.py"):
        EmbeddingTable.open(str(tmp_path))
    write_table(Place.of(tmp_path), make_rows(3, DIM), DIM)
    (tmp_path / SUMMARY_NAME).unlink()
    with pytest.raises(UserError, match=r"not finished.*goes on"):
        EmbeddingTable.open(str(tmp_path))


def test_a_table_of_version_1_is_read_until_its_summary_is_written_again(tmp_path):
    folder = Place.of(tmp_path)
    write_table(folder, make_rows(30, DIM), DIM, part_clips=10)
    whole, parts = EmbeddingTable.open(str(tmp_path)), read_summary(folder)
    earlier = as_of_version_1(tmp_path, num_errors=2)
    assert find_summary(folder) == Summary(parts=parts, num_errors=2)
    np.testing.assert_array_equal(EmbeddingTable.open(str(tmp_path)).video, whole.video)
    del parts["embeddings-000002.parquet"]
    write_summary(folder, Summary(parts=parts, num_errors=1))
    assert not earlier.exists()
    assert (len(EmbeddingTable.open(str(tmp_path))), find_summary(folder)) == (20, Summary(parts=parts, num_errors=1))


@pytest.mark.parametrize("version", [1, 2])
def test_a_table_of_more_parts_than_a_small_file_can_name_is_finished(tmp_path, version):
    folder = Place.of(tmp_path)
    parts = {f"{'long/' * 180}{number:06d}": PartCounts(num_clips=256, num_captions=512) for number in range(40_000)}
    write_summary(folder, Summary(parts=parts))
    path = tmp_path / SUMMARY_NAME if version == 2 else as_of_version_1(tmp_path)
    assert path.stat().st_size > MAX_JSON_BYTES
    assert read_summary(folder) == parts


@pytest.mark.parametrize("damage", ["cut", "half a line", "no JSON"])
def test_a_damaged_summary_is_told_and_not_taken_for_a_smaller_table(tmp_path, damage):
    write_table(Place.of(tmp_path), make_rows(30, DIM), DIM, part_clips=10)
    path = tmp_path / SUMMARY_NAME
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    path.write_text("\n".join({"cut": lines[:3], "half a line": [*lines[:3], lines[3][:9]], "no JSON": ["?"]}[damage]))
    with pytest.raises(UserError, match=SUMMARY_NAME):
        read_summary(Place.of(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "cut", "of another dim", "another part"])
def test_a_damaged_table_is_told_and_never_half_read(tmp_path, damage):
    write_table(Place.of(tmp_path), make_rows(30, DIM), DIM, part_clips=10)
    part = tmp_path / "embeddings-000001.parquet"
    if damage == "missing":
        part.unlink()
    elif damage == "cut":
        part.write_bytes(part.read_bytes()[:-100])
    elif damage == "of another dim":
        (tmp_path / IDENTITY_NAME).write_text((tmp_path / IDENTITY_NAME).read_text().replace('"dim":16', '"dim":8'))
    else:
        write_table(Place.of(tmp_path / "other"), make_rows(7, DIM), DIM)
        (tmp_path / "other" / "embeddings-000000.parquet").rename(part)
    with pytest.raises(UserError, match=r"embeddings-.*parquet"):
        EmbeddingTable.open(str(tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf, 5.0])
def test_features_that_are_no_unit_vectors_are_told(tmp_path, value):
    rows = make_rows(5, DIM)
    rows[3]["video"] = np.full(DIM, value, np.float16)
    write_table(Place.of(tmp_path), rows, DIM)
    with pytest.raises(UserError, match="no unit vectors"):
        EmbeddingTable.open(str(tmp_path))


def test_a_query_of_another_model_is_refused(tmp_path):
    write_table(Place.of(tmp_path), make_rows(3, DIM), DIM)
    table = EmbeddingTable.open(str(tmp_path))
    table.require_model("a" * 64)
    with pytest.raises(UserError, match=r"of another model.*jobs/index\.py"):
        table.require_model("b" * 64)


@pytest.mark.parametrize("num_shares", [1, 2, 3, 7])
def test_shares_of_a_table_join_to_the_whole(tmp_path, num_shares):
    rows = make_rows(250, DIM)
    write_table(Place.of(tmp_path), rows, DIM, part_clips=50)
    whole, next_row = EmbeddingTable.open(str(tmp_path)), 0
    for number in range(num_shares):
        share = EmbeddingTable.open(str(tmp_path), (number, num_shares))
        if len(share):
            assert share.first_row == next_row
        own = slice(next_row, next_row + len(share))
        np.testing.assert_array_equal(share.video, whole.video[own])
        assert share.clip_ids.to_pylist() == whole.clip_ids[own].to_pylist()
        assert len(share) <= 50 * (5 // num_shares + 1)
        next_row = own.stop
    assert next_row == len(whole)
    assert read_clip_ids(str(tmp_path)).to_pylist() == whole.clip_ids.to_pylist()


class Busy(FaultyProxy):
    """Spoils nothing, is slow, and knows how many files it was asked for at a time, at most."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._asked, self.most = Counter(), 0

    def choose(self, request):
        return None

    async def _forward(self, request, body):
        self._asked[request.path] += 1
        self.most = max(self.most, len(+self._asked))
        await asyncio.sleep(0.05)
        try:
            return await super()._forward(request, body)
        finally:
            self._asked[request.path] -= 1


@pytest.mark.parametrize(("most_ahead", "at_a_time"), [(8192, range(3, 11)), (1, range(1, 2))])
def test_parts_of_an_object_store_are_read_beside_each_other(
    s3_server, s3_bucket, tmp_path, monkeypatch, most_ahead, at_a_time
):
    rows, uri = make_rows(60, DIM), f"s3://{s3_bucket}/index"
    for place in (Place.of(uri), Place.of(tmp_path)):
        write_table(place, rows, DIM, part_clips=5)
    monkeypatch.setattr(embedding_table, "_MOST_AHEAD", most_ahead)
    with serving(Busy(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        found, ids = EmbeddingTable.open(uri), read_clip_ids(uri)
        assert proxy.most in at_a_time
        (Place.of(uri) / "embeddings-000007.parquet").delete_file()
        with pytest.raises(UserError, match=r"embeddings-000007\.parquet is missing"):
            EmbeddingTable.open(uri)
    wanted = EmbeddingTable.open(str(tmp_path))
    assert ids.to_pylist() == found.clip_ids.to_pylist() == wanted.clip_ids.to_pylist()
    np.testing.assert_array_equal(found.video, wanted.video)
    np.testing.assert_array_equal(found.captions, wanted.captions)
