"""LaViLa's records of 4 and 5 as rows, and what is no narration."""

from collections import Counter

import pytest

from mama_ray.data.annotations import parse_annotation
from mama_ray.data.narrations.records import row_of_record

NAN = float("nan")


def row_of(record, **options) -> dict:
    return row_of_record(record, clamped=Counter(), **options)[0]


def test_a_record_of_four_is_human_or_what_it_is_said_to_be():
    row = row_of(("uid", 0.5, 1.5, "#C C opens a drawer"))
    assert row == {
        "video": "uid.mp4",
        "video_id": "uid",
        "start_s": 0.5,
        "end_s": 1.5,
        "captions": [{"text": "#C C opens a drawer", "source": "human"}],
    }
    row = row_of(("uid", 0, 2, ["#C C opens it", " #C C pulls it "]), source="rephrased")
    assert row["captions"] == [{"text": text, "source": "rephrased"} for text in ("#C C opens it", "#C C pulls it")]


def test_a_record_of_five_is_generated_with_one_text_or_several():
    row = row_of(("uid", 0.5, 1.5, ["#C C looks", "#C C walks"], [1.5, 2.5]), source="human")
    assert row["captions"] == [{"text": text, "source": "generated"} for text in ("#C C looks", "#C C walks")]
    assert row_of(("uid", 0.5, 1.5, "#C C looks", 1.5))["captions"] == [{"text": "#C C looks", "source": "generated"}]


def test_texts_above_a_score_are_left_out_and_counted():
    record = ("uid", 0.5, 1.5, ["#C C looks", "#C C walks", "#C C runs"], [1.5, 9, 2.0])
    row, num_left_out = row_of_record(record, clamped=Counter(), max_score=2.0)
    assert ([one["text"] for one in row["captions"]], num_left_out) == (["#C C looks", "#C C runs"], 1)
    with pytest.raises(ValueError, match="score: got none of 3 texts up to 1"):
        row_of(record, max_score=1)


def test_a_start_below_zero_is_zero_and_counted():
    clamped = Counter()
    row, _ = row_of_record(("uid", -0.31, 0.7, "#C C looks"), clamped=clamped)
    assert (row["start_s"], row["end_s"], clamped) == (0.0, 0.7, {"start": 1})


def test_names_of_clips_are_stable_and_told_by_video_and_times():
    def name(*record) -> str:
        return parse_annotation(row_of(record)).clip_id

    assert name("uid", 0.5, 1.5, "a") == name("uid", 0.5, 1.5, ["b"], [1.0]) == "uid_500-1500_051a4b7b7d2a"
    names = {
        name("uid", 0.5, 1.5, "a"),
        name("uid", 0.5, 1.5001, "a"),
        name("vid", 0.5, 1.5, "a"),
        name("uid", 0, 1, "a"),
    }
    assert len(names) == 4


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (("uid", NAN, 1.0, "text"), "start: got nan, wanted a finite number of seconds"),
        (("uid", 0.0, float("inf"), "text"), "end: got inf"),
        (("uid", 2.0, 1.0, "text"), "times: got an end of 1 s, wanted more than the start of 2 s"),
        (("uid", 1.0, 1.0, "text"), "times: got an end of 1 s"),
        (("uid", -2.0, -1.0, "text"), "times: got an end of -1 s, wanted more than 0"),
        (("uid", None, 1.0, "text"), "start: got NoneType, wanted a number of seconds"),
        (("uid", True, 2.0, "text"), "start: got bool"),
        (("uid", 0, 10**400, "text"), "end: got int"),
        (("uid", 0, "soon", "text"), "end: got 'soon'"),
        (("uid", 0, 1, ""), "text: got nothing, wanted a narration"),
        (("uid", 0, 1, [" ", "nan"]), "text: got nothing"),
        (("uid", 0, 1, []), "text: got nothing"),
        (("uid", 0, 1, [["a"]]), "text: got list, wanted a text"),
        (("uid", 0, 1, 7), "text: got int"),
        (("uid", 0, 1, "a" * 20_000), "text: got 20000 characters, wanted at most 10000"),
        (("uid", 0, 1, ["a"] * 2000), "texts: got 2000, wanted at most 1000"),
        (("uid", 0, 1, ["a", "b"], [1.0]), "scores: got 1 of 2 texts"),
        (("uid", 0, 1, "a", "good"), "score: got str, wanted a number"),
        (("uid", 0, 1, "a", NAN), "score: got nan"),
        ((3, 0, 1, "a"), "video uid: got int, wanted a name"),
        (("", 0, 1, "a"), "video uid: got '', wanted a name"),
        (("../../etc/x", 0, 1, "a"), "video uid: got '../../etc/x', wanted a name without folders"),
        (("uid", 0, 1), "record: got a tuple of 3, wanted a tuple of 4 or 5"),
        ("abcd", "record: got a str, wanted a tuple of 4 or 5"),
        (7, "record: got a int"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_narration_says_why(record, reason):
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        row_of(record)
