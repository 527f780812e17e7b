"""EgoMCQ's questions: five clips each, named by what the types mean."""

import copy
import json

import pytest

from mama_ray.data.benchmarks.egomcq import INTRA, read_egomcq, read_questions
from mama_ray.errors import UserError

CLIPS = [{"video_uid": f"v{k}", "clip_start": k - 0.5, "clip_end": k + 1.0, "clip_text": "#C C acts"} for k in range(5)]
QUESTION = {
    "answer": 3,
    "query": {"clip_text": "#C C opens a door"},
    "choices": {str(place): clip for place, clip in enumerate(CLIPS)},
    "types": 2,
}


def written(tmp_path, *questions):
    (tmp_path / "egomcq.json").write_text(json.dumps({str(place): one for place, one in enumerate(questions)}))
    return tmp_path / "egomcq.json"


def test_a_clip_is_named_after_its_video_and_times_and_begins_at_0(tmp_path):
    path = written(tmp_path, QUESTION, QUESTION | {"types": 1})
    first, second = read_questions(path)
    assert (first.text, first.answer, first.type) == ("#C C opens a door", 3, INTRA)
    assert [(clip.video_id, clip.start_s) for clip in first.choices[:2]] == [("v0", 0.0), ("v1", 0.5)]
    rows = read_egomcq(path)
    assert [row["clip_id"] for row in rows] == [clip.clip_id for clip in second.choices]
    assert rows[1] | {"clip_id": ""} == {
        "video": "v1.mp4", "video_id": "v1", "captions": [], "split": "test", "clip_id": "", "start_s": 0.5,
        "end_s": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (
            ("choices",),
            dict(list(QUESTION["choices"].items())[:4]),
            "question 0 of egomcq.json: got 4 choices",
        ),
        (("answer",), 5, "answer 5, wanted 0 to 4"),
        (("types",), 3, r"types 3, wanted 1 \(inter-video\) or 2 \(intra-video\)"),
        (("query",), {}, "no 'clip_text'"),
        (("choices", "2", "clip_end"), -3, "wanted an end behind the start"),
        (("choices", "2", "clip_end"), 10**400, "question 0 of egomcq.json: got int too large"),
        (("choices", "2", "clip_end"), float("inf"), "wanted an end behind the start"),
        (("choices", "2", "clip_start"), float("nan"), "clip nan to 3.0 s, wanted an end behind the start"),
    ],
)
def test_a_question_of_another_form_is_named(tmp_path, path, value, told):
    question = copy.deepcopy(QUESTION)
    inner = question
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(UserError, match=told):
        read_questions(written(tmp_path, question))
