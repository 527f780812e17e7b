"""EGTEA's lists: numbered from 1 there and from 0 here."""

import shutil

import pytest

from mama_ray.data.benchmarks.egtea import read_action_texts, read_clips, read_egtea, read_test_splits
from mama_ray.errors import UserError
from tests.data.benchmarks.official import official


def test_the_official_files_have_the_documented_counts(tmp_path):
    texts = read_action_texts(official("egtea/rulstm_actions.csv"))
    shutil.copy(official("egtea/glc_test_split1.csv"), tmp_path / "test_split1.txt")
    clips = read_test_splits(tmp_path, num_classes=len(texts))["split1"]
    assert (len(texts), len(clips), len({clip.action for clip in clips})) == (106, 2022, 106)
    assert (clips[0].action, texts[0], texts[4]) == (0, "inspect/read recipe", "turn on faucet")
    assert len(read_clips(official("egtea/glc_train_split1.csv"), "train")) == 8299
    with pytest.raises(UserError, match="is of another split: got 8,299 rows of train"):
        read_clips(official("egtea/glc_train_split1.csv"), "test")


def test_a_folder_stands_for_all_test_lists_and_each_clip_comes_once(tmp_path):
    (tmp_path / "test_split1.txt").write_text("A-R1-Soup-1-2 1 1 1\nA-R1-Soup-3-4 2 1 1\n")
    (tmp_path / "test_split3.txt").write_text('"A-R1-Soup-3-4 2 1 1"\nB-R2-Cake-1-2 1 1 1\n')
    (tmp_path / "action_idx.txt").write_text("Inspect/Read_recipe 1\nOpen_fridge 2\n")
    rows = read_egtea(tmp_path, tmp_path / "action_idx.txt")
    assert [(row["video"], row["video_id"], row["captions"]) for row in rows] == [
        ("A-R1-Soup/A-R1-Soup-1-2.mp4", "A-R1-Soup", ["inspect/read recipe"]),
        ("A-R1-Soup/A-R1-Soup-3-4.mp4", "A-R1-Soup", ["open fridge"]),
        ("B-R2-Cake/B-R2-Cake-1-2.mp4", "B-R2-Cake", ["inspect/read recipe"]),
    ]
    assert list(read_test_splits(tmp_path)) == ["split1", "split3"]
    (tmp_path / "test_split2.txt").write_text("A-R1-Soup-3-4 1 1 1\n")
    with pytest.raises(UserError, match="another action than the lists before: got clip A-R1-Soup-3-4"):
        read_test_splits(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a-b-c 0 1 1\n", "actions are numbered from 1: got 0 of clip a-b-c"),
        ("a-b-c 3 1 1\n", "a class is missing from the list: got 3 of clip a-b-c, wanted 1 to 2"),
        ("a-b-c 1 1 1\na-b-c 1 1 1\n", "has a clip twice"),
        ("a-b-c ² 1 1\n", "line 1 of list.txt"),
        (f"a-b-c {'9' * 5000} 1 1\n", "line 1 of list.txt"),
        ("a-b-c take\n", "line 1 of list.txt"),
        ("\n", "has no clips"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line(tmp_path, text, told):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=told):
        read_clips(tmp_path / "list.txt", "test", num_classes=2)


def test_names_of_actions_that_are_out_of_order_are_refused(tmp_path):
    (tmp_path / "action_idx.txt").write_text("Open_fridge 2\nInspect/Read_recipe 1\n")
    with pytest.raises(UserError, match="wanted a name and the number 1"):
        read_action_texts(tmp_path / "action_idx.txt")
