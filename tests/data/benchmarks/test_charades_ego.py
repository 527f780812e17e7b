"""Charades-Ego's first-person videos and classes."""

import pytest

from mama_ray.data.benchmarks.charades_ego import (
    read_charades_ego,
    read_charades_ego_clips,
    read_class_texts,
    read_videos,
)
from mama_ray.errors import UserError
from tests.data.benchmarks.official import official, write_csv


def video(name: str, actions: str, length: str = "30.5") -> dict[str, str]:
    return {"id": name, "actions": actions, "length": length}


def test_the_official_files_have_the_documented_counts():
    classes = read_class_texts(official("charades/Charades_v1_classes.txt"))
    videos = read_videos(official("charades_ego/CharadesEgo_v0_egocentric_test.csv"), "test", num_classes=len(classes))
    assert (len(classes), len(videos)) == (157, 103)
    assert classes[0] == "Holding some clothes"
    assert videos[0].video_id == "BHP3HEGO"
    assert set(videos[0].classes) >= {98, 106, 108, 135}
    assert len(videos[0].classes) < len(videos[0].actions)  # a class may come twice
    assert len(read_charades_ego(official("charades_ego/CharadesEgo_v0_egocentric_test.csv"))) == 103


def test_training_clips_are_trimmed_to_their_action(tmp_path):
    (tmp_path / "classes.txt").write_text("c000 Holding some clothes, or a towel\nc001 Opening a door\n")
    rows = [video("AEGO", "c001 -1.5 4.0;c000 2 99;c001 40 50"), video("BEGO", "")]
    found = read_charades_ego_clips(write_csv(tmp_path / "train.csv", rows), tmp_path / "classes.txt", "train")
    assert [(row["captions"], row["start_s"], row["end_s"]) for row in found] == [
        (["Holding some clothes"], 2.0, 30.5),
        (["Opening a door"], 0.0, 4.0),
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([video("AEGO", ""), video("AEGO", "")], "has a video twice"),
        ([video("A", "")], "not of first-person videos: got 1 third-person videos, A"),
        ([video("AEGO", "c002 1 2")], "a class is missing from the list: got c002 of video AEGO"),
        ([video("AEGO", "c-1 1 2")], "line 2 of v1_test.csv: got AEGO: got '-1', wanted a whole number"),
        ([video("AEGO", "c001 nan 2")], "line 2 of v1_test.csv: got AEGO: 'nan', wanted seconds"),
        ([video("AEGO", "c001 1 2", length="inf")], "'inf', wanted seconds"),
        ([video("AEGO", "c001 1")], "line 2 of v1_test.csv: got AEGO"),
    ],
)
def test_what_is_wrong_with_a_csv_is_one_line(tmp_path, rows, told):
    with pytest.raises(UserError, match=told):
        read_videos(write_csv(tmp_path / "v1_test.csv", rows), "test", num_classes=2)


def test_a_file_of_train_is_none_of_test(tmp_path):
    path = write_csv(tmp_path / "CharadesEgo_v1_train_only1st.csv", [video("AEGO", "")])
    with pytest.raises(UserError, match="is of another split: got 1 rows of train"):
        read_videos(path, "test")
    assert len(read_videos(path, "val")) == 1


def test_classes_with_a_gap_are_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("c000 Holding some clothes\nc002 Opening a door\n")
    with pytest.raises(UserError, match="wanted c001 and a text"):
        read_class_texts(tmp_path / "classes.txt")
