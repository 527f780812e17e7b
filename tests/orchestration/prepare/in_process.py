"""A prepare without Ray: the same tasks, one after the other in this process."""

import csv
import io
import json
from pathlib import Path

from mama_ray.data.index import read_index
from mama_ray.orchestration.prepare.foreign import ShardWork, index_shard
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.join import join_parts
from mama_ray.orchestration.prepare.plan import Plan, look_at_annotations, make_plan, video_work
from mama_ray.orchestration.prepare.videos import write_chunk_shard
from mama_ray.storage.places import Place

DONE = "already prepared"
NAMES = ("a", "b", "c", "d", "e")  # of the videos in a test's folder


def prepare(**options) -> str:
    """Return the last line that `run` would."""
    job = PrepareJob(**options)
    if job.annotations:
        look_at_annotations(job)
    plan = make_plan(job)
    if plan is None:
        return DONE
    run_tasks(job, plan)
    return join_parts(
        job.shards or job.output,
        plan.names,
        mends=plan.mends,
        damaged_shards_are_refused=job.damaged_shards == "refuse",
        max_quarantined=job.max_quarantined,
    )


def run_tasks(job: PrepareJob, plan: Plan) -> None:
    """Do what the tasks do."""
    if job.shards:
        common = (job.shards, job.default_split, job.caption_source, job.num_trial_frames, job.decode)
        work = ShardWork(*common, unknown_splits=job.unknown_columns)
        for name, shard in zip(plan.names, plan.shards, strict=True):
            index_shard(work, name, shard)
    for number in plan.chunks:
        write_chunk_shard(video_work(job), number)


def captions(folder: Path) -> dict[str, list[str]]:
    """Texts of each clip of the index, by video_id."""
    rows = read_index(Place.of(folder)).to_pylist()
    assert len({row["clip_id"] for row in rows}) == len(rows) == len({row["video_id"] for row in rows})
    return {row["video_id"]: [caption["text"] for caption in row["captions"]] for row in rows}


def reasons(folder: Path) -> list[str]:
    """Those of quarantine.csv."""
    text = (folder / "quarantine.csv").read_text(encoding="utf-8-sig")
    return [row["reason"] for row in csv.DictReader(io.StringIO(text))]


def options(folder: Path, table: str | list | bytes | None = None, name: str = "t.csv", **changes) -> dict:
    """Options of a prepare; `table` is a file's content, or rows for a file of JSON lines."""
    places = {"videos": str(folder / "videos"), "output": str(folder / "out"), "clips_per_shard": 2}
    if isinstance(table, list):
        name, table = "t.jsonl", "".join(json.dumps(row) + "\n" for row in table)
    if table is not None:
        (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())
        places["annotations"] = str(folder / name)
    return {**places, **changes}


def index_rows(folder: Path) -> list[dict]:
    return read_index(Place.of(folder / "out")).to_pylist()
