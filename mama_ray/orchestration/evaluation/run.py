"""The evaluation job: a checkpoint on a benchmark gives recall both ways and by topic, with the protocol beside it.

    python jobs/evaluate.py --checkpoint URI --benchmark NAME --shards URI      # writes evaluation/<benchmark>.json

`--checkpoint` is a run (its best checkpoint by validation is taken; nothing here ever chooses by test numbers), a
checkpoint inside a run, or any folder that `from_pretrained` loads.
"""

import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import (
    BenchmarkConfig,
    Protocol,
    Result,
    ResultFile,
    comparison_table,
)
from mama_ray.evaluation.retrieval import recall_metrics
from mama_ray.evaluation.topics import head_tail_results, topic_results
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.named_configs import load_named
from mama_ray.orchestration.evaluation.embed import EmbedPlan, embed_clips
from mama_ray.orchestration.evaluation.examples import pick_examples
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.model import EvaluatedModel, find_model
from mama_ray.orchestration.evaluation.rank import Features, load_features, queries_of, rank_both_ways
from mama_ray.orchestration.evaluation.split import EvaluatedSplit, load_evaluated_split
from mama_ray.orchestration.evaluation.texts import tell_cut_texts
from mama_ray.orchestration.runs.report import report_run, write_page
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, join_uri

logger = logging.getLogger(__name__)

_MAX_NAMED_MISSING = 100


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, the URI of its JSON, the shards, and the URI of the run when it is one's."""

    file: ResultFile
    uri: str
    shards: str
    run: str | None

    def tables(self) -> str:
        """Return a table for each protocol, plain and dual softmax apart."""
        return "\n\n".join(comparison_table({result.label: result}) for result in self.file.results)


def evaluate(job: EvaluateJob) -> Evaluation:
    """Embed the benchmark's split with the checkpoint, rank, and write `<benchmark>.json`; see `Evaluation.tables`."""
    start = time.perf_counter()
    benchmark = load_benchmark(job.benchmark)
    model = find_model(job.checkpoint, benchmark, resize=job.resize)
    shards = job.shards or model.shards
    if shards is None:
        raise UserError("no shards to evaluate on", got="a model without its training config", wanted="--shards")
    output = job.output or join_uri(model.home, "evaluation")
    ensure_writable(output)
    ensure_readable(shards)
    connect()
    split = load_evaluated_split(shards, benchmark)
    plan = _embed_plan(job, shards, benchmark, model, split)
    tell_cut_texts(plan)
    features_uri = join_uri(output, f".features-{uuid.uuid4().hex[:12]}")
    try:
        embed_clips(
            plan,
            features_uri,
            num_actors=job.num_actors,
            use_gpu=job.use_gpu,
        )
        features = load_features(features_uri, split.table, split.num_clips)
    finally:
        _remove(features_uri)
    results = compute_results(benchmark, model, split, features, num_examples=job.num_examples)
    file = ResultFile(
        benchmark=Path(job.benchmark).stem,
        results=tuple(results),
        missing=tuple(_named_missing(split, features)),
        duration_s=round(time.perf_counter() - start, 3),
    )
    uri = join_uri(output, f"{file.benchmark}.json")
    Place.of(uri).write_whole(file.to_json())
    return Evaluation(file, uri, shards, model.home if model.name.step is not None and job.output is None else None)


def run(job: EvaluateJob) -> str:
    """Evaluate, print a table per protocol and, for a run, renew its report; returns the line that names the result."""
    found = evaluate(job)
    print(found.tables())  # noqa: T201 - the job's result
    if found.run is None:
        return f"evaluated: {found.uri}"
    name = found.run.rstrip("/").rsplit("/", 1)[-1]
    page, result = report_run(name, found.run, found.shards, benchmark=found.file.benchmark)
    report = write_page(join_uri(found.run, "report"), f"Run {name}", [page], result)
    return f"evaluated: {found.uri}, report {report}"


