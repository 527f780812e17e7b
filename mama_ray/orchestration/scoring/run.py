"""Score a file of predictions under a benchmark's protocol.

    python jobs/score.py --benchmark NAME --questions TABLE --predictions FILE
    python jobs/score.py --benchmark NAME --annotations FOLDER --predictions FILE.npz

No model, no clip and no Ray: what is right, predictions and how the file counts are all there is.
"""

import hashlib
import logging

from mama_ray.data.questions.answers import answer_list_from_json
from mama_ray.data.questions.table import read_questions
from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedBenchmark, AnnotatedResult, result_table
from mama_ray.evaluation.annotated_result import make_result
from mama_ray.evaluation.benchmarks import load_benchmark_file
from mama_ray.evaluation.predictions import Numbering, read_predictions
from mama_ray.evaluation.question_protocol import QuestionBenchmark, QuestionResult, measure
from mama_ray.evaluation.question_protocol import result_table as answer_table
from mama_ray.evaluation.score_file import CLIP_IDS, measure_file, read_score_file
from mama_ray.evaluation.targets import read_targets
from mama_ray.orchestration.cluster.named_configs import find_named
from mama_ray.orchestration.scoring.job import ScoreJob
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)


def score_file(job: ScoreJob) -> QuestionResult | AnnotatedResult:
    """Read what is right and what was predicted, and score it; UserError names what does not fit."""
    benchmark = load_benchmark_file(find_named("benchmark", job.benchmark))
    if isinstance(benchmark, QuestionBenchmark):
        return _score_answers(job, benchmark)
    if isinstance(benchmark, AnnotatedBenchmark):
        return _score_clips(job, benchmark)
    wanted = "one of question answering, or of annotated clips"
    raise UserError(f"{job.benchmark} is a benchmark of retrieval", wanted=wanted)


def _score_answers(job: ScoreJob, benchmark: QuestionBenchmark) -> QuestionResult:
    if job.questions is None:
        raise UserError(f"no questions of {benchmark.dataset}", wanted="their table", remedy="name it: --questions")
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
    return measure(benchmark, questions, predictions, source=_source(job.predictions, content), answers=answers)


def _score_clips(job: ScoreJob, benchmark: AnnotatedBenchmark) -> AnnotatedResult:
    """Of a split held out from train, the file's clip_ids say which clips these are."""
    if job.annotations is None:
        wanted = "the folder of its official files"
        raise UserError(f"no annotations of {benchmark.dataset}", wanted=wanted, remedy="name it: --annotations")
    content = _read(job.predictions)
    arrays = read_score_file(content, job.predictions)
    named = arrays.get(CLIP_IDS)
    among = None if benchmark.split == "test" or named is None else {str(name) for name in named.ravel()}
    with storage_errors(job.annotations), Place.of(job.annotations).local() as folder:
        targets = read_targets(benchmark, folder, among)
    metrics = measure_file(benchmark, targets, arrays)
    return make_result(benchmark, targets, metrics, source=_source(job.predictions, content), score="file")


def _source(uri: str, content: bytes) -> str:
    return f"{uri} (sha256 {hashlib.sha256(content).hexdigest()[:12]})"


def run(job: ScoreJob) -> str:
    """Score, print the table and write the result where asked for; returns the line that names it."""
    if job.output:
        ensure_writable(Place.of(job.output).parent.uri)
    result = score_file(job)
    table = answer_table(result) if isinstance(result, QuestionResult) else result_table(result)
    print(table)  # noqa: T201 - the job's result
    if result.protocol.deviation:
        logger.warning("this is not the whole benchmark: the result is called %s", result.protocol.name)
    if result.warning:
        logger.warning("%s", result.warning)
    if job.output:
        with storage_errors(job.output):
            Place.of(job.output).write_whole(result.to_json())
    where = f": {job.output}" if job.output else ""
    name, value = next(iter(result.metrics.items()))
    return f"scored {result.source} on {result.protocol.name}, {name} {value:.2f}{where}"


def _read(uri: str) -> bytes:
    place = Place.of(uri)
    with storage_errors(uri):
        try:
            return place.read_bytes()
        except FileNotFoundError as error:
            raise UserError("no such file", got=uri) from error
