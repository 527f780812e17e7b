"""Where a run's questions come from: its table, the annotations of its clips, or what the embedded corpus knows."""

from mama_ray.data.index import read_index
from mama_ray.data.questions.own import questions_of_index
from mama_ray.data.questions.table import QuestionSet, read_questions
from mama_ray.data.synthetic.quiz import quiz_of_index
from mama_ray.data.synthetic.recognise import count_other_clips
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.settings import TaskConfig

_INDEX_COLUMNS = ("clip_id", "video_id", "split", "questions", "truth")


def read_run_questions(shards: str, task: TaskConfig) -> QuestionSet:
    """Return the questions of all splits; UserError where there are none or they break the contract.

    Those of the embedded corpus are the ones that its benchmarks ask: of five options for a head of options, else open
    ended.
    """
    if task.questions is not None:
        return read_questions(Place.of(task.questions))
    with storage_errors(shards):
        index = read_index(Place.of(shards), columns=_INDEX_COLUMNS)
    if len(index) and not count_other_clips(index["truth"]):
        return quiz_of_index(index, "multiple_choice" if task.head.kind == "options" else "open_ended")
    return questions_of_index(index, dataset="own")


def texts_of_training(questions: QuestionSet, limit: int) -> list[str]:
    """Return questions, options and answers of at most `limit` training questions, to train a tokenizer on."""
    train = [question for question in questions.questions if question.split == "train"][:limit]
    return [text for one in train for text in (one.question, *one.options, *one.answers)]
