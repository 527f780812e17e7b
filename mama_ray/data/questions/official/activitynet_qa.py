"""ActivityNet-QA: {split}_q.json with the questions and {split}_a.json with answers and types."""

from pathlib import Path

from mama_ray.data.questions.official.records import Split, numbered, question_set, read_list
from mama_ray.data.questions.question import Question
from mama_ray.data.questions.table import QuestionSet, require_unique
from mama_ray.errors import UserError

# By their numbers in the files; the last six are those of the "Free" score.
TYPES = ("motion", "spatial", "temporal", "yes_no", "color", "object", "location", "number", "other")


def read_activitynet_qa(annotations: Path, beside: Path | None = None, split: Split = "test") -> QuestionSet:
    """Return the questions. `annotations` is a *_q.json, `beside` its *_a.json: by default the one in the same folder.

    UserError where a question has no answer, or an answer no question.
    """
    answers_path = beside or annotations.with_name(annotations.name.replace("_q.json", "_a.json"))
    if answers_path == annotations or not answers_path.is_file():
        got = f"{annotations.name} alone"
        raise UserError("ActivityNet-QA's questions and answers are two files", got=got, wanted="--beside, a *_a.json")
    records, answers = read_list(annotations), read_list(answers_path)
    for path, rows in ((annotations, records), (answers_path, answers)):
        require_unique([str(row.get("question_id")) for row in rows], f"rows of {path.name}")
    by_id = {row["question_id"]: row for row in answers}
    without = {row["question_id"] for row in records} ^ set(by_id)
    if without:
        raise UserError(
            f"{annotations.name} and {answers_path.name} are about other questions",
            got=f"{len(without)} are in one alone, among them {sorted(map(str, without))[0]}",
        )

    def make(row: dict) -> Question:
        answer = by_id[row["question_id"]]
        return Question(
            question_id=row["question_id"],
            # `v_<youtube id>`, as ActivityNet Captions names the same videos
            video_id=row["question_id"].rpartition("_")[0],
            question=row["question"],
            answers=("" if answer["answer"] is None else str(answer["answer"]),),
            type=numbered(TYPES, answer["type"], "type"),
            split=split,
        )

    return question_set(annotations, "activitynet_qa", "open_ended", records, make)
