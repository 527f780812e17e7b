"""Score a file of predictions under a benchmark's protocol.

    python jobs/score.py --benchmark NAME --questions TABLE --predictions FILE

No model, no clip and no Ray: questions, predictions and how the file counts are all there is.
"""

import hashlib
import logging

from mama_ray.data.questions.answers import answer_list_from_json
from mama_ray.data.questions.table import read_questions
from mama_ray.errors import UserError
from mama_ray.evaluation.benchmarks import load_benchmark_file
from mama_ray.evaluation.predictions import Numbering, read_predictions
from mama_ray.evaluation.question_protocol import QuestionBenchmark, QuestionResult, measure, result_table
from mama_ray.orchestration.cluster.named_configs import find_named
from mama_ray.orchestration.scoring.job import ScoreJob
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)


def score_file(job: ScoreJob) -> QuestionResult:
    """Read questions and predictions and score them; UserError names what does not fit."""
    benchmark = load_benchmark_file(find_named("benchmark", job.benchmark))
    if not isinstance(benchmark, QuestionBenchmark):
        raise UserError(f"{job.benchmark} is a benchmark of retrieval", wanted="one of question answering")
    questions = read_questions(Place.of(job.questions))
    if questions.dataset != benchmark.dataset:
        got = f"questions of {questions.dataset}"
        raise UserError(f"{job.questions} is not of {benchmark.dataset}", got=got, wanted=benchmark.dataset)
    questions = questions.of_split(benchmark.split)
    answers = answer_list_from_json(_read(job.answers), job.answers) if job.answers else None
    content = _read(job.predictions)
    numbering = Numbering(answers, job.index_base, job.unknown)
    form = job.form or benchmark.predictions
    predictions = read_predictions(content, form, questions, numbering, source=job.predictions)
    source = f"{job.predictions} (sha256 {hashlib.sha256(content).hexdigest()[:12]})"
    return measure(benchmark, questions, predictions, source=source, answers=answers)


def run(job: ScoreJob) -> str:
    """Score, print the table and write the result where asked for; returns the line that names it."""
    if job.output:
        ensure_writable(Place.of(job.output).parent.uri)
    result = score_file(job)
    print(result_table(result))  # noqa: T201 - the job's result
    if result.protocol.deviation:
        logger.warning("this is not the whole benchmark: the result is called %s", result.protocol.name)
    if result.warning:
        logger.warning("%s", result.warning)
    if job.output:
        with storage_errors(job.output):
            Place.of(job.output).write_whole(result.to_json())
    where = f": {job.output}" if job.output else ""
    return f"scored {result.source} on {result.protocol.name}, accuracy {result.metrics['accuracy']:.2f}{where}"


def _read(uri: str) -> bytes:
    place = Place.of(uri)
    with storage_errors(uri):
        try:
            return place.read_bytes()
        except FileNotFoundError as error:
            raise UserError("no such file", got=uri) from error
