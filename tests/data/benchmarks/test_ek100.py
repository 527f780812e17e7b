"""EK-100's files with their documented counts; text and classes of a caption go by narration_id."""

import pytest

from mama_ray.data.benchmarks.ek100 import (
    read_caption_list,
    read_classes,
    read_ek100,
    read_segments,
    read_tail,
    read_unseen,
    require_listed,
    unique_captions,
)
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.rows import checked_clips
from tests.data.benchmarks.official import official, segment_row, write_csv


@pytest.fixture(scope="module")
def segments():
    return read_segments(official("epic100/EPIC_100_retrieval_test.csv"), "test")


def test_the_official_files_have_the_documented_counts(segments):
    assert len(segments) == 9668
    assert (len({one.verb for one in segments}), len({one.noun for one in segments})) == (78, 211)
    assert len({one.action for one in segments}) == 1352
    tails = {name: read_tail(official(f"epic100/EPIC_100_tail_{name}s.csv"), name) for name in ("verb", "noun")}
    unseen = read_unseen(official("epic100/EPIC_100_unseen_participant_ids_validation.csv"))
    assert (len(tails["verb"]), len(tails["noun"]), unseen) == (86, 228, {"P18", "P32"})
    assert sum(one.verb in tails["verb"] for one in segments) == 1760
    assert sum(one.noun in tails["noun"] for one in segments) == 1900
    assert sum(one.participant_id in unseen for one in segments) == 1065
    classes = [read_classes(official(f"epic100/EPIC_100_{name}_classes.csv")) for name in ("verb", "noun")]
    assert [len(one) for one in classes] == [97, 300]
    require_listed(segments, *classes)


def test_a_caption_has_the_text_of_its_segment_and_not_of_its_own_row(segments):
    """In six of the last seven rows of the official list the text is shifted against narration_id."""
    path = official("epic100/EPIC_100_retrieval_test_sentence.csv")
    captions = read_caption_list(path, segments)
    assert len(captions.texts) == 3842
    made = unique_captions(segments)
    assert len(made.texts) == 3842
    assert captions.texts[:3835] == made.texts[:3835]
    classes = [
        {(segments[place].verb, frozenset(segments[place].nouns)) for place in one.segments[3835:]}
        for one in (captions, made)
    ]
    assert classes[0] == classes[1]
    written = [line.split(",", 1)[1].strip('"') for line in path.read_text().splitlines()[1:]]
    wrong = [place for place, text in enumerate(captions.texts) if text != written[place]]
    assert len(wrong) == 6
    assert wrong[0] >= 3835
    assert all(segments[place].narration == text for place, text in zip(captions.segments, captions.texts, strict=True))


def test_a_row_is_a_clip_of_seconds_named_after_its_narration(tmp_path):
    row = read_ek100(write_csv(tmp_path / "a.csv", [segment_row(7, narration="wash cloth")]))[0]
    assert row == {
        "video": "P01/P01_11.MP4", "video_id": "P01_11", "captions": ["wash cloth"], "split": "test",
        "clip_id": "P01_11_7", "start_s": 7.5, "end_s": 67.25,
    }  # fmt: skip
    clips = list(checked_clips([(1, row)], default_split=None, scratch=str(tmp_path)))
    assert [(clip.clip_id, clip.end_s) for clip in clips] == [("P01_11_7", 67.25)]


@pytest.mark.parametrize(
    ("rows", "name", "told"),
    [
        ([segment_row(1), segment_row(1)], "test.csv", "has a narration_id twice: got 1 of them, P01_11_1"),
        ([segment_row(1)], "EPIC_100_train.csv", "EPIC_100_train.csv is of another split: got 1 rows of train"),
        ([segment_row(1, start_timestamp="1.5 s")], "a.csv", "line 2 of a.csv is no segment: got got '1.5 s'"),
        ([segment_row(1, all_noun_classes="3")], "a.csv", "wanted a list such as"),
        ([{"narration_id": "P01_11_1"}], "a.csv", "a.csv lacks columns"),
    ],
)
def test_what_is_wrong_with_a_csv_is_one_line(tmp_path, rows, name, told):
    with pytest.raises(UserError, match=told) as error:
        read_segments(write_csv(tmp_path / name, rows), "test")
    assert "\n" not in str(error.value)


def test_a_caption_list_of_another_split_is_refused(tmp_path):
    segments = read_segments(write_csv(tmp_path / "a.csv", [segment_row(1), segment_row(2)]), "test")
    captions = [{"narration_id": name, "narration": "x"} for name in ("P01_11_2", "P01_01_9")]
    with pytest.raises(UserError, match=r"is not of the segments' split: got 1 captions of other segments, P01_01_9"):
        read_caption_list(write_csv(tmp_path / "b.csv", captions), segments)


def test_a_class_that_its_list_has_not_is_named(tmp_path):
    segments = read_segments(write_csv(tmp_path / "a.csv", [segment_row(2, verb_class="97")]), "test")
    with pytest.raises(UserError, match="a verb class is missing from its list: got 97 of segment P01_11_2"):
        require_listed(segments, {0: "take"}, dict.fromkeys(range(5), "thing"))


@pytest.mark.parametrize(("name", "content"), [("relevancy.pkl", b"x"), ("relevancy.csv", b"\x80\x04x")])
def test_a_relevance_pickle_is_not_opened(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="relevance is rebuilt from the CSV"):
        read_segments(tmp_path / name, "test")
