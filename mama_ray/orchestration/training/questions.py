"""The questions of a run: tied to its clips, with the list of answers that is made of the training ones.

As with the clips, one remote task does it, and the driver holds references and a few counts.
"""

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray

from mama_ray.data.questions.answers import AnswerList, answer_list_from_json, build_answer_list
from mama_ray.data.questions.assemble import count_listed, pairs_table
from mama_ray.data.questions.lengths import tell_cut
from mama_ray.data.questions.plan import QuestionPlan
from mama_ray.data.questions.table import QuestionSet
from mama_ray.data.questions.videos import AskedClips, count_split_videos, join_clips
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.answering import AnsweringEncoder
from mama_ray.models.asking import answers_within_reach, asked_length, count_cut_questions, give_answers
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.folder import set_answers
from mama_ray.models.heads.head import AnswerHead, SimilarityHead, build_head
from mama_ray.models.heads.headed import feature_dim
from mama_ray.models.pretrained import model_type_of, model_type_of_preset
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.training.data import RunData
from mama_ray.orchestration.training.job import ModelConfig
from mama_ray.orchestration.training.question_sources import read_run_questions
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.settings import TaskConfig

logger = logging.getLogger(__name__)

SPLITS = ("train", "meta", "val")
_MAX_BYTES = 64 << 20  # of a list of answers


@dataclass(frozen=True)
class AskedData:
    """References to the pairs of each split, with what a run must know of them.

    Attributes:
        answer_list: the list that open-ended questions are answered from, as JSON; empty of multiple choice.
        answers: of the list, in its order.
        num_places: places of an epoch, padding among them.
        summary: counts and hashes, for environment.json.
    """

    train: ray.ObjectRef
    meta: ray.ObjectRef
    val: ray.ObjectRef
    answer_list: str
    answers: tuple[str, ...]
    num_places: int
    summary: dict

    @property
    def contents(self) -> dict[str, str]:
        """The hash of the questions with their answers' numbers, by which a begun run knows them."""
        return {"task.questions": self.summary["sha256_of_pairs"]}


def with_questions(summary: dict, asked: AskedData) -> dict:
    """Add the questions to the summary of a run's data."""
    return summary | {"questions": asked.summary, "contents": summary["contents"] | asked.contents}


def load_questions(
    shards: str,
    task: TaskConfig,
    data: RunData,
    *,
    model: ModelConfig,
    global_batch_size: int,
    needs_meta: bool,
    known: str | None = None,
) -> AskedData:
    """Tie the questions to the run's clips; UserError for anything a user can put right.

    Those of clips that were set apart as the meta-set, whatever their split, are asked of it alone. known: a list of
    answers, as JSON, that the run has begun with.
    """
    loaded = _load.options(num_returns=4, scheduling_strategy="DEFAULT")
    tables = (data.train, data.meta, data.val, data.tokenizer_files)
    *stored, found = loaded.remote(shards, task, model, global_batch_size, needs_meta, known, *tables)
    return AskedData(*stored, *result_of(found, *stored))


@ray.remote(num_cpus=0.5, name="train: load questions")
def _load(
    shards: str,
    task: TaskConfig,
    model: ModelConfig,
    global_batch_size: int,
    needs_meta: bool,
    known: str | None,
    train: pa.Table,
    meta: pa.Table,
    val: pa.Table,
    tokenizer_files: dict[str, bytes],
) -> tuple:
    questions = read_run_questions(shards, task)
    if (questions.task == "multiple_choice") != (task.head.kind == "options") and task.head.kind != "own":
        raise UserError(
            f"task.head.kind {task.head.kind} does not fit the questions",
            got=questions.task,
            wanted="options for multiple choice, classification or similarity for open-ended questions",
        )
    learned = _of_splits(questions, ("train", "meta"))
    train_asked = join_clips(learned, train)
    asked: dict[str, AskedClips | None] = {"train": train_asked, "meta": None, "val": None}
    if needs_meta:
        asked["meta"] = _of_meta_set(learned, meta)
    if len(val) and any(question.split == "val" for question in questions.questions):
        asked["val"] = join_clips(_of_splits(questions, ("val",)), val)
    answers, tokenizer = None, _tokenizer_of(tokenizer_files)
    answers_itself = _model_type(model) if task.head.kind == "own" else None
    if questions.task != "multiple_choice":
        answers = _answers(task, train_asked.questions, known)
        if answers_itself is not None:
            answers = answers_within_reach(answers, answers_itself, tokenizer)
    pairs = {name: None if found is None else pairs_table(found, answers) for name, found in asked.items()}
    plan = QuestionPlan(train_asked.rows, global_batch_size, task.plan)
    summary = _summary(questions, asked, pairs, answers) | {
        "num_places": plan.num_clips,
        **_count_cut(questions.task, asked, tokenizer, answers_itself),
    }
    listed = ("", ()) if answers is None else (answers.to_json(), answers.answers)
    return *(pairs[name] for name in SPLITS), (*listed, plan.num_clips, summary)


