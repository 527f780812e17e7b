"""What may change between two starts of each job: run folders, tables and corpora begun before hang on these names."""

import subprocess
import sys

import pytest

from mama_ray.config import Config, decisive_values, names_that_may_change
from mama_ray.orchestration.captioning.job import CaptionJob
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.sweep.job import SweepJob
from mama_ray.orchestration.sweep.plan import plan_sweep
from mama_ray.orchestration.training.job import TrainJob

_OF_ALL_RUNS = {
    "storage", "run", "num_workers", "cpus_per_worker", "use_gpu", "log_every", "checkpoint_every",
    "num_checkpoints_to_keep", "max_failures", "num_micro_batches", "trackers",
}  # fmt: skip


@pytest.mark.parametrize(
    ("job", "names"),
    [
        (TrainJob, _OF_ALL_RUNS | {"placement", "record", "resize_every_s"}),
        (NarratorJob, _OF_ALL_RUNS | {"model_dtype", "val_captions"}),
        (CaptionJob, {"output", "pool", "dry_run", "engine", "shards", "corpus"}),
        (PrepareJob, {"output", "max_quarantined", "cpus_per_task", "damaged_shards", "corpus", "corpus_folder"}),
    ],
)
def test_a_job_begun_goes_on_with_other_values_of_these_fields_alone(job: type[Config], names: set[str]):
    assert names_that_may_change(job) == names


def test_the_trials_of_a_sweep_must_agree_in_the_steps_of_their_checkpoints_too(tmp_path):
    jobs = [SweepJob(storage=str(tmp_path), train=TrainJob(**changes)) for changes in (
        {}, {"checkpoint_every": 100}, {"log_every": 3, "num_workers": 1, "num_micro_batches": 2}
    )]  # fmt: skip
    first, other_checkpoints, other_workers = [plan_sweep(job).definition for job in jobs]
    assert first != other_checkpoints
    assert first == other_workers
    added_later = {"task"}  # left out at its default, or no sweep of an earlier version would go on
    kept = set(TrainJob.model_fields) - names_that_may_change(TrainJob)
    assert set(decisive_values(TrainJob())) == kept - added_later
    assert set(decisive_values(TrainJob(task={"kind": "question_answering"}))) == kept


def test_what_an_earlier_version_prepared_is_found_again():
    decode = {"max_bytes": 2 << 30, "max_duration_s": 14400.0, "max_pixels": 8192 * 4320, "max_replaced": 0.5}
    assert decisive_values(PrepareJob(videos="v")) == {
        "videos": "v",
        "annotations": None,
        "shards": None,
        "clips_per_shard": 256,
        "shard_name": "clips",
        "default_split": "train",
        "unknown_columns": "refuse",
        "caption_source": "human",
        "num_trial_frames": 4,
        "decode": decode | {"timeout_s": 120.0, "reader": "pyav"},
    }


def test_settings_are_imported_without_ray_and_torch():
    program = "import sys, mama_ray.orchestration.runs.settings; sys.exit(bool({'ray', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_an_earlier_version_captioned_is_found_again():
    values = decisive_values(CaptionJob())
    assert set(values) == {
        "split", "model", "prompt", "frames", "side", "sampling", "postprocess", "quality", "similarity", "decode",
    }  # fmt: skip
    assert set(values["frames"]) == {"key_frames", "layout", "num_candidates"}
    assert set(values["sampling"]) == {
        "num_captions", "temperature", "top_p", "max_tokens", "min_tokens", "seed",
    }  # fmt: skip
    shown = decisive_values(CaptionJob.model_validate({"frames": {"show": "video", "num_frames": 6}}))
    assert shown["frames"] == values["frames"] | {"show": "video", "num_frames": 6}
