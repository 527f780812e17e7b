"""Where the app keeps what it makes for itself, and what it tells of a model that does not fit."""

import logging
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.indexing.job import IndexJob, with_absolute_paths
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.job import with_absolute_paths as app_with_absolute_paths
from mama_ray.orchestration.serving.opening import open_state, own_index, warn_of_unknown
from mama_ray.search.embedding_parts import IDENTITY_NAME, TableIdentity
from mama_ray.storage.places import Place
from tests.orchestration.indexing.index_runs import clip_of, write_shards


def test_each_model_has_an_index_of_its_own_and_the_first_keeps_the_plain_name(tmp_path):
    first = Path(own_index(str(tmp_path), "/runs/mine"))
    assert first == tmp_path / "index"
    identity = TableIdentity(version=1, model_hash="0" * 64, model="/runs/mine", shards="/shards", dim=4)
    first.mkdir()
    (first / IDENTITY_NAME).write_text(identity.model_dump_json())
    assert own_index(str(tmp_path), "/runs/mine") == str(first)
    others = {own_index(str(tmp_path), model) for model in ("embedded", "hf:me/mine", "embedded")}
    assert len(others) == 2
    assert all(Path(other).parent == tmp_path for other in others | {str(first)})


@pytest.mark.parametrize("option", ["run", "narrator"])
def test_a_model_that_is_not_there_ends_the_start(tmp_path, option):
    job = AppJob.model_validate({"data": str(tmp_path / "data"), option: str(tmp_path / "nothing/here")})
    with pytest.raises(UserError, match="no such model: got .*/nothing/here"):
        open_state(job)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("embedded", "embedded"),
        ("runs/mine", "{here}/runs/mine"),
        ("hf:runs/mine", "hf:{here}/runs/mine"),
        ("./nothing", "{here}/nothing"),
        ("me/mine", "me/mine"),
        ("hf:me/mine", "hf:me/mine"),
        ("s3://bucket/runs/mine", "s3://bucket/runs/mine"),
    ],
)
def test_actors_and_replicas_are_told_where_a_model_is_from_any_folder(tmp_path, monkeypatch, model, wanted):
    (tmp_path / "runs/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths(IndexJob(shards="shards", model=model)).model == wanted.format(here=tmp_path)
    assert app_with_absolute_paths(AppJob(run=model)).run == wanted.format(here=tmp_path)
    assert app_with_absolute_paths(AppJob()).run is None


def test_a_run_that_a_submitted_job_did_not_bring_along_ends_the_start(tmp_path):
    run = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1/runs/mine"
    with pytest.raises(UserError, match="not in the working directory that was submitted"):
        open_state(AppJob(data=str(tmp_path / "data"), run=str(run)))


def test_the_encoder_of_the_package_is_told_to_know_nothing_of_other_clips(tmp_path, small_shards, caplog):
    others = write_shards(tmp_path / "shards", [[clip_of(number) for number in range(3)]])
    with caplog.at_level(logging.WARNING):
        warn_of_unknown(Place.of(small_shards))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "at least 3 clips of other videos" in told[0], "the three with hostile captions"
    with caplog.at_level(logging.WARNING):
        warn_of_unknown(Place.of(others))
    assert len(caplog.records) == 2
