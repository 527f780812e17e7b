"""What an extraction is to do: loaded in tasks, so that the driver holds counts and chunk numbers alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray

from mama_ray.data.contents import hash_in_order
from mama_ray.data.index_rows import IndexRows, choose_rows
from mama_ray.data.region_features.table import FeatureShape
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.features.frames import FrameEncoder, load_frame_encoder
from mama_ray.features.regions import RegionDetector, load_region_detector
from mama_ray.models.weight_files import hash_weights
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.features.job import FeaturesJob
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

_COLUMNS = ("clip_id", "shard", "offset", "num_bytes", "sha256")
_TASK_CPUS, _TRANSFORMERS_CPUS = 0.5, 1.0


@dataclass(frozen=True)
class FeaturePlan:
    """What tasks and actors need to know; picklable and small.

    `table` refers to what takes the job's rows of the index: a table, or what takes rows as a table does.
    """

    table: ray.ObjectRef
    num_rows: int
    ids_sha256: str
    shards: str
    output: str
    frame_model: str
    detector: str
    shape: FeatureShape
    weights_sha256: tuple[str, str]
    decode: DecodeConfig


def make_plan(job: FeaturesJob) -> FeaturePlan:
    """Check shards and models, in tasks. Raises UserError for whatever is wrong with them."""
    table, facts = _load_clips.options(num_returns=2).remote(job.shards, job.split, row_server.MAX_HELD_ROWS)
    num_rows, ids_sha256 = result_of(facts, table)
    table = row_server.shared_rows(table, num_rows, _COLUMNS)
    shape, hashes = result_of(_look_at_models.remote(job))
    return FeaturePlan(
        table, num_rows, ids_sha256, job.shards, job.output, job.frame_model, job.detector, shape, hashes, job.decode
    )


@contextmanager
def loaded_models(
    frame_model: str, detector: str, num_regions: int, device: str
) -> Iterator[tuple[FrameEncoder, RegionDetector, tuple[str, str]]]:
    """Give both models and the hashes of their weights; a download lasts as long as the block."""
    with _local(frame_model) as frames, _local(detector) as regions:
        yield (
            load_frame_encoder(frames, device=device),
            load_region_detector(regions, num_regions=num_regions, device=device),
            (hash_weights(frames), hash_weights(regions)),
        )


@contextmanager
def _local(source: str) -> Iterator[Path]:
    if "://" not in source and source.startswith("/"):  # a folder or a file, also where nothing is
        if not Path(source).exists():
            raise UserError("model is missing", got=source, wanted="a folder of transformers, or a file of weights")
        yield Path(source)
    else:
        with model_folder(source) as folder:
            yield folder


@ray.remote(num_cpus=_TASK_CPUS, name="features: load clips")
def _load_clips(shards: str, split: str | None, max_held: int) -> tuple[pa.Table | IndexRows, tuple[int, str]]:
    """Return the rows of a job, as a table where they are at most `max_held`."""
    with storage_errors(shards):
        rows, _ = choose_rows(Place.of(shards), split, _COLUMNS)
        if not len(rows):
            raise UserError("no clips to look at", got=f"{shards}, split {split or 'any'}", wanted="at least one clip")
        sha256 = hash_in_order(rows)
        return rows.read() if len(rows) <= max_held else rows, (len(rows), sha256)


@ray.remote(num_cpus=_TRANSFORMERS_CPUS, name="features: look at models")
def _look_at_models(job: FeaturesJob) -> tuple[FeatureShape, tuple[str, str]]:
    start_worker_logging()
    with loaded_models(job.frame_model, job.detector, job.num_regions, "cpu") as (frame_encoder, detector, hashes):
        shape = FeatureShape(
            num_clips=job.num_clips,
            frames_per_clip=job.frames_per_clip,
            num_regions=job.num_regions,
            frame_dim=frame_encoder.dim,
            region_dim=detector.dim,
        )
    return shape, hashes
