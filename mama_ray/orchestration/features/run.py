"""The extraction of features: every clip of the shards through a ResNet and a detector, each exactly once.

    python jobs/features.py --shards URI --frame_model DIR_OR_HUB_ID --detector DIR_OR_HUB_ID --output URI

Started again with the same it goes on: what was committed stays, at most the chunks in flight are made again.
"""

import logging
import os
import time

from mama_ray.data.index_look import look_at_index
from mama_ray.data.region_features.table import CHUNK_CLIPS
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.model_source import look_at_model
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.orchestration.features.finish import enter, find_finished, leave, list_chunks, write_index
from mama_ray.orchestration.features.job import FeaturesJob, with_absolute_paths
from mama_ray.orchestration.features.plan import FeaturePlan, make_plan
from mama_ray.orchestration.features.pool import fit_pool, run_chunks
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

_MAX_PASSES = 3  # a second one is for files that a power failure damaged
_LINE_EVERY_S = 30.0


def make_features(job: FeaturesJob) -> str:
    """Write or complete a table of features; returns the line that names it."""
    job = with_absolute_paths(job)
    output = Place.of(job.output)
    ensure_writable(job.output)
    ensure_readable(job.shards, job.frame_model, job.detector)
    for source in (job.frame_model, job.detector):
        look_at_model(source)
    _look_at_clips(job)
    with Lease(output / LEASE_NAME, "table of features"):
        connect()
        fit_pool(job.actors, is_cluster="RAY_ADDRESS" in os.environ)
        with user_errors(), storage_errors(job.output):
            return _make(job, output)


def _look_at_clips(job: FeaturesJob) -> None:
    """Raise UserError for shards without an index, and for a split without clips."""
    counts = look_at_index(Place.of(job.shards))
    if counts is not None and not (counts[job.split] if job.split else sum(counts.values())):
        raise UserError(
            "no clips to look at",
            got=f"{job.shards}, split {job.split or 'any'}",
            wanted=", ".join(f"{name} ({count} clips)" for name, count in counts.items() if count) or "some clips",
        )


def _make(job: FeaturesJob, output: Place) -> str:
    started = time.monotonic()
    plan = make_plan(job)
    finished = find_finished(job, plan, output)
    if finished is not None:
        return f"done already, {finished['num_rows']} clips: {job.output}"
    enter(job, plan, output)
    num_chunks = -(-plan.num_rows // CHUNK_CLIPS)
    for _ in range(_MAX_PASSES):
        pending = sorted(set(range(num_chunks)) - list_chunks(output))
        logger.info("%d of %d chunks of %d clips to do", len(pending), num_chunks, CHUNK_CLIPS)
        if pending:
            _run(plan, pending, job)
        outcomes, damaged = write_index(plan)
        if outcomes is not None:
            break
    else:
        raise UserError("files of the table are damaged again and again", got=damaged, remedy="check the storage")
    if not outcomes["features"]:
        raise UserError(
            "no clip has features",
            got=f"{outcomes['error']} errors, such as: {_first_error(output)}",
            remedy="see the column error of index.parquet, mend it and choose another --output",
        )
    leave(job, plan, output, outcomes)
    told = f"{outcomes['features']} with features, {outcomes['error']} errors"
    return f"looked at {plan.num_rows} clips in {time.monotonic() - started:.0f} s ({told}): {job.output}"


def _run(plan: FeaturePlan, pending: list[int], job: FeaturesJob) -> None:
    began = told = time.monotonic()
    num_clips = num_errors = num_done = 0
    for clips, errors, _ in run_chunks(plan, pending, job.actors):
        num_clips, num_errors, num_done = num_clips + clips, num_errors + errors, num_done + 1
        now = time.monotonic()
        if now - told > _LINE_EVERY_S or num_done == len(pending):
            told, rate = now, num_clips / max(now - began, 1e-9)
            left_s = (len(pending) - num_done) * CHUNK_CLIPS / max(rate, 1e-9)
            logger.info(
                "features: %d of %d chunks, %.2f clips/s, %d errors, %.0f s left",
                *(num_done, len(pending), rate, num_errors, left_s),
            )


def _first_error(output: Place) -> str:
    import pyarrow.parquet as pq

    from mama_ray.data.region_features.table import INDEX_NAME
    from mama_ray.storage.parquet import read_parquet

    def read(parquet: pq.ParquetFile) -> str:
        return next(error for error in parquet.read(columns=["error"])["error"].to_pylist() if error)

    return read_parquet(output / INDEX_NAME, read)
