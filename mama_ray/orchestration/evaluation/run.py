"""The evaluation job: a checkpoint on a benchmark gives recall both ways and by topic, with the protocol beside it.

    python jobs/evaluate.py --checkpoint URI --benchmark NAME --shards URI      # writes evaluation/<benchmark>.json

`--checkpoint` is a run (its best checkpoint by validation is taken; nothing here ever chooses by test numbers), a
checkpoint inside a run, any folder that `from_pretrained` loads, or with `hf:` before it a folder or hub id of a dual
encoder of Hugging Face, which is measured as transformers computes it.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedBenchmark
from mama_ray.evaluation.benchmarks import Benchmark, load_benchmark_file
from mama_ray.evaluation.protocol import BenchmarkConfig, ResultFile, comparison_table, describe_checkpoint
from mama_ray.evaluation.question_protocol import QuestionBenchmark
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.named_configs import find_named
from mama_ray.orchestration.evaluation.annotated import run_annotated
from mama_ray.orchestration.evaluation.embed import EmbedPlan, embed_clips
from mama_ray.orchestration.evaluation.features_folder import features_folder
from mama_ray.orchestration.evaluation.job import EvaluateJob, with_absolute_paths
from mama_ray.orchestration.evaluation.missing import name_missing, warn_of_refused
from mama_ray.orchestration.evaluation.model import EvaluatedModel, find_model
from mama_ray.orchestration.evaluation.questions import run_questions
from mama_ray.orchestration.evaluation.rank import load_features
from mama_ray.orchestration.evaluation.results import compute_results
from mama_ray.orchestration.evaluation.split import EvaluatedSplit, load_evaluated_split
from mama_ray.orchestration.evaluation.texts import tell_cut_texts
from mama_ray.orchestration.runs.report import report_run, write_page
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, the URI of its JSON, the shards, and the URI of the run when it is one's."""

    file: ResultFile
    uri: str
    shards: str
    run: str | None

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was taken, and why."""
        return describe_checkpoint(self.file.results[0].checkpoint)

    def tables(self) -> str:
        """Return a table for each protocol, plain and dual softmax apart."""
        return "\n\n".join(comparison_table({result.label: result}) for result in self.file.results)


def evaluate(job: EvaluateJob) -> Evaluation:
    """Embed the benchmark's split with the checkpoint, rank, and write `<benchmark>.json`; see `Evaluation.tables`."""
    start = time.perf_counter()
    job, benchmark = with_absolute_paths(job), load_benchmark(job.benchmark)
    if not isinstance(benchmark, BenchmarkConfig):
        what = "asks questions" if isinstance(benchmark, QuestionBenchmark) else "is of annotated clips"
        raise UserError(
            f"benchmark {job.benchmark} {what}", got=f"family {benchmark.family}", wanted="family retrieval"
        )
    model = find_model(job.checkpoint, benchmark, resize=job.resize, sampling=job.asked_sampling, features=job.features)
    logger.info("checkpoint %s", describe_checkpoint(model.name))
    shards = job.shards or model.shards
    if shards is None:
        raise UserError("no shards to evaluate on", got="a model without its training config", wanted="--shards")
    output = job.output or join_uri(model.home, "evaluation")
    ensure_writable(output)
    ensure_readable(shards)
    look_at_index(Place.of(shards))
    connect()
    split = load_evaluated_split(shards, benchmark)
    warn_of_refused(split.refused, benchmark, shards)
    plan = _embed_plan(job, shards, benchmark, model, split)
    tell_cut_texts(plan)
    with features_folder(Place.of(output)) as features_uri:
        embed_clips(plan, features_uri, num_actors=job.num_actors, use_gpu=job.use_gpu)
        features = load_features(features_uri, split.table, split.num_clips)
    results = compute_results(benchmark, model, split, features, num_examples=job.num_examples)
    name = results[0].protocol.name
    if results[0].protocol.deviation:
        logger.warning("this is not the whole benchmark: the result is called %s", name)
    file = ResultFile(
        benchmark=name,
        results=tuple(results),
        missing=tuple(name_missing(split, features, benchmark)),
        duration_s=round(time.perf_counter() - start, 3),
    )
    uri = join_uri(output, f"{Path(job.benchmark).stem}.json")
    with storage_errors(uri):
        Place.of(uri).write_whole(file.to_json())
    return Evaluation(file, uri, shards, model.home if model.name.step is not None and job.output is None else None)


def run(job: EvaluateJob) -> str:
    """Evaluate, print a table per protocol and, for a run, renew its report; returns the line that names the result."""
    job, benchmark = with_absolute_paths(job), load_benchmark(job.benchmark)
    if isinstance(benchmark, QuestionBenchmark):
        return run_questions(job, benchmark)
    if isinstance(benchmark, AnnotatedBenchmark):
        return run_annotated(job, benchmark)
    found = evaluate(job)
    print(found.tables())  # noqa: T201 - the job's result
    evaluated = f"evaluated {found.checkpoint} on {found.file.benchmark}: {found.uri}"
    if found.run is None:
        return evaluated
    name = found.run.rstrip("/").rsplit("/", 1)[-1]
    page, result = report_run(name, found.run, found.shards, benchmark=Path(job.benchmark).stem)
    report = write_page(join_uri(found.run, "report"), f"Run {name}", [page], {name: result})
    return f"{evaluated}, report {report}"


def load_benchmark(name: str) -> Benchmark:
    """Load a benchmark by its name in configs/benchmark or by the path of its file."""
    return load_benchmark_file(find_named("benchmark", name))


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
        transform=model.transform,
        decode=model.decoding(job.decode),
        batch_size=job.batch_size,
        features=model.features,
        num_regions=model.num_regions,
    )
