"""Rows that one process reads for all others are those of the index, also after that process has died."""

import os

import numpy as np
import pyarrow as pa
import pytest
import ray

from mama_ray.data.index import read_index
from mama_ray.data.index_file import open_index
from mama_ray.data.index_rows import Chosen, IndexRows
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.row_server import shared_rows
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset

COLUMNS = ("clip_id", "sha256", "captions")


@ray.remote(num_cpus=0.1)
def take(rows, positions):
    return rows.take(pa.array(positions)), rows.select(["sha256"]).take(positions), rows.slice(2, 3), len(rows)


@ray.remote(num_cpus=0.1)
def pid_of_server(rows) -> int:
    return ray.get(rows.server.__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.ray
@pytest.mark.parametrize("max_held", [0, 100])
def test_tasks_take_rows_of_a_table_and_of_a_server_alike(ray_cluster, tmp_path, monkeypatch, max_held):
    monkeypatch.setattr(row_server, "MAX_HELD_ROWS", max_held)
    write_dataset(tmp_path, [5, 3, 4], ("train", "val"))
    table = read_index(Place.of(tmp_path), columns=[*COLUMNS, "split"])
    chosen = Chosen.of(np.array(table["split"].to_pylist()) == "train")
    table = table.filter(pa.array(chosen.mask(0, 12))).select(COLUMNS)
    rows = IndexRows(open_index(Place.of(tmp_path)), COLUMNS, chosen)
    shared = shared_rows(ray.put(rows if max_held == 0 else rows.read()), len(rows), COLUMNS)
    positions = np.array([4, 0, 0, 5])
    for _ in range(2):
        taken, hashes, some, count = ray.get(take.remote(shared, positions))
        assert taken.to_pylist() == table.take(pa.array(positions)).to_pylist()
        assert hashes.to_pylist() == table.select(["sha256"]).take(pa.array(positions)).to_pylist()
        assert some.to_pylist() == table.slice(2, 3).to_pylist()
        assert count == len(table) == 6
        if max_held == 0:
            os.kill(ray.get(pid_of_server.remote(shared)), 9)


@pytest.mark.ray
def test_an_index_that_is_gone_is_told_by_name(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(row_server, "MAX_HELD_ROWS", 0)
    write_dataset(tmp_path, [5])
    rows = IndexRows(open_index(Place.of(tmp_path)), COLUMNS)
    shared = shared_rows(ray.put(rows), len(rows), COLUMNS)
    (tmp_path / "index.parquet").unlink()
    with pytest.raises(UserError, match=r"index\.parquet"):
        ray.get(shared).take([1])
