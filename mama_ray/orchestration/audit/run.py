"""The audit job: the record of a run becomes a table per clip, a list to exclude, a corrected caption table, a page.

    python jobs/audit.py --run RUN [--captions TABLE] [--output FOLDER]

Everything in the folder is written whole, `audit.json` last; an audit that is made again replaces it.
"""

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from mama_ray.auditing.exclusions import EXCLUDE_NAME, exclusions_to_csv
from mama_ray.auditing.judging import AuditedClips, ScoreName, exclusions_of, judge_clips
from mama_ray.auditing.sums import RecordMeans
from mama_ray.auditing.table import AUDIT_NAME, REWRITE, SUMMARY_NAME
from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.masking import mask_text
from mama_ray.orchestration.audit.corrected import CORRECTED_NAME, corrected_row, write_corrected
from mama_ray.orchestration.audit.inputs import AuditedRun, load_run, offsets_of, read_means, read_training
from mama_ray.orchestration.audit.job import AuditJob, with_absolute_paths
from mama_ray.orchestration.audit.page import write_audit_page
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.embed import EmbedPlan, embed_clips, read_features
from mama_ray.orchestration.evaluation.features_folder import features_folder
from mama_ray.orchestration.evaluation.model import EvaluatedModel, find_model
from mama_ray.orchestration.evaluation.run import load_benchmark
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)


def run(job: AuditJob) -> str:
    """Audit a run; returns the line that names what came of it."""
    job = with_absolute_paths(job)
    output = job.output or join_uri(job.run, "audit")
    ensure_readable(job.run, job.shards, *job.captions)
    training, newest = read_training(job)
    ensure_writable(output)
    folder = Place.of(output)
    folder.make_folder()
    with Lease(folder / LEASE_NAME, "audit"):
        benchmark = load_benchmark("own")
        assert isinstance(benchmark, BenchmarkConfig)
        model = find_model(job.encoder or job.run, benchmark)
        connect()
        audited = load_run(training, newest)
        table = judge(job, audited, model, folder)
        return write_audit(job, audited, model, table, folder)


def judge(job: AuditJob, audited: AuditedRun, model: EvaluatedModel, folder: Place) -> pa.Table:
    """Return the audit's table: the record's means beside what the encoder says of captions."""
    clips, means = read_means.options(num_returns=2).remote(audited, job.captions)
    count = result_of(_count.remote(clips), means)
    plan = EmbedPlan(
        table=clips,
        num_clips=count,
        shards=audited.shards,
        model=model.uri,
        caption_mode="multi",
        text_length=model.text_length,
        num_frames=model.num_frames,
        transform=model.transform,
        decode=model.decoding(job.decode),
        batch_size=job.batch_size,
        features=model.features,
        num_regions=model.num_regions,
    )
    with features_folder(folder) as features, storage_errors(folder.uri):
        embed_clips(plan, features, num_actors=job.num_actors, use_gpu=job.use_gpu)
        return result_of(_judge.remote(clips, means, features, job.by, job.share, job.num_compared))


def write_audit(job: AuditJob, audited: AuditedRun, model: EvaluatedModel, table: pa.Table, folder: Place) -> str:
    """Write the files of an audit; returns the line that tells them."""
    exclusions = exclusions_of(table, job.by)
    rows = [row for row in table.to_pylist() if row["verdict"] == REWRITE]
    better = [
        corrected_row(row["clip_id"], row["video_sha256"], row["better_text"], row["better_source"], by="audit")
        for row in rows
    ]
    summary = {
        "run": mask_text(job.run),
        "shards": mask_text(audited.shards),
        "step": audited.step,
        "encoder": mask_text(model.uri),
        "by": job.by,
        "share": job.share,
        "num_clips": len(table),
        "num_excluded": len(exclusions),
        "num_rewritten": len(better),
    }
    with storage_errors(folder.uri):
        (folder / AUDIT_NAME).write_whole(lambda stream: pq.write_table(table, stream, compression="zstd"))
        (folder / EXCLUDE_NAME).write_whole(exclusions_to_csv(exclusions))
        write_corrected(folder / CORRECTED_NAME, better, origin=mask_text(job.run))
        page = write_audit_page(folder, table, summary, audited.shards)
        (folder / SUMMARY_NAME).write_whole(json.dumps(summary, indent=1))
    logger.info("page: %s", page)
    told = f"{len(exclusions):,} captions to leave out, for {len(better):,} of them there is a better one"
    return f"audited {len(table):,} clips, {told}: {folder}"


@ray.remote(num_cpus=0.5, name="audit: count")
def _count(clips: pa.Table) -> int:
    return len(clips)


@ray.remote(num_cpus=1, name="audit: judge")
def _judge(
    clips: pa.Table, means: RecordMeans, features: str, by: ScoreName, share: float, num_compared: int
) -> pa.Table:
    videos, texts, _, errors = read_features(Place.of(features), len(clips))
    unreadable = np.zeros(len(clips), bool)
    unreadable[list(errors)] = True
    found = AuditedClips(clips, offsets_of(clips), means, videos, texts, unreadable)
    return judge_clips(found, by=by, share=share, num_compared=num_compared)
