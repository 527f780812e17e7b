"""What a job of many clips does otherwise, done with few: rows out of a server, larger chunks, several pipelines."""

from pathlib import Path

import pytest

from mama_ray.captioning.table import read_caption_files
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.orchestration.captioning import parts, run
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.cluster import pipelines, row_server
from mama_ray.storage.places import Place
from tests.orchestration.captioning.captioning_runs import parts_of, write_caption_shards

CORPUS = CorpusConfig(num_train=150, num_meta=8, num_val=8, num_test=8)


class Stopped(Exception):
    """Stands for whatever ends a job after its last commit."""


def stop(*_: object) -> None:
    raise Stopped


def rows_of(output: Path) -> list[dict]:
    rows = [row for table in read_caption_files(Place.of(output)) for row in table.to_pylist()]
    return [row | {"mean_logprob": row["mean_logprob"] and round(row["mean_logprob"], 4)} for row in rows]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_a_job_that_was_begun_with_small_chunks_goes_on_with_larger_ones(ray_cluster, tmp_path, monkeypatch):
    shards = write_caption_shards(tmp_path / "shards", CORPUS)
    job = CaptionJob(shards=str(shards), output=str(tmp_path / "whole"), split="train")
    caption(job)
    wanted = rows_of(tmp_path / "whole")
    assert len(wanted) == CORPUS.num_train

    begun = tmp_path / "begun"
    job = job.model_copy(update={"output": str(begun)})
    with monkeypatch.context() as patch:
        patch.setattr(run, "shared_captions", stop)
        with pytest.raises(Stopped):
            caption(job)
    small = parts_of(begun)
    for path in (begun / ".captioning/parts").rglob("0000000[13]-*"):
        path.unlink()
    kept = parts_of(begun)
    assert 0 < len(kept) < len(small)

    monkeypatch.setattr(parts, "_LARGER_CHUNKS", {0: 64})
    monkeypatch.setattr(row_server, "MAX_HELD_ROWS", 0)
    monkeypatch.setattr(pipelines, "NUMBERS_PER_PIPELINE", 1)
    with monkeypatch.context() as patch:
        patch.setattr(run, "shared_captions", stop)
        with pytest.raises(Stopped):
            caption(job)
    added = parts_of(begun) - kept
    assert kept < parts_of(begun)
    assert sorted(row for name in added for row in parts.rows_of_part(name)) == [*range(32, 64), *range(96, 128)]
    assert {len(name.split("-")[1]) for name in added} == {len("0" * 16 + ".parquet")}
    caption(job)
    assert rows_of(begun) == wanted
