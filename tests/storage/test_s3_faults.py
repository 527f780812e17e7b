"""Storage that fails by the hour, as object stores do: requests through a proxy that spoils some of them."""

from contextlib import nullcontext

import pyarrow as pa
import pytest

from mama_ray.data.index import INDEX_SCHEMA, read_index, write_index
from mama_ray.errors import UserError
from mama_ray.orchestration.runs.checkpoint_store import publish_checkpoint, retain_checkpoints
from mama_ray.storage.parquet import is_of_storage
from mama_ray.storage.places import Place
from mama_ray.storage.s3 import Patience
from mama_ray.training.manifest import latest_valid_checkpoint, list_checkpoints, write_manifest
from tests.storage.s3_faults import KINDS, FaultyProxy, asked, serving

HASTE = Patience(8, 5.0, 1.0)  # as jobs have it, but for the second after which a silent request is given up
BIG = bytes(range(256)) * 50_000  # 12.8 MB: more than one part of a multipart upload


class Losing(FaultyProxy):
    """Spoils the first requests of a name with the faults given, one each, and nothing else."""

    def __init__(self, upstream: str, name: str, faults: list[str]) -> None:
        super().__init__(upstream)
        self._name, self._coming = name, list(faults)

    def choose(self, request):
        return self._coming.pop(0) if self._coming and asked(request) == self._name else None


def stage(folder, step: int, weights: bytes):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    write_manifest(folder, step=step, selection=None)
    return folder


# A store may have forgotten an upload when its last request comes again.
@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("CompleteMultipartUpload", ["reset after"]),
        ("CompleteMultipartUpload", ["reset after", "404 NoSuchUpload"]),
        ("PUT", ["reset after"]),
        ("DELETE", ["reset after"]),
        ("POST", ["reset after"]),
    ],
)
def test_a_checkpoint_is_whole_though_the_answer_to_a_request_is_lost(
    s3_server, s3_bucket, tmp_path, monkeypatch, name, faults
):
    with serving(Losing(s3_server["AWS_ENDPOINT_URL"], name, faults)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        run_folder = Place.of(f"s3://{s3_bucket}/run", patience=HASTE)
        for step in (4, 8):
            publish_checkpoint(run_folder, stage(tmp_path / f"{step}", step, BIG), step)
            retain_checkpoints(run_folder, 1, newest_step=step)
        assert all(proxy.faults[f"{fault}: {name}"] == 1 for fault in faults)
        assert latest_valid_checkpoint(run_folder).step == 8
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server["AWS_ENDPOINT_URL"])
    names = {file.name for file in Place.of(f"s3://{s3_bucket}/run/checkpoints").files(recursive=True)}
    assert names == {"model.safetensors", "config.json", "manifest.json"}


def test_checkpoints_come_through_faults_of_every_kind(s3_server, s3_bucket, tmp_path, monkeypatch):
    with serving(FaultyProxy(s3_server["AWS_ENDPOINT_URL"], seed=3, every=6)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        run_folder = Place.of(f"s3://{s3_bucket}/run", patience=HASTE)
        for step in range(1, 5):
            publish_checkpoint(run_folder, stage(tmp_path / f"{step}", step, b"weights" * step), step)
            retain_checkpoints(run_folder, 2, newest_step=step)
            assert latest_valid_checkpoint(run_folder).step == step
        assert [ref.step for ref in list_checkpoints(run_folder)] == [3, 4]
    assert all(proxy.faults[kind] for kind in KINDS), proxy.faults


def test_an_index_is_read_again_where_a_store_fails_and_the_store_is_blamed_where_it_keeps_failing(
    s3_server, s3_bucket, monkeypatch
):
    write_index(Place.of(f"s3://{s3_bucket}"), [pa.Table.from_pylist([], schema=INDEX_SCHEMA)], {})
    for num_faults, told in ((1, None), (20, "the storage failed: got s3://.*index.parquet: .*AWS Error")):
        with serving(Losing(s3_server["AWS_ENDPOINT_URL"], "GET", ["503 SlowDown"] * num_faults)) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            folder = Place.of(f"s3://{s3_bucket}", patience=Patience(1, 5.0, 1.0))
            with nullcontext() if told is None else pytest.raises(UserError, match=told):
                assert len(read_index(folder)) == 0
            assert proxy.faults["503 SlowDown: GET"] >= 1


def test_a_stores_error_is_the_stores_whatever_the_key_says():
    place = Place.of("memory://pages/corrupt.parquet")
    assert is_of_storage(OSError("When reading 'pages/corrupt': AWS Error INTERNAL_FAILURE"), place)
    assert not is_of_storage(OSError("Corrupt snappy compressed data."), place)
