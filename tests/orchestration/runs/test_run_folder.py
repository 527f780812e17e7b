"""What a run that has begun goes on with: its own settings, what its places hold, and no other length but by leave."""

import json

import pytest

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.runs.run_folder import BegunRun, compare_with_begun, write_run_config
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.storage.places import Place
from mama_ray.training.manifest import step_directory, write_manifest

CONSTANT = {"optim.warmup_share": 0.0, "optim.final_lr_share": 1.0}


def job_of(**overrides) -> TrainJob:
    return with_overrides(TrainJob(global_batch_size=16, num_epochs=3), {"shards": "/a", **overrides})


@pytest.fixture
def begin(tmp_path):
    """Leave the folder of a run that is done: 96 clips, 18 steps."""

    def begin(job: TrainJob, contents: dict | None = None) -> Place:
        folder = tmp_path / "run"
        directory = folder / "checkpoints" / step_directory(18)
        directory.mkdir(parents=True)
        (directory / "train_state.json").write_text(json.dumps({"step": 18, "num_steps": 18, "global_batch_size": 16}))
        write_manifest(directory, step=18, selection=None)
        data = {"num_clips": {"train": 96}} | ({} if contents is None else {"contents": contents})
        (folder / "environment.json").write_text(json.dumps({"data": data}))
        write_run_config(job, Place.of(folder))
        return Place.of(folder)

    return begin


def test_a_new_folder_has_not_begun(tmp_path):
    write_run_config(job_of(), Place.of(tmp_path))
    assert compare_with_begun(job_of(**{"optim.lr": 1.0}), Place.of(tmp_path)) is None


@pytest.mark.parametrize("name", ["study.db", "trials"])
def test_the_folder_of_a_sweep_is_refused_before_its_config_is_replaced(tmp_path, name):
    (tmp_path / name).mkdir() if name == "trials" else (tmp_path / name).touch()
    with pytest.raises(UserError, match="is that of a sweep: got .*; give --run another name"):
        compare_with_begun(job_of(), Place.of(tmp_path))


def test_places_may_be_given_otherwise_and_are_told_apart_from_settings(begin):
    folder = begin(job_of(**{"data.tokenizer": "/t", "data.caption_tables": ["/c"]}), {"shards": "x"})
    moved = job_of(shards="/b", **{"data.tokenizer": "/t", "data.caption_tables": ["/d"], "model.pretrained": "/w"})
    assert compare_with_begun(moved, folder) == BegunRun(
        frozenset({"shards", "data.caption_tables", "model.pretrained"}), {"shards": "x"}
    )
    with pytest.raises(UserError, match=r"another config: got data = .*'resize': 'center_crop'") as refused:
        compare_with_begun(job_of(shards="/b", **{"data.resize": "center_crop"}), folder)
    assert "/b" not in str(refused.value)


def test_what_places_hold_must_be_the_same():
    begun = BegunRun(frozenset({"shards"}), {"shards": "x", "model.pretrained": None})
    begun.refuse_others("r", {"shards": "x", "model.pretrained": None, "data.tokenizer": "new"}, {})
    with pytest.raises(UserError, match="began with other contents of shards: got /b with sha256 y, wanted sha256 x"):
        begun.refuse_others("r", {"shards": "y"}, {"shards": "/b"})
    with pytest.raises(UserError, match="other contents of model.pretrained"):
        begun.refuse_others("r", {"model.pretrained": "z"}, {"model.pretrained": "/w"})


def test_of_a_run_that_noted_no_hash_a_moved_place_is_refused_and_an_old_one_is_not(begin):
    folder = begin(job_of())
    begun = compare_with_begun(job_of(), folder)
    begun.refuse_others("r", {"shards": "y", "model.pretrained": None}, {})
    begun = compare_with_begun(job_of(shards="/b"), folder)
    with pytest.raises(UserError, match="another shards, and noted no hash"):
        begun.refuse_others("r", {"shards": "y"}, {"shards": "/b"})


def test_settings_that_were_added_since_have_their_defaults(begin):
    folder = begin(job_of())
    place = folder / "config.yaml"
    place.write_whole("\n".join(line for line in place.read_text().splitlines() if "caption_mode" not in line))
    assert compare_with_begun(job_of(), folder) is not None
    with pytest.raises(UserError, match="another config"):
        compare_with_begun(job_of(**{"data.caption_mode": "paragraph"}), folder)


def test_a_run_is_made_longer_where_its_schedule_does_not_go_by_its_length(begin):
    folder = begin(job_of(**CONSTANT))
    assert compare_with_begun(job_of(num_epochs=6, **CONSTANT), folder) is not None
    with pytest.raises(UserError, match="another config"):
        compare_with_begun(job_of(num_epochs=6, **CONSTANT, **{"optim.lr": 1.0}), folder)
    with pytest.raises(UserError, match="cannot change its length"):  # it has done more
        compare_with_begun(job_of(num_epochs=1, **CONSTANT), folder)


@pytest.mark.parametrize("settings", [{}, CONSTANT | {"weighting.kind": "self_paced"}])
def test_else_it_is_told_how_to_start_from_its_weights(begin, settings):
    folder = begin(job_of(**settings))
    with pytest.raises(UserError, match="cannot change its length") as refused:
        compare_with_begun(job_of(num_epochs=6, **settings), folder)
    assert f"--model.pretrained {folder / 'checkpoints' / step_directory(18)}" in str(refused.value)
