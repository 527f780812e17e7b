"""Evaluation on a benchmark of questions: a checkpoint answers all questions of a split, and the answers are scored.

It leaves `<benchmark>.json`, a `QuestionResult`, and `<benchmark>_predictions.json` in the benchmark's own format.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.questions.answers import ANSWERS_NAME, AnswerList
from mama_ray.data.questions.assemble import pairs_table
from mama_ray.data.questions.lengths import tell_cut
from mama_ray.data.questions.question import Task
from mama_ray.data.questions.table import QuestionSet
from mama_ray.data.questions.videos import AskedClips
from mama_ray.errors import UserError
from mama_ray.evaluation.predictions import Numbering, Predictions, write_predictions
from mama_ray.evaluation.protocol import BenchmarkConfig, describe_checkpoint
from mama_ray.evaluation.question_answering import Prediction, is_right
from mama_ray.evaluation.question_protocol import (
    PREDICTIONS_ENDING,
    AnsweredExample,
    QuestionBenchmark,
    QuestionResult,
    check_scores,
    measure,
    result_table,
)
from mama_ray.models.asking import answers_without_list, asked_length, count_cut_questions
from mama_ray.models.heads.folder import stored_head
from mama_ray.models.heads.settings import HeadKind
from mama_ray.models.run_config import RUN_CONFIG, training_config
from mama_ray.models.weight_files import read_json
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.answer import (
    AnswerPlan,
    answer_questions,
    answers_of,
    cut_at_clips,
    load_tokenizer,
    read_choices,
)
from mama_ray.orchestration.evaluation.asked import load_asked
from mama_ray.orchestration.evaluation.features_folder import features_folder
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.model import EvaluatedModel, find_model
from mama_ray.orchestration.runs.report import write_page
from mama_ray.reporting.answer_summary import summarise_result
from mama_ray.reporting.run_summary import summarise_run
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, join_uri, storage_errors

logger = logging.getLogger(__name__)

_TASK_CPUS = 0.5


@dataclass(frozen=True)
class AnsweringFolder:
    """What is read of the model's folder: its tokenizer, its list of answers, and how it is asked."""

    tokenizer_files: dict[str, bytes]
    answers: AnswerList | None
    model_type: str
    head: HeadKind
    questions: str | None

    @property
    def has_own_head(self) -> bool:
        """Whether the backbone answers by itself."""
        return self.head == "own"


def run_questions(job: EvaluateJob, benchmark: QuestionBenchmark) -> str:
    """Answer, score, write result and predictions, print the table; returns the line that names the result."""
    start = time.perf_counter()
    sizes = BenchmarkConfig(
        dataset=benchmark.dataset,
        text_length=benchmark.question_length,
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
    answerer = read_answerer(model, is_open=benchmark.task != "multiple_choice")
    connect()
    table, found = _load.options(num_returns=2).remote(shards, job.questions or answerer.questions, benchmark)
    asked = result_of(found, table)
    questions = QuestionSet(benchmark.dataset, benchmark.task, (*asked.questions, *asked.missing))
    check_scores(benchmark, questions, answerer.answers)  # told later, it would cost all answers
    plan = make_plan(job, model, answerer, shards, table=table, asked=asked)
    with features_folder(Place.of(output)) as folder:
        answer_questions(plan, folder, num_actors=job.num_actors, use_gpu=job.use_gpu)
        choices, valid = read_choices(Place.of(folder), len(asked))
    predictions = predictions_of(asked, choices, valid, answerer.answers)
    num_cut, length = _tell_lost(asked, questions, answerer, model)
    num_missing = len(asked.missing) + int((~valid).sum())
    result = measure(
        benchmark, questions, predictions, source=describe_checkpoint(model.name), answers=answerer.answers,
        num_missing=num_missing, question_length=length, num_frames=model.num_frames,
        sampling=model.sampling, image_size=model.transform.image_size, resize=model.transform.resize,
        num_cut=num_cut,
    ).model_copy(update={
        "checkpoint": model.name,
        "examples": _examples(asked, dict(predictions), table, job.num_examples, benchmark.task),
        "duration_s": round(time.perf_counter() - start, 3),
    })  # fmt: skip
    uri = _write_files(Path(job.benchmark).stem, output, benchmark, result, questions, predictions, answerer.answers)
    print(result_table(result))  # noqa: T201 - the job's result
    if result.warning:
        logger.warning("%s", result.warning)
    evaluated = f"evaluated {result.source} on {result.protocol.name}: {uri}"
    if model.name.step is None or job.output is not None:
        return evaluated
    return f"{evaluated}, report {_renew_report(model, result, shards)}"


def _write_files(
    name: str,
    output: str,
    benchmark: QuestionBenchmark,
    result: QuestionResult,
    questions: QuestionSet,
    predictions: Predictions,
    answers: AnswerList | None,
) -> str:
    """Write the result and, in the benchmark's own form, the predictions; returns the result's URI."""
    uri = join_uri(output, f"{name}.json")
    _write(uri, result.to_json())
    if benchmark.predictions != "answer_numbers" or answers is not None:
        written = write_predictions(benchmark.predictions, questions, dict(predictions), Numbering(answers))
        _write(join_uri(output, f"{name}{PREDICTIONS_ENDING}"), written)
    return uri


def _renew_report(model: EvaluatedModel, result: QuestionResult, shards: str) -> str:
    """Write the page of the run that the checkpoint is of; returns its URI."""
    name = model.home.rstrip("/").rsplit("/", 1)[-1]
    answering = summarise_result(result, Place.of(shards))
    page = summarise_run(name, Place.of(model.home), answering=answering, checkpoint=model.name)
    return write_page(join_uri(model.home, "report"), f"Run {name}", [page], None)


def _tell_lost(
    asked: AskedClips, questions: QuestionSet, answerer: AnsweringFolder, model: EvaluatedModel
) -> tuple[int, int]:
    """Warn of questions without their clip and of cut ones; returns how many those are, and at what length."""
    if asked.missing:
        told = (len(asked.missing), len(questions))
        logger.warning("%d of %d questions are of clips that are not there: they are wrong", *told)
    tokenizer = load_tokenizer(answerer.tokenizer_files, model.text_length)
    how = {"model_type": answerer.model_type, "has_own_head": answerer.has_own_head}
    num_cut = count_cut_questions(questions.questions, tokenizer, form=model.question_form, **how)
    length = asked_length(tokenizer, has_options=bool(questions.num_options), **how)
    tell_cut(num_cut, len(questions), length)
    return num_cut, length


def read_answerer(model: EvaluatedModel, *, is_open: bool = False) -> AnsweringFolder:
    """Read what a model's folder says of how it answers, `is_open` open-ended questions, for which there may be no list
    where the model needs none."""
    with storage_errors(model.uri), Place.of(model.uri).local() as folder:
        names = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "vocab.txt")
        files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
        task = training_config(folder / RUN_CONFIG).get("task")
        questions = task.get("questions") if isinstance(task, dict) else None
        model_type = str(read_json(folder / "config.json").get("model_type"))
        (head, listed), answers = stored_head(folder), answers_of(folder)
    if listed and answers is not None and answers.answers != listed:
        raise UserError(
            f"{ANSWERS_NAME} is not the list that the head learned", got=f"{len(answers)} answers",
            wanted=f"the {len(listed)} of head.json", remedy="take both files from one checkpoint",
        )  # fmt: skip
    if is_open and answers is None and head == "own":
        answers = answers_without_list(model_type, load_tokenizer(files, model.text_length))
    return AnsweringFolder(files, answers, model_type, head, questions)


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: load questions")
def _load(shards: str, source: str | None, benchmark: QuestionBenchmark) -> tuple[pa.Table, AskedClips]:
    return load_asked(shards, source, benchmark)


