"""Evaluation on a benchmark of annotated clips: what is right lies in official files, clips in shards, tied by clip_id.

It leaves `<benchmark>.json`, an `AnnotatedResult`. The driver reads the annotations; features go from the actors to the
storage and from there to the task that scores them.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.index_look import look_at_index
from mama_ray.data.index_rows import choose_rows
from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import (
    AnnotatedBenchmark,
    AnnotatedResult,
    ClassificationBenchmark,
    MultipleChoiceBenchmark,
    result_table,
)
from mama_ray.evaluation.annotated_result import make_result
from mama_ray.evaluation.annotated_scores import (
    choice_scores,
    head_scores,
    measure_choices,
    measure_classes,
    measure_multi_instance,
    zero_shot_scores,
)
from mama_ray.evaluation.multi_instance import similarity_of_features
from mama_ray.evaluation.protocol import BenchmarkConfig, describe_checkpoint
from mama_ray.evaluation.targets import ChoiceTargets, MultiInstanceTargets, Targets, read_targets
from mama_ray.models.heads.classes import ClassHeadFile
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.class_heads import check_targets, tells_classes
from mama_ray.orchestration.evaluation.embed import EmbedPlan, embed_clips, load_encoder, read_features
from mama_ray.orchestration.evaluation.features_folder import features_folder
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.model import EvaluatedModel, find_model
from mama_ray.orchestration.evaluation.texts import tell_cut_texts
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)

_COLUMNS = ["clip_id", "shard", "offset", "num_bytes", "sha256"]
_TASK_CPUS = 0.5
_MAX_NAMED = 100


@dataclass(frozen=True)
class AnnotatedClips:
    """The benchmark's clips that the shards have, in its order.

    Attributes:
        table: rows of the index of these alone.
        places: of each row, which of the benchmark's clips it is.
    """

    table: ray.ObjectRef
    places: np.ndarray


def run_annotated(job: EvaluateJob, benchmark: AnnotatedBenchmark) -> str:
    """Embed, score, write the result, print the table; returns the line that names the result."""
    result, uri = evaluate_annotated(job, benchmark)
    print(result_table(result))  # noqa: T201 - the job's result
    if result.warning:
        logger.warning("%s", result.warning)
    return f"evaluated {result.source} on {result.protocol.name}: {uri}"


def evaluate_annotated(job: EvaluateJob, benchmark: AnnotatedBenchmark) -> tuple[AnnotatedResult, str]:
    """Evaluate and write the result; returns it with its URI."""
    start = time.perf_counter()
    if job.annotations is None:
        wanted = "the folder of its official files"
        raise UserError(f"no annotations of {benchmark.dataset}", wanted=wanted, remedy="name it: --annotations")
    sizes = BenchmarkConfig(
        dataset=benchmark.dataset,
        text_length=benchmark.text_length,
        num_frames=benchmark.num_frames,
        image_size=benchmark.image_size,
    )
    model = find_model(job.checkpoint, sizes, resize=job.resize, sampling=job.asked_sampling, features=job.features)
    shards = job.shards or model.shards
    if shards is None:
        raise UserError("no shards to evaluate on", got="a model without its training config", wanted="--shards")
    output = job.output or join_uri(model.home, "evaluation")
    ensure_writable(output)
    ensure_readable(shards)
    look_at_index(Place.of(shards))
    head = model.class_head if tells_classes(benchmark, model) else None
    # What is wrong with official files is told before Ray starts, where they alone say which clips count.
    known = _read_targets(job.annotations, benchmark, None) if benchmark.split == "test" else None
    check_targets(benchmark, known, head)
    connect()
    targets, clips = load_clips(shards, job.annotations, benchmark, known)
    check_targets(benchmark, targets, head)
    plan = make_plan(job, benchmark, model, shards, clips)
    tell_cut_texts(plan, targets.texts)
    with features_folder(Place.of(output)) as folder:
        embed_clips(plan, folder, num_actors=job.num_actors, use_gpu=job.use_gpu)
        texts = None
        if not plan.tells_classes:
            texts = _embed_texts.options(num_gpus=1 if job.use_gpu else 0).remote(plan, targets.texts)
        scored = _score.remote(folder, texts, benchmark, targets, clips.places, head)
        metrics, errors = result_of(scored, *([] if texts is None else [texts]))
    missing = _name_missing(targets, clips, errors)
    result = make_result(
        benchmark, targets, metrics, source=describe_checkpoint(model.name), num_missing=len(missing),
        **_protocol_of(benchmark, model, tells_classes=plan.tells_classes),
    ).model_copy(update={
        "checkpoint": model.name, "missing": tuple(missing[:_MAX_NAMED]),
        "duration_s": round(time.perf_counter() - start, 3),
    })  # fmt: skip
    uri = join_uri(output, f"{Path(job.benchmark).stem}.json")
    with storage_errors(uri):
        Place.of(uri).write_whole(result.to_json())
    return result, uri


def _read_targets(annotations: str, benchmark: AnnotatedBenchmark, among: set[str] | None) -> Targets:
    with storage_errors(annotations), Place.of(annotations).local() as folder:
        if not folder.is_dir():
            raise UserError("no folder of annotations", got=annotations, wanted="the folder of the official files")
        return read_targets(benchmark, folder, among)


def load_clips(
    shards: str, annotations: str, benchmark: AnnotatedBenchmark, known: Targets | None = None
) -> tuple[Targets, AnnotatedClips]:
    """Tie the annotations to the split's clips; UserError where they have none in common.

    known: the annotations, where they have been read; those of a held-out split are of its clips alone.
    """
    reference, found = _load_split.options(num_returns=2).remote(shards, benchmark.split)
    clip_ids = result_of(found, reference)
    targets = known if known is not None else _read_targets(annotations, benchmark, set(clip_ids))
    rows = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    places = [place for place, clip_id in enumerate(targets.clip_ids) if clip_id in rows]
    if not places:
        raise UserError(
            f"the annotations are of none of the clips of split {benchmark.split}",
            got=f"{targets.clip_ids[0] if targets.clip_ids else 'no clip'} there and {clip_ids[0]} in {shards}",
            wanted="the files of the split that the shards were made of",
            remedy="make their rows with python -m mama_ray.data.benchmarks",
        )  # fmt: skip
    chosen = np.array([rows[targets.clip_ids[place]] for place in places])
    return targets, AnnotatedClips(_take.remote(reference, chosen), np.array(places))


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: load split")
def _load_split(shards: str, split: str) -> tuple[pa.Table, list[str]]:
    folder = Place.of(shards)
    with storage_errors(shards):
        rows, _ = choose_rows(folder, split, _COLUMNS)
        table = rows.read()
    if not len(table):
        raise UserError(f"no clips of split {split} to evaluate on", got=shards, remedy="name their split in the rows")
    return table, table["clip_id"].to_pylist()


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: pick clips")
def _take(table: pa.Table, rows: np.ndarray) -> pa.Table:
    return table.take(pa.array(rows)).combine_chunks()


def make_plan(
    job: EvaluateJob, benchmark: AnnotatedBenchmark, model: EvaluatedModel, shards: str, clips: AnnotatedClips
) -> EmbedPlan:
    """Return what tasks and actors need; UserError for several views of a model that reads features, and for heads that
    the model has not."""
    if model.features is not None and benchmark.views.num_views > 1:
        raise UserError("several views", got="a model that reads features", wanted="one that sees pixels")
    return EmbedPlan(
        table=clips.table,
        num_clips=len(clips.places),
        shards=shards,
        model=model.uri,
        caption_mode=None,
        text_length=model.text_length,
        num_frames=model.num_frames,
        transform=model.transform,
        decode=model.decoding(job.decode),
        batch_size=job.batch_size,
        features=model.features,
        num_regions=model.num_regions,
        views=benchmark.views,
        tells_classes=tells_classes(benchmark, model),
        is_raw=isinstance(benchmark, MultipleChoiceBenchmark) and benchmark.score == "raw",
    )


@ray.remote(num_cpus=1, name="evaluate: embed texts")
def _embed_texts(plan: EmbedPlan, texts: tuple[str, ...]) -> np.ndarray:
    return load_encoder(plan).text_features(list(texts))


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: score clips")
def _score(
    folder: str,
    texts: np.ndarray | None,
    benchmark: AnnotatedBenchmark,
    targets: Targets,
    places: np.ndarray,
    head: ClassHeadFile | None,
) -> tuple[dict[str, float], dict[int, str]]:
    with storage_errors(folder):
        features, _, _, errors = read_features(Place.of(folder), len(places))
    return score_features(benchmark, targets, features, texts, places, errors, head), errors


def score_features(
    benchmark: AnnotatedBenchmark,
    targets: Targets,
    features: np.ndarray,
    texts: np.ndarray | None,
    places: np.ndarray,
    errors: dict[int, str],
    head: ClassHeadFile | None = None,
) -> dict[str, float]:
    """Return the metrics of (clips, views by dim) features, whose rows are the benchmark's clips at `places`.

    texts: their features, None where the clips' are logits of `head`. errors: rows whose clip could not be decoded.
    """
    num_views = benchmark.views.num_views
    whole = np.zeros((len(targets.clip_ids), num_views, features.shape[1] // num_views), np.float32)
    whole[places] = features.reshape(len(places), num_views, -1)
    missing = np.ones(len(targets.clip_ids), bool)
    missing[places] = np.isin(np.arange(len(places)), list(errors))
    if isinstance(targets, MultiInstanceTargets):
        return measure_multi_instance(targets, similarity_of_features(whole[:, 0], _given(texts)), missing)
    if isinstance(targets, ChoiceTargets):
        return measure_choices(targets, choice_scores(targets, whole[:, 0], _given(texts)), missing)
    assert isinstance(benchmark, ClassificationBenchmark)
    if head is None:
        scores = zero_shot_scores(targets, whole, _given(texts), benchmark.views.pool)
    else:
        ends = np.cumsum(list(head.sizes.values()))[:-1]
        logits = dict(zip(head.sizes, np.split(whole, ends, axis=2), strict=True))
        scores = head_scores(targets, logits, actions=head.actions)
    return measure_classes(
        targets,
        scores,
        missing,
        temperature=benchmark.temperature if head is None else 1.0,
        leaves_out_absent=benchmark.leaves_out_absent,
    )


def _given(texts: np.ndarray | None) -> np.ndarray:
    assert texts is not None, "clips and texts are compared"
    return texts


def _name_missing(targets: Targets, clips: AnnotatedClips, errors: dict[int, str]) -> list[dict[str, str]]:
    """Return clip_id and error of the clips that are not in the shards, or cannot be decoded."""
    absent = np.setdiff1d(np.arange(len(targets.clip_ids)), clips.places)
    missing = [{"clip_id": targets.clip_ids[clips.places[row]], "error": error} for row, error in errors.items()]
    missing += [{"clip_id": targets.clip_ids[place], "error": "not in the shards"} for place in absent]
    if missing:
        logger.warning("%d of %d clips are missing: they are wrong", len(missing), len(targets.clip_ids))
    return missing


def _protocol_of(benchmark: AnnotatedBenchmark, model: EvaluatedModel, *, tells_classes: bool) -> dict[str, object]:
    views = benchmark.views.model_copy(update={"pool": "mean"}) if tells_classes else benchmark.views
    windows = f"{views.num_windows} windows of {views.window_frames} consecutive frames, evenly spread"
    compared = benchmark.score if isinstance(benchmark, MultipleChoiceBenchmark) else "cosine"
    named: dict[str, object] = {
        "score": "head" if tells_classes else compared,
        "text_length": model.text_length,
        "num_frames": model.num_frames,
        "sampling": windows if views.num_windows > 1 else model.sampling,
        "views": str(views),
        "image_size": model.transform.image_size,
        "resize": str(model.transform),
    }
    if isinstance(benchmark, ClassificationBenchmark) and not tells_classes:
        named |= {"templates": benchmark.templates, "temperature": benchmark.temperature}
    return named