def load_benchmark(name: str) -> BenchmarkConfig:
    """Load a benchmark by its name in configs/benchmark or by the path of its file."""
    return load_named(BenchmarkConfig, "benchmark", name)


def compute_results(
    benchmark: BenchmarkConfig, model: EvaluatedModel, split: EvaluatedSplit, features: Features, *, num_examples: int
) -> list[Result]:
    """Rank under each of the benchmark's protocols; the plain one carries the examples."""
    queries = queries_of(features, benchmark)
    present = np.setdiff1d(features.clip_codes, list(features.errors) if benchmark.missing == "excluded" else [])
    topics, ids_sha256 = split.topics_and_hash(present)
    query_topics = {way: [topics[row] for row in rows] for way, rows in queries.items()}
    wanted = {"off": [False], "on": [True], "both": [False, True]}[benchmark.dual_softmax]
    results = []
    for dual_softmax in wanted:
        ranks = rank_both_ways(features, benchmark, dual_softmax=dual_softmax)
        metrics = {f"{way}_{key}": value for way in ranks for key, value in recall_metrics(ranks[way]).items()}
        head, tail = head_tail_results(ranks, query_topics, split.train_counts)
        results.append(
            Result(
                label="dual_softmax" if dual_softmax else "plain",
                protocol=_protocol(benchmark, model, queries, ids_sha256, len(features.errors), dual_softmax),
                checkpoint=model.name,
                metrics=metrics,
                topics=topic_results(ranks, query_topics, split.train_counts),
                head=head,
                tail=tail,
                examples=() if dual_softmax else pick_examples(benchmark, split, features, ranks["t2v"], num_examples),
            )
        )
    return results


def _protocol(
    benchmark: BenchmarkConfig,
    model: EvaluatedModel,
    queries: dict,
    ids_sha256: str,
    num_missing: int,
    dual_softmax: bool,
) -> Protocol:
    return Protocol(
        dataset=benchmark.dataset,
        split=benchmark.split,
        ids_sha256=ids_sha256,
        num_videos=len(queries["v2t"]),
        num_texts=len(queries["t2v"]),
        caption_mode=benchmark.caption_mode,
        video_to_text=benchmark.video_to_text,
        text_length=model.text_length,
        num_frames=model.num_frames,
        sampling="centres of equal segments",
        image_size=model.transform.image_size,
        resize=model.transform.resize,
        trim_s=benchmark.trim_s,
        ties=benchmark.ties,
        dual_softmax=dual_softmax,
        dual_softmax_negatives="as_is" if dual_softmax else None,
        missing_rule=benchmark.missing,
        num_missing=num_missing,
    )


def _embed_plan(
    job: EvaluateJob, shards: str, benchmark: BenchmarkConfig, model: EvaluatedModel, split: EvaluatedSplit
) -> EmbedPlan:
    return EmbedPlan(
        table=split.table,
        num_clips=split.num_clips,
        shards=shards,
        model=model.uri,
        caption_mode=benchmark.caption_mode,
        text_length=model.text_length,
        num_frames=model.num_frames,
        transform=TransformConfig(image_size=model.transform.image_size, resize=model.transform.resize),
        decode=job.decode,
        batch_size=job.batch_size,
    )


def _named_missing(split: EvaluatedSplit, features: Features) -> list[dict[str, str]]:
    rows = np.array(sorted(features.errors)[:_MAX_NAMED_MISSING], dtype=np.int64)
    if not len(rows):
        return []
    logger.warning("%d of %d clips could not be decoded", len(features.errors), split.num_clips)
    clips = split.pick(rows)
    return [
        {"clip_id": clip["clip_id"], "error": features.errors[int(row)]} for clip, row in zip(clips, rows, strict=True)
    ]


def _remove(uri: str) -> None:
    place = Place.of(uri)
    try:
        place.delete_folder()
    except OSError as error:
        logger.warning("features stay at %s: %s", uri, error)