def _summary(
    questions: QuestionSet,
    asked: dict[str, AskedClips | None],
    pairs: dict[str, pa.Table | None],
    answers: AnswerList | None,
) -> dict:
    of_splits = {name: found for name, found in asked.items() if found is not None}
    tables = {name: table for name, table in pairs.items() if table is not None}
    split_videos = count_split_videos(questions)
    return {
        "dataset": questions.dataset,
        "task": questions.task,
        "num_questions": {name: len(found) for name, found in of_splits.items()},
        "num_clips_asked": {name: pc.count_distinct(table["row"]).as_py() for name, table in tables.items()},
        "num_without_clip": _count_missing(of_splits),
        "num_videos_of_two_splits": {" and ".join(filter(None, pair)): num for pair, num in split_videos.items()},
        "num_listed": {name: count_listed(table) for name, table in tables.items()},
        "num_answers": 0 if answers is None else len(answers),
        "sha256_of_answers": None if answers is None else answers.sha256,
        "sha256_of_ids": questions.ids_sha256,
        "sha256_of_pairs": _hash_pairs(pairs),
    }


def _of_meta_set(learned: QuestionSet, meta: pa.Table) -> AskedClips:
    """Tie the questions to the clips of the meta-set; UserError, which names it, where none is about them."""
    try:
        return join_clips(learned, meta)
    except UserError as error:
        raise UserError(
            "no question is about a clip of the meta-set", got=f"{len(meta)} clips",
            remedy="draw it from training clips that are asked about (data.meta_draw), or ask about split meta",
        ) from error  # fmt: skip


def _count_missing(asked: dict[str, AskedClips]) -> dict[str, int]:
    """Count the questions whose clip is not there; training ones that are of the meta-set's clips are no such."""
    missing = {name: {question.question_id for question in found.missing} for name, found in asked.items()}
    if "meta" in missing:
        missing["train"] &= missing.pop("meta")
    return {name: len(ids) for name, ids in missing.items()}


def _count_cut(
    task: str, asked: dict[str, AskedClips | None], tokenizer: Tokenizer, answers_itself: str | None
) -> dict:
    """Count the questions that lose words. answers_itself: model_type of a backbone asked in its own way."""
    model_type, has_own = answers_itself or "", answers_itself is not None

    def count(found: AskedClips) -> int:
        return count_cut_questions(found.questions, tokenizer, model_type=model_type, has_own_head=has_own)

    has_options = task == "multiple_choice"
    return {
        "num_cut": {name: count(found) for name, found in asked.items() if found is not None},
        "question_length": asked_length(
            tokenizer, model_type=model_type, has_options=has_options, has_own_head=has_own
        ),
    }


def _hash_pairs(pairs: dict[str, pa.Table | None]) -> str:
    rows = {name: None if table is None else table.to_pylist() for name, table in pairs.items()}
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _of_splits(questions: QuestionSet, splits: tuple[str, ...]) -> QuestionSet:
    chosen = tuple(question for question in questions.questions if question.split in splits)
    if not chosen:
        return questions.of_split(splits[0])  # which says what there is
    return QuestionSet(questions.dataset, questions.task, chosen)


def _tokenizer_of(files: dict[str, bytes]) -> Tokenizer:
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        return Tokenizer.from_directory(scratch)


def _answers(task: TaskConfig, train: tuple, known: str | None) -> AnswerList:
    if known is not None:
        return answer_list_from_json(known, "the run's checkpoint")
    if task.answers is not None:
        place = Place.of(task.answers)
        with storage_errors(task.answers):
            return answer_list_from_json(place.read_bytes(_MAX_BYTES), task.answers)
    # Of clips drawn to be the meta-set the split is train as well, but they are no part of `train`.
    return build_answer_list((replace(one, split="train") for one in train), task.num_answers)


def _model_type(model: ModelConfig) -> str:
    if model.pretrained is None:
        return model_type_of_preset(model.preset)
    if os.path.isfile(model.pretrained):
        return model_type_of(Path(model.pretrained))
    with storage_errors(model.pretrained), model_folder(model.pretrained) as directory:
        return model_type_of(directory)


def build_head_for(task: TaskConfig, asked: AskedData, model: DualEncoder, tokenizer: Tokenizer) -> AnswerHead | None:
    """Make the run's head with new weights, on the model's device, and tell who compares answers which there are.

    None where the backbone answers by itself; UserError where it cannot.
    """
    if task.head.kind == "own":
        if not isinstance(model, AnsweringEncoder):
            raise UserError(
                "the backbone has no head of its own", got=model.model_type, wanted="task.head.kind classification"
            )
        if asked.answers:
            give_answers(model, asked.answers, tokenizer)
        return None
    head = build_head(task.head, feature_dim(model), len(asked.answers))
    if isinstance(head, SimilarityHead):
        set_answers(head, asked.answers, tokenizer)
    return head.to(model.logit_scale.device)


def tell_questions(summary: dict) -> None:
    """Log how many questions there are, and warn of those that nobody can answer or whose clip is not there."""
    for split, total in summary["num_questions"].items():
        listed, clips = summary["num_listed"][split], summary["num_clips_asked"][split]
        logger.info("%s: %d questions on %d clips, ceiling %.1f %%", split, total, clips, 100 * listed / total)
        if summary["num_without_clip"].get(split):
            logger.info("%s: %d questions are of clips that are not there", split, summary["num_without_clip"][split])
        tell_cut(summary["num_cut"][split], total, summary["question_length"])
    for splits, number in summary["num_videos_of_two_splits"].items():
        logger.warning("%d videos have questions of %s: each is learned from or measured on, not both", number, splits)
