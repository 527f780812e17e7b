"""What is right, read from folders of the official form."""

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_result import deviation_of
from mama_ray.evaluation.targets import ChoiceTargets, ClassTargets, MultiInstanceTargets, read_targets
from mama_ray.orchestration.evaluation.run import load_benchmark
from tests.evaluation.small_annotations import write_charades, write_egomcq, write_egtea, write_ek100


def test_captions_have_the_classes_and_the_text_of_their_segments(tmp_path):
    targets = read_targets(load_benchmark("ek100_mir"), write_ek100(tmp_path))
    assert isinstance(targets, MultiInstanceTargets)
    assert targets.texts == tuple(f"take thing {n}" for n in range(1, 7))
    assert len(targets.clip_ids) == 6
    np.testing.assert_array_equal(targets.captions.nouns, targets.videos.nouns)
    assert targets.captions.verbs.tolist() == [1, 2, 0, 1, 2, 0]


def test_actions_are_those_of_train_and_test_sorted_as_texts(tmp_path):
    targets = read_targets(load_benchmark("ek100_cls"), write_ek100(tmp_path))
    assert isinstance(targets, ClassTargets) and targets.parts is not None
    assert targets.class_names == ("0:2", "0:3", "10:1", "1:0", "1:1", "2:0", "2:1", "2:2")
    by_class = {name: [] for name in targets.class_names}
    for text, number in zip(targets.texts, targets.text_classes, strict=True):
        by_class[targets.class_names[number]].append(text)
    assert (by_class["10:1"], by_class["2:2"]) == (["cut onion"], ["take thing 2"])
    assert [targets.class_names[number] for number in targets.classes] == ["1:1", "2:2", "0:3", "1:0", "2:1", "0:2"]
    assert targets.parts.unseen.tolist() == [False] * 4 + [True] * 2
    assert targets.parts.tail_nouns.tolist() == [False, True, True, False, False, True]


def test_clips_held_out_from_train_are_their_own_benchmark(tmp_path, caplog):
    held_out = {"split": "val", "files": {"segments": "EPIC_100_train.csv"}}
    benchmark = load_benchmark("ek100_mir").model_copy(update=held_out)
    targets = read_targets(benchmark, write_ek100(tmp_path), {"P01_11_41", "another"})
    assert (targets.clip_ids, targets.texts) == (("P01_11_41",), ("cut onion",))
    assert targets.left_out == ("another",)
    assert "1 of 2 clips of split val are not in the annotations and do not count: another" in caplog.text
    assert deviation_of(benchmark, targets, 0) == "1 of 9,668, 1 clips left out"
    mine = benchmark.model_copy(update={"num_clips": None, "clip_ids_sha256": None, "num_texts": None})
    assert deviation_of(mine, targets, 0) == "1 clips left out"
    assert read_targets(benchmark, tmp_path).clip_ids == ("P01_11_40", "P01_11_41")
    with pytest.raises(UserError, match=r"EPIC_100_train.csv is of another split"):
        read_targets(benchmark.model_copy(update={"split": "test"}), tmp_path)


def test_each_list_of_egtea_has_its_clips(tmp_path):
    folder = write_egtea(tmp_path, {"split1": [0, 1], "split2": [1, 2, 3]})
    targets = read_targets(load_benchmark("egtea"), folder)
    assert isinstance(targets, ClassTargets) and targets.lists is not None
    assert (targets.classes.tolist(), targets.texts) == ([0, 1, 2, 0], ("open fridge", "cut tomato", "close fridge"))
    assert {name: mask.tolist() for name, mask in targets.lists.items()} == {
        "split1": [True, True, False, False], "split2": [False, True, True, True],
    }  # fmt: skip


def test_a_named_list_of_egtea_is_the_one_that_is_read(tmp_path):
    """Of a held-out split it is a list of train, with and without the clips that it is restricted to."""
    folder = write_egtea(tmp_path, {"split1": [0, 1], "mine": [2, 3]})
    (folder / "train_split1.txt").write_text("A-R1-Soup-5-6 2 1 1\nA-R1-Soup-7-8 1 1 1\n")
    whole = load_benchmark("egtea")
    mine = read_targets(whole.model_copy(update={"files": {"clips": "test_mine.txt"}}), folder)
    assert (mine.clip_ids, list(mine.lists)) == (("B-R2-Cake-1-2", "B-R2-Cake-5-6"), ["test_mine"])
    held_out = whole.model_copy(update={"split": "val"})
    assert read_targets(held_out, folder).clip_ids == ("A-R1-Soup-5-6", "A-R1-Soup-7-8")
    assert read_targets(held_out, folder, {"A-R1-Soup-7-8"}).clip_ids == ("A-R1-Soup-7-8",)


@pytest.mark.parametrize("content", ["öffne 1".encode("latin-1"), b""])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    folder = write_egtea(tmp_path, {"split1": [0, 1]})
    (folder / "action_idx.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"action_idx\.txt"):
        read_targets(load_benchmark("egtea"), folder)


def test_templates_multiply_the_texts_of_a_class(tmp_path):
    benchmark = load_benchmark("charades_ego").model_copy(update={"templates": ("#C C {}", "{}.")})
    targets = read_targets(benchmark, write_charades(tmp_path))
    assert targets.texts == (
        "#C C Holding some clothes", "Holding some clothes.", "#C C Opening a door", "Opening a door."
    )  # fmt: skip
    assert targets.text_classes.tolist() == [0, 0, 1, 1]
    assert targets.labels.tolist() == [[True, True], [False, True], [False, False]]


def test_a_clip_of_several_questions_is_one_clip(tmp_path):
    clips = [("v0", -1.0, 1.0), *((f"v{k}", float(k), k + 1.0) for k in range(1, 6))]
    targets = read_targets(load_benchmark("egomcq"), write_egomcq(tmp_path, clips, [(0, 1), (4, 2)]))
    assert isinstance(targets, ChoiceTargets)
    assert len(targets.clip_ids) == 6
    assert targets.choices.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]
    assert (targets.answers.tolist(), targets.types.tolist()) == ([0, 4], [1, 2])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing: got .*, wanted egomcq.json; give the folder"):
        read_targets(load_benchmark("egomcq"), tmp_path)
