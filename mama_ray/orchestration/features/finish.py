"""What makes a folder of feature files a table, and whose it is."""

import json
import logging
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from mama_ray.config import config_to_yaml, decisive_values
from mama_ray.data.index_rows import batches_of
from mama_ray.data.region_features.table import (
    CHUNK_CLIPS,
    INDEX_NAME,
    INDEX_SCHEMA,
    SUMMARY_NAME,
    TABLE_VERSION,
    FeatureShape,
    chunk_name,
    read_chunk_index,
)
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.orchestration.features.job import FeaturesJob
from mama_ray.orchestration.features.plan import FeaturePlan
from mama_ray.storage.files_of_others import refuse_others
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

JOB_NAME, _CONFIG_NAME = "job.json", "config.yaml"
_FILE = re.compile(r"features-(\d{8})\.parquet")
_FILES_PER_TASK = 128
_TASK_CPUS = 0.5
_ROWS_PER_GROUP = 1 << 20


def find_finished(job: FeaturesJob, plan: FeaturePlan, output: Place) -> dict | None:
    """Return the summary of a table that is finished; UserError when the folder holds another one, its begin, or
    files of others."""
    ours = _identity(job, plan)
    summary = (output / SUMMARY_NAME).read_json()
    begun = (output / JOB_NAME).read_json()
    theirs = summary.get("job") if isinstance(summary, dict) else begun
    if theirs is not None and not isinstance(theirs, dict):
        raise UserError("not the summary of a table of features", got=output / SUMMARY_NAME, wanted="its job")
    if theirs is None and summary is None:
        refuse_others(output, [_CONFIG_NAME, JOB_NAME, INDEX_NAME])  # the last is also that of shards
    # A start that failed before its first file was committed binds nobody.
    if theirs is not None and theirs != ours and (summary or list_chunks(output)):
        differing = sorted(key for key in ours if theirs.get(key) != ours[key])
        raise UserError(
            "the folder holds the table of another job",
            got=", ".join(f"{key} = {ours[key]}" for key in differing),
            wanted=", ".join(f"{key} = {theirs.get(key)}" for key in differing),
            remedy="choose another --output, or start it with its own config to go on",
        )
    return summary


def enter(job: FeaturesJob, plan: FeaturePlan, output: Place) -> None:
    """Write what makes the table this job's, and config.yaml, before any work."""
    (output / JOB_NAME).write_whole(json.dumps(_identity(job, plan), indent=1))
    (output / _CONFIG_NAME).write_whole(config_to_yaml(job))


def list_chunks(output: Place) -> set[int]:
    """Return the numbers of the files that were committed."""
    names = (_FILE.fullmatch(file.name) for file in output.files())
    return {int(name[1]) for name in names if name}


def write_index(plan: FeaturePlan) -> tuple[dict[str, int] | None, list[int]]:
    """Compare every file with the job's clips; then write the index.

    Returns the counts of the outcomes; or None and the numbers of files that are not whole, which are deleted.
    """
    num_chunks = -(-plan.num_rows // CHUNK_CLIPS)
    parts = [
        _check.options(num_returns=2).remote(
            plan.table, plan.output, range(num_chunks)[start : start + _FILES_PER_TASK], plan.shape
        )
        for start in range(0, num_chunks, _FILES_PER_TASK)
    ]
    damaged = [chunk for part, faults in parts for chunk in result_of(faults, part)]
    if damaged:
        return None, damaged
    return result_of(_write_index.remote(plan.output, [part for part, _ in parts])), []


def leave(job: FeaturesJob, plan: FeaturePlan, output: Place, outcomes: dict[str, int]) -> None:
    """Write the summary that makes the folder a table."""
    record = {
        "version": TABLE_VERSION,
        "job": _identity(job, plan),
        "shape": plan.shape.model_dump(),
        "num_rows": plan.num_rows,
        "outcomes": outcomes,
    }
    (output / SUMMARY_NAME).write_whole(json.dumps(record, indent=1))


@ray.remote(num_cpus=_TASK_CPUS, name="features: check files")
def _check(table: pa.Table | ServedRows, output: str, chunks: range, shape: FeatureShape) -> tuple[pa.Table, list[int]]:
    folder, found, damaged = Place.of(output), [], []
    with storage_errors(output):
        for chunk in chunks:
            rows = table.select(["clip_id", "sha256"]).slice(chunk * CHUNK_CLIPS, CHUNK_CLIPS)
            index = read_chunk_index(folder, chunk, shape)
            start = chunk * CHUNK_CLIPS
            if (
                index is None
                or index["row"].to_pylist() != list(range(start, start + len(rows)))
                or index["clip_id"].to_pylist() != rows["clip_id"].to_pylist()
                or index["video_sha256"].to_pylist() != rows["sha256"].to_pylist()
            ):
                logger.warning("%s is damaged and is made again", folder / chunk_name(chunk))
                (folder / chunk_name(chunk)).delete_file()
                damaged.append(chunk)
            else:
                found.append(index)
    return pa.concat_tables(found) if found else INDEX_SCHEMA.empty_table(), damaged


@ray.remote(num_cpus=_TASK_CPUS, name="features: write index")
def _write_index(output: str, parts: list[ray.ObjectRef]) -> dict[str, int]:
    """Write the index of parts, of which two are in memory at a time."""
    counts = {"features": 0, "error": 0}
    schema = ray.get(parts[0]).schema
    with (
        storage_errors(output),
        (Place.of(output) / INDEX_NAME).open_whole() as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        for group in batches_of(map(ray.get, parts), _ROWS_PER_GROUP):
            writer.write_table(group.replace_schema_metadata(schema.metadata), row_group_size=_ROWS_PER_GROUP)
            num_errors = pc.sum(pc.is_valid(group["error"])).as_py()
            counts["error"] += num_errors
            counts["features"] += len(group) - num_errors
    return counts


def _identity(job: FeaturesJob, plan: FeaturePlan) -> dict:
    """Return what decides on the content of the table, as JSON has it."""
    frames, regions = plan.weights_sha256
    weights = {"frame_model_sha256": frames, "detector_sha256": regions}
    facts = {"clips_sha256": plan.ids_sha256, "num_rows": plan.num_rows, "shape": plan.shape.model_dump()}
    return json.loads(json.dumps({**decisive_values(job), **facts, **weights}))
