"""EgoClip's table as rows of annotations."""

from collections import Counter

import pytest

from mama_ray.data.annotations import parse_annotation
from mama_ray.data.narrations.egoclip import read_egoclip
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

HEADER = (
    "clip_idx\tvideo_uid\tvideo_dur\tnarration_source\tnarration_ind\tnarration_time\tclip_start\tclip_end\tclip_text\t"
    "tag_verb\ttag_noun"
)


def line(uid="uid-a", start: object = 0.5, end: object = 1.5, text="#C C opens a drawer") -> str:
    return f"0\t{uid}\t480.0\tnarration_pass_1\t0\t1.0\t{start}\t{end}\t{text}\t[94]\t[2, 5]"


def read(folder, *lines, header=HEADER, clamped=None) -> list[dict]:
    (folder / "egoclip.csv").write_text("\n".join([header, *lines]) + "\n")
    return [row for _, row in read_egoclip(Place.of(folder / "egoclip.csv"), clamped)]


def test_rows_have_the_video_the_times_and_the_text_as_human(tmp_path):
    clamped = Counter()
    rows = read(tmp_path, line(), line("uid-b", -0.25, 1, '#C C says "no", twice'), clamped=clamped)
    assert rows == [
        {
            "video": "uid-a.mp4",
            "video_id": "uid-a",
            "start_s": 0.5,
            "end_s": 1.5,
            "captions": [{"text": "#C C opens a drawer", "source": "human"}],
        },
        {
            "video": "uid-b.mp4",
            "video_id": "uid-b",
            "start_s": 0.0,
            "end_s": 1.0,
            "captions": [{"text": '#C C says "no", twice', "source": "human"}],
        },
    ]
    assert clamped == {"start": 1}
    assert parse_annotation(rows[0]).clip_id.startswith("uid-a_500-1500_")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line(start="nan"), "start: got nan, wanted a finite number"),
        (line(start="x"), "start: got 'x', wanted a number of seconds"),
        (line(end=0.25), "times: got an end of 0.25 s, wanted more than the start of 0.5 s"),
        (line(text=""), "text: got nothing"),
        (line(text="a\tb"), "row: got 12 fields, wanted 11 as in the header"),
        (line(uid="../x"), "video uid"),
        (line(uid=""), "video uid: got '', wanted a name"),
    ],
)
def test_a_bad_row_says_why_and_the_others_stay(tmp_path, bad, reason):
    rows = read(tmp_path, line(), bad, line(start=1))
    assert ["error" in row for row in rows] == [False, True, False]
    assert rows[1]["error"].startswith(reason)


@pytest.mark.parametrize(
    ("lines", "header", "reason"),
    [
        ([line().replace("\t", ",")], HEADER.replace("\t", ","), "no file of EgoClip: got .*without video_uid"),
        (["a.mp4\tb"], "video\tcaption", "no file of EgoClip"),
        ([], HEADER, "annotations have no rows"),
        ([line(text='"never closed'), line()], HEADER, "EgoClip cannot be read"),
    ],
)
def test_another_file_is_told_in_one_line(tmp_path, lines, header, reason):
    with pytest.raises(UserError, match=reason):
        read(tmp_path, *lines, header=header)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="no such annotation file"):
        list(read_egoclip(Place.of(tmp_path / "gone.csv")))
