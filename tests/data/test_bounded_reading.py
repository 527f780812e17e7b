"""Clips are read some bytes at a time, whatever they weigh together."""

from itertools import pairwise

import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.data.index import read_index
from mama_ray.data.reading import bounded_runs, iter_payloads, read_payloads
from mama_ray.storage.places import Place
from tests.data.counted_storage import Storage
from tests.data.shard_factory import write_dataset

SIZES = [7, 5, 9]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_runs_of_bounded_bytes_are_all_rows_in_order_and_no_two_could_be_one(sizes, most):
    records = [{"num_bytes": size} for size in sizes]
    runs = [[record["num_bytes"] for record in run] for run in bounded_runs(records, most)]
    assert [size for run in runs for size in run] == sizes
    assert all(len(run) == 1 or sum(run) <= most for run in runs)
    assert all(sum(run) + after[0] > most for run, after in pairwise(runs))


def test_videos_that_are_taken_one_by_one_are_read_no_sooner_than_there_is_room(tmp_path):
    write_dataset(tmp_path, SIZES)
    storage = Storage()
    folder, records = (
        Place(pafs.PyFileSystem(storage), str(tmp_path), str(tmp_path)),
        read_index(Place.of(tmp_path)).to_pylist(),
    )
    most = max(record["num_bytes"] for record in records)
    payloads = iter_payloads(folder, records, max_bytes=most)
    assert next(payloads) == read_payloads(Place.of(tmp_path), records[:1])[0]
    assert storage.asked["open"] == 1
    assert list(payloads) == read_payloads(Place.of(tmp_path), records)[1:]


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [([], []), ([4, 4, 2, 1], [[4, 4, 2], [1]]), ([99, 1, 9, 99], [[99], [1, 9], [99]]), ([10, 10], [[10], [10]])],
)
def test_clips_are_read_in_runs_of_bounded_bytes_and_a_large_one_alone(sizes, runs):
    records = [{"num_bytes": size} for size in sizes]
    assert [[one["num_bytes"] for one in run] for run in bounded_runs(records, 10)] == runs
