"""Splits drawn by video: shares and numbers are met, a video stays whole, and nothing depends on order."""

import random
from collections import Counter

import pytest

from mama_ray.config import parse_config
from mama_ray.errors import UserError
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.rows import RefusedRow, checked_clips
from mama_ray.orchestration.prepare.run import empty_splits, run
from mama_ray.orchestration.prepare.splits import SplitRequest
from tests.data.video.video_factory import make_video
from tests.orchestration.prepare.in_process import prepare

ASKED = ("train", "0.9", "val", "0.05", "test", "0.05", "meta", "50")


def draw(rows: list[dict], tmp_path, split=ASKED) -> dict[str, str | None]:
    scratch = tmp_path / str(random.random())
    scratch.mkdir()
    clips = checked_clips(enumerate(rows, 1), default_split="train", split=split, scratch=str(scratch))
    return {clip.clip_id: clip.split for clip in clips if not isinstance(clip, RefusedRow)}


def rows_of(num_videos: int, clips_per_video: int = 3) -> list[dict]:
    times = [(float(number), number + 1.0) for number in range(clips_per_video)]
    names = [f"v{number}.mp4" for number in range(num_videos)]
    return [{"video": name, "start_s": start, "end_s": end} for name in names for start, end in times]


def test_shares_and_numbers_are_met_by_video(tmp_path):
    rows = rows_of(2000)
    splits = draw(rows, tmp_path)
    videos: dict[str, set] = {}
    for clip_id, split in splits.items():
        videos.setdefault(clip_id.split("_")[0], set()).add(split)
    assert all(len(found) == 1 for found in videos.values())
    counts = Counter(splits.values())
    assert 50 <= counts["meta"] < 50 + 3
    for split, share in (("train", 0.9), ("val", 0.05), ("test", 0.05)):
        expected = share * (len(rows) - counts["meta"])
        assert abs(counts[split] - expected) < 5 * 3 * (2000 * share * (1 - share)) ** 0.5  # five standard deviations
    random.Random(1).shuffle(rows)
    assert draw(rows, tmp_path) == splits


def test_what_the_table_names_stays_and_new_videos_move_no_other(tmp_path):
    shares = ("train", "0.5", "val", "0.5")
    rows = [{"video": f"v{number}.mp4"} for number in range(200)]
    before = draw(rows, tmp_path, shares)
    after = draw([*rows, {"video": "new.mp4"}, {"video": "named.mp4", "split": "test"}], tmp_path, shares)
    assert {clip_id: after[clip_id] for clip_id in before} == before
    assert after["named"] == "test"
    assert set(draw(rows, tmp_path, ("meta", "10")).values()) == {"meta", "train"}


def test_rows_of_a_video_that_name_no_split_take_the_one_that_others_name(tmp_path):
    rows = [
        row | {"split": split} for row, split in zip(rows_of(2), ["test", None, "", None, "val", None], strict=True)
    ]
    assert list(draw(rows, tmp_path, ("train", "1.0")).values()) == ["test"] * 3 + ["val"] * 3
    unnamed = rows_of(3)[6:]
    with pytest.raises(UserError, match="too few clips to draw the split meta: got 3, wanted 4"):
        draw([*rows, *unnamed], tmp_path, ("meta", "4"))


def test_rows_of_a_video_that_is_in_several_splits_already_are_refused_where_they_name_none(tmp_path):
    rows = [row | {"split": split} for row, split in zip(rows_of(1), ["test", None, "val"], strict=True)]
    found = list(
        checked_clips(enumerate(rows, 1), default_split="train", split=("train", "1.0"), scratch=str(tmp_path))
    )
    (refused,) = [clip for clip in found if isinstance(clip, RefusedRow)]
    assert refused.reason == "split: got none, and other rows of the video name test and val (row 2)"
    assert len(found) == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("train",), "pairs of a split"),
        (("train", "0.9", "val", "0.2"), "shares sum to 1.1"),
        (("train", "0.5"), "shares sum to 0.5"),
        (("holdout", "1.0"), "splits train, meta, val, test"),
        (("train", "many"), "pairs of a split"),
        (("train", "0.5", "training", "0.5"), "each once"),
        (("train", "1.0", "val", "0.0"), "more than 0"),
        (("train", "nan"), "more than 0"),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_error(words, text):
    with pytest.raises(UserError, match="splits to draw.*" + text):
        SplitRequest.of(words, "train")


def test_too_few_clips_are_told(tmp_path):
    with pytest.raises(UserError, match="too few clips to draw the split meta: got 6, wanted 50"):
        draw(rows_of(2), tmp_path)


def test_the_command_line_takes_pairs_and_shards_take_none():
    job = parse_config(PrepareJob, ["--videos", "v", "--split", *ASKED, "--output", "o"])
    assert job.split == ASKED
    with pytest.raises(UserError, match="--split draws for videos"):
        run(PrepareJob(shards="s", split=ASKED))


@pytest.mark.parametrize("inputs", [{"videos": "v"}, {"videos": "v", "annotations": "a.csv"}, {}])
def test_a_source_of_captions_is_of_foreign_shards(inputs):
    with pytest.raises(UserError, match="caption_source asr is of foreign shards.*wanted --shards; .* a column source"):
        run(PrepareJob(**inputs, caption_source="asr"))


def test_a_split_that_got_no_clip_is_named(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(make_video(num_frames=4, width=48, height=32))
    options = {"videos": str(tmp_path / "videos"), "output": str(tmp_path / "shards")}
    prepare(**options, split=("train", "0.999", "val", "0.001"))
    assert empty_splits(PrepareJob(**options, split=("train", "0.999", "val", "0.001"))) == ["val"]
    assert empty_splits(PrepareJob(**options, split=("training", "0.999", "validation", "0.001"))) == ["val"]
    assert empty_splits(PrepareJob(**options)) == []