def make_plan(
    job: EvaluateJob,
    model: EvaluatedModel,
    answerer: AnsweringFolder,
    shards: str,
    *,
    table: ray.ObjectRef,
    asked: AskedClips,
) -> AnswerPlan:
    """Return what tasks and actors need; UserError for open-ended questions where the model has no list of answers."""
    has_options = bool(asked.questions[0].options)
    if answerer.head != "own" and has_options != (answerer.head == "options"):
        asks = "multiple choice" if has_options else "open-ended questions"
        raise UserError(f"a head of kind {answerer.head} does not fit the benchmark", got=asks, remedy="train another")
    if not has_options and answerer.answers is None:
        raise UserError("the model has no list of answers", got=model.uri, wanted=f"{ANSWERS_NAME} in its folder")
    answers = None if has_options else answerer.answers
    return AnswerPlan(
        table=table,
        pairs=ray.put(pairs_table(asked, answers)),
        batches=cut_at_clips(asked.rows, job.batch_size),
        num_choices=len(answers) if answers else len(asked.questions[0].options),
        tokenizer_files=ray.put(answerer.tokenizer_files),
        model_type=answerer.model_type,
        has_own_head=answerer.has_own_head,
        shards=shards,
        model=model.uri,
        question_length=model.text_length,
        num_frames=model.num_frames,
        transform=model.transform,
        decode=model.decoding(job.decode),
        batch_size=job.batch_size,
        features=model.features,
        num_regions=model.num_regions,
        question_form=model.question_form,
    )


def predictions_of(
    asked: AskedClips, choices: np.ndarray, valid: np.ndarray, answers: AnswerList | None
) -> Predictions:
    """Return an answer or an option's number for each question, None where its clip is missing or unreadable."""
    predictions: Predictions = []
    for question, choice, is_read in zip(asked.questions, choices.tolist(), valid.tolist(), strict=True):
        chosen: Prediction = choice if question.options or answers is None else answers.answers[choice]
        predictions.append((question.question_id, chosen if is_read else None))
    return predictions + [(question.question_id, None) for question in asked.missing]


@ray.remote(num_cpus=_TASK_CPUS, name="evaluate: pick rows")
def _pick_clip_ids(table: pa.Table, rows: np.ndarray) -> list[str]:
    return table["clip_id"].take(pa.array(rows)).to_pylist()


def _examples(
    asked: AskedClips, predictions: dict[str, Prediction], table: ray.ObjectRef, count: int, task: Task
) -> tuple[AnsweredExample, ...]:
    """Return some questions, evenly spread, with what was answered."""
    places = np.unique(np.linspace(0, len(asked) - 1, min(count, len(asked))).astype(np.int64))
    clip_ids = result_of(_pick_clip_ids.remote(table, asked.rows[places]))
    examples = []
    for place, clip_id in zip(places.tolist(), clip_ids, strict=True):
        question = asked.questions[place]
        found = predictions[question.question_id]
        shown = question.options[int(found)] if question.options and found is not None else found
        examples.append(
            AnsweredExample(
                question_id=question.question_id,
                clip_id=clip_id,
                question=question.question,
                right=question.answers[0],
                options=question.options,
                is_right=is_right(question, found, task),
                predicted=None if shown is None else str(shown),
                type=question.type,
            )
        )
    return tuple(examples)


def _write(uri: str, text: str) -> None:
    with storage_errors(uri):
        Place.of(uri).write_whole(text)
