"""What a benchmark's file may say: a mistake in it is told before anything is read."""

import pydantic
import pytest

from mama_ray.evaluation.annotated_benchmark import (
    ClassificationBenchmark,
    MultiInstanceBenchmark,
    MultipleChoiceBenchmark,
)


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
