"""The questions of a benchmark, tied to the clips of the shards that it is evaluated on."""

import pyarrow as pa

from mama_ray.data.index import read_index
from mama_ray.data.questions.own import questions_of_index
from mama_ray.data.questions.table import read_questions
from mama_ray.data.questions.videos import AskedClips, join_clips
from mama_ray.data.shard_check import check_shards
from mama_ray.data.synthetic.quiz import QUIZZES, quiz_of_index
from mama_ray.errors import UserError
from mama_ray.evaluation.question_protocol import QuestionBenchmark
from mama_ray.storage.places import Place, storage_errors

_TABLE_COLUMNS = ["clip_id", "video_id", "shard", "offset", "num_bytes", "sha256", "captions"]
_INDEX_COLUMNS = [*_TABLE_COLUMNS, "split", "questions", "truth"]


def load_asked(shards: str, source: str | None, benchmark: QuestionBenchmark) -> tuple[pa.Table, AskedClips]:
    """Return the clips of the shards and the benchmark's questions, tied to them.

    source: questions table; None takes those that the shards hold. UserError where they are not the benchmark's.
    """
    if source is None and benchmark.num_questions is not None:
        raise UserError(f"no questions of {benchmark.dataset}", wanted="their table", remedy="name it: --questions")
    folder = Place.of(shards)
    with storage_errors(shards):
        index = read_index(folder, columns=_INDEX_COLUMNS)
        check_shards(folder, index)
    if source is not None:
        questions = read_questions(Place.of(source))
    elif benchmark.dataset in QUIZZES:
        questions = quiz_of_index(index, QUIZZES[benchmark.dataset])
    else:
        questions = questions_of_index(index, dataset=benchmark.dataset, task=benchmark.task)
    if questions.dataset != benchmark.dataset:
        told, got = f"the questions are not of {benchmark.dataset}", f"questions of {questions.dataset}"
        raise UserError(told, got=got, remedy="name their table: --questions")
    asked = join_clips(questions.of_split(benchmark.split), index)
    return index.select(_TABLE_COLUMNS).combine_chunks(), asked
