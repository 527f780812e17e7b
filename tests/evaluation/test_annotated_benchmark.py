"""What a benchmark's file may say: a mistake in it is told before anything is read."""

import pydantic
import pytest

from mama_ray.evaluation.annotated_benchmark import (
    ClassificationBenchmark,
    MultiInstanceBenchmark,
    MultipleChoiceBenchmark,
)
from mama_ray.evaluation.protocol import BenchmarkConfig


def benchmark(family: str, **changes):
    classes = {
        "multi_instance": MultiInstanceBenchmark,
        "multiple_choice": MultipleChoiceBenchmark,
        "egtea": ClassificationBenchmark,
        "charades_ego": ClassificationBenchmark,
        "ek100": ClassificationBenchmark,
    }
    kind = classes[family]
    named = (
        {"family": "classification", "annotations": family} if kind is ClassificationBenchmark else {"family": family}
    )
    return kind.model_validate({"dataset": "mine", **named, **changes})


@pytest.mark.parametrize(
    ("family", "name", "known"),
    [
        ("multi_instance", "train", "segments, captions, verbs, nouns"),
        ("multiple_choice", "question", "questions"),
        ("egtea", "videos", "actions, clips"),
        ("charades_ego", "clips", "videos, classes"),
        ("ek100", "tail", "segments, train, verbs, nouns, tail_verbs, tail_nouns, unseen"),
    ],
)
def test_files_that_are_not_read_are_refused(family, name, known):
    with pytest.raises(pydantic.ValidationError, match=f"files: got {name}, wanted some of {known}"):
        benchmark(family, files={name: "mine.csv"})
    first = known.split(", ", maxsplit=1)[0]
    assert benchmark(family, files={first: "mine.csv"}).files == {first: "mine.csv"}


def test_a_template_without_a_place_for_the_text_is_refused():
    with pytest.raises(pydantic.ValidationError, match="templates: got '#C C opens', wanted {} in each"):
        benchmark("egtea", templates=["#C C {}", "#C C opens"])


def test_a_window_has_as_many_frames_as_are_seen():
    with pytest.raises(pydantic.ValidationError, match="views.window_frames: got 15, wanted at least num_frames, 16"):
        benchmark("egtea", views={"num_windows": 2, "window_frames": 15}, num_frames=16)
    assert benchmark("egtea", num_frames=64).num_frames == 64  # of one window, which spans the clip


@pytest.mark.parametrize(
    ("family", "right", "wrong"),
    [
        ("multi_instance", "nDCG_t2v", "map"),
        ("multiple_choice", "accuracy_intra", "accuracy"),
        ("egtea", "split1/top1", "split1/top10"),
        ("charades_ego", "mAP_softmax", "mAP"),
        ("ek100", "action_top1_unseen", "unseen/action_top1"),
    ],
)
def test_chance_is_of_metrics_that_are_measured(family, right, wrong):
    assert benchmark(family, chance={right: 5.0}).chance == {right: 5.0}
    with pytest.raises(pydantic.ValidationError, match=f"unknown metric in chance: got {wrong}, wanted one of"):
        benchmark(family, chance={right: 5.0, wrong: 5.0})


@pytest.mark.parametrize(
    "build", [lambda **own: benchmark("egtea", **own), lambda **own: BenchmarkConfig(dataset="d", **own)]
)
def test_a_split_is_one_of_the_index_under_any_of_its_names(build):
    assert [build(split=name).split for name in ("test", "Validation", "dev", "train")] == [
        "test",
        "val",
        "val",
        "train",
    ]
    with pytest.raises(pydantic.ValidationError, match="split: got 'tset', wanted one of train, meta, val, test"):
        build(split="tset")
