"""Official files of video question answering as a questions table.

    python -m mama_ray.data.questions nextqa --annotations val.csv --split val --output nextqa_val.parquet
    python -m mama_ray.data.questions activitynet_qa --annotations test_q.json --output activitynet_qa.parquet

`--rows FILE` writes the videos as rows for jobs/prepare.py, too, where the shards are not there yet; `--join TABLE`
puts the questions of another split before these. The name `own` reads JSON or JSON lines of {question_id, video_id,
question, answer or answers, options?, type?, split?}; `index` takes prepared shards whose annotations had a column
questions, `embedded_qa` and `embedded_mc` those of the embedded corpus: --annotations is the folder of the shards.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mama_ray.data.benchmarks.rows import with_found_files
from mama_ray.data.index import read_index
from mama_ray.data.questions.official.activitynet_qa import read_activitynet_qa
from mama_ray.data.questions.official.causal_vidqa import read_causal_vidqa
from mama_ray.data.questions.official.msrvtt_qa import read_msrvtt_qa
from mama_ray.data.questions.official.msvd_qa import read_msvd_qa
from mama_ray.data.questions.official.next_qa import read_nextqa, read_nextqa_oe
from mama_ray.data.questions.official.records import Split, read_object
from mama_ray.data.questions.official.tgif_qa import (
    read_action,
    read_count,
    read_frame,
    read_r_action,
    read_r_transition,
    read_transition,
)
from mama_ray.data.questions.own import questions_of_index, read_own
from mama_ray.data.questions.question import Task
from mama_ray.data.questions.table import QuestionSet, join_sets, read_questions, write_questions
from mama_ray.data.questions.videos import hold_out_videos, video_rows
from mama_ray.data.synthetic.quiz import QUIZZES, quiz_of_index
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors

Name = Literal[
    "msrvtt_qa", "msvd_qa", "tgif_action", "tgif_transition", "tgif_frame", "tgif_count", "tgif_r_action",
    "tgif_r_transition", "nextqa", "nextqa_oe", "causal_vidqa", "activitynet_qa", "own", "index",
    "embedded_qa", "embedded_mc",
]  # fmt: skip
READERS: dict[str, Callable[[Path, Path | None, Split], QuestionSet]] = {
    "msrvtt_qa": read_msrvtt_qa,
    "msvd_qa": read_msvd_qa,
    "tgif_action": read_action,
    "tgif_transition": read_transition,
    "tgif_frame": read_frame,
    "tgif_count": read_count,
    "tgif_r_action": read_r_action,
    "tgif_r_transition": read_r_transition,
    "nextqa": read_nextqa,
    "nextqa_oe": read_nextqa_oe,
    "causal_vidqa": read_causal_vidqa,
    "activitynet_qa": read_activitynet_qa,
}

_WITH_FILE_BESIDE = ("msvd_qa", "nextqa_oe", "activitynet_qa", "causal_vidqa")
_OF_ANY_TASK = ("own", "index")


def main(
    name: Annotated[Name, tyro.conf.Positional],
    annotations: Path,
    output: str,
    beside: Path | None = None,
    split: Split = "test",
    task: Task | None = None,
    join: str | None = None,
    num_val: int = 0,
    rows: Path | None = None,
    videos: Path | None = None,
    folders: Path | None = None,
) -> None:
    """Write the questions table of a benchmark's official files.

    Args:
        name: Which files these are; `own` is questions of your own.
        annotations: The official file of one split; of Causal-VidQA the folder QA; of index, embedded_qa and
            embedded_mc the folder of prepared shards, whose splits the questions are given.
        output: Parquet file to write, a path or a URI.
        beside: The file that belongs to it: MSVD-QA's youtube_mapping.txt, NExT-OE's add_reference_answer_test.json,
            ActivityNet-QA's answers (default: beside the questions), Causal-VidQA's video ids of the split.
        split: Split that the questions are given; of your own those that name none.
        task: Of your own questions, and of index: open_ended, multiple_choice or count; default: what they look like.
        join: Questions table whose questions come first, as those of another split.
        num_val: Videos whose questions are marked as val instead, for training files without a validation split.
        rows: JSONL of the videos for jobs/prepare.py to write as well.
        videos: With --rows: folder of the videos, to find the extension that each file really has.
        folders: With --rows: NExT-QA's map_vid_vidorID.json: in which folder each video lies.
    """
    _refuse_idle(name, beside=beside, task=task, of_rows={} if rows else {"--videos": videos, "--folders": folders})
    if videos and not videos.is_dir():
        raise UserError("no such folder of videos", got=videos, wanted="a folder on this machine")
    questions = _read(name, annotations, beside, split, task)
    questions = hold_out_videos(questions, num_val) if num_val else questions
    if rows:
        found = video_rows(questions, read_object(folders) if folders else None)
        found = with_found_files(found, videos) if videos else found
        with storage_errors(str(rows)):
            Place.of(rows).write_whole("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    if join:
        questions = join_sets([read_questions(Place.of(join)), questions])
    write_questions(Place.of(output), questions)


def _refuse_idle(name: Name, *, beside: Path | None, task: Task | None, of_rows: dict[str, Path | None]) -> None:
    """Raise UserError for what was given and would not be looked at."""
    if task is not None and name not in _OF_ANY_TASK:
        raise UserError(f"--task has no meaning for {name}, whose task is known", got=f"--task {task}")
    if beside is not None and name not in _WITH_FILE_BESIDE:
        wanted = f"one of {', '.join(_WITH_FILE_BESIDE)}"
        raise UserError("--beside has no meaning for a benchmark of one file", got=name, wanted=wanted)
    for option, given in of_rows.items():
        if given is not None:
            raise UserError(f"{option} has no meaning without --rows", got=f"{option} {given}", wanted="both")


def _read(name: Name, annotations: Path, beside: Path | None, split: Split, task: Task | None) -> QuestionSet:
    """Read the official files; UserError for any other content, whose faults have as many forms as there are files."""
    for path in (annotations, beside):
        if path is not None and not path.exists():
            raise UserError("no such file", got=path, wanted=f"an official file of {name}")
    try:
        if name in READERS:
            return READERS[name](annotations, beside, split)
        if name == "own":
            return read_own(annotations, task=task, split=split)
        index = read_index(Place.of(annotations))
        return questions_of_index(index, task=task) if name == "index" else quiz_of_index(index, QUIZZES[name])
    except UserError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, csv.Error) as error:
        names = " with ".join(path.name for path in (annotations, beside) if path is not None)
        raise UserError(
            f"no official file of {name}",
            got=f"{names} ({type(error).__name__}: {error})",
            wanted="the files that docs/questions.md names",
        ) from error


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
