"""Human clips of videos, out of a table: what windows are laid around."""

import json

import pytest

from mama_ray.data.narrations.human_clips import read_human_clips
from mama_ray.errors import UserError
from mama_ray.storage.places import Place


def table(tmp_path, *rows: dict) -> Place:
    path = tmp_path / "human.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return Place.of(path)


def test_clips_are_those_of_their_video(tmp_path):
    place = table(
        tmp_path, {"video": "a.mp4", "start_s": 1, "end_s": 2, "caption": "x"}, {"video": "b.mp4", "caption": "whole"},
        {"video": "a.mp4", "start_s": 4.5, "end_s": 6, "verb": "ignored"},
    )  # fmt: skip
    found = read_human_clips(place, ["a", "b", "c"], "clips", None)
    assert found["a"] == [(1, 2), (4.5, 6)] and found["c"] == []
    assert found["b"][0][0] == 0 and found["b"][0][1] > 1e6


def test_a_video_in_a_folder_is_found_by_the_last_part_of_its_name(tmp_path):
    place = table(tmp_path, {"video": "P01/a.mp4", "start_s": 1, "end_s": 2}, {"video": "P01/x.mp4", "end_s": 1},
                  {"video": "P02/x.mp4", "end_s": 1})  # fmt: skip
    assert read_human_clips(place, ["a"], "clips", None) == {"a": [(1, 2)]}
    assert read_human_clips(place, ["a", "x"], "clips", None)["x"] == []  # which of the two is not known


def test_moments_become_clips_by_egovlps_rule(tmp_path):
    rows = [{"video": "a.mp4", "start_s": moment} for moment in (10.0, 14.9, 19.8)] + [{"video": "b.mp4", "start_s": 3}]
    found = read_human_clips(table(tmp_path, *rows), ["a", "b"], "moments", 4.9)
    assert found["a"][0] == pytest.approx((9.5, 10.5)) and found["b"] == [(2.5, 3.5)]
    rows = [{"video": "a.mp4", "start_s": moment} for moment in (0.0, 2.0)]
    rows += [{"video": "c.mp4", "start_s": moment} for moment in (0.0, 6.0)]
    found = read_human_clips(table(tmp_path, *rows), ["a"], "moments", None)  # the mean of both videos is 4
    assert found["a"][0] == pytest.approx((-0.25, 0.25))


@pytest.mark.parametrize("nothing", [{}, {"start_s": None}, {"start_s": "nan"}, {"start_s": float("nan")}])
def test_a_narration_without_its_moment_is_refused_and_not_taken_for_the_beginning(tmp_path, nothing):
    rows = [{"video": "a.mp4", "start_s": 3.0}, {"video": "a.mp4", **nothing}]
    with pytest.raises(UserError, match="a human narration has no moment: got .*, row 2, wanted its start_s"):
        read_human_clips(table(tmp_path, *rows), ["a"], "moments", 4.9)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "a.mp4", "start_s": 5, "end_s": 4}, "row 1: end_s"),
        ({"video": "a.mp4", "start_s": "soon"}, "row 1: start_s"),
        ({"video": "a.mp4", "start_s": 5}, "has no end.*moments"),
        ({"video": "z.mp4", "end_s": 4}, "of other videos.*got .* with z, wanted some of a"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_in_one_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read_human_clips(table(tmp_path, row), ["a"], "clips", None)
