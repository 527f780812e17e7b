"""What is missing of a benchmark, by its own count where it has one, and what a result on the rest is called."""

import pytest

from mama_ray.data.index import hash_ids
from mama_ray.evaluation.coverage import Coverage, has_official_videos
from mama_ray.evaluation.protocol import BenchmarkConfig

MSRVTT = BenchmarkConfig(dataset="msrvtt_1ka", num_clips=1000, num_captions=1000)
MSVD = BenchmarkConfig(dataset="msvd", caption_mode="multi", num_clips=670, num_captions=27763)
OWN = BenchmarkConfig(dataset="own", caption_mode="multi")


@pytest.mark.parametrize(
    ("benchmark", "coverage", "num_undecodable", "deviation"),
    [
        (MSRVTT, Coverage(1000, 1000, is_official=True), 0, ""),
        (MSRVTT, Coverage(900, 900), 0, "900 of 1,000"),
        (MSRVTT, Coverage(900, 900, num_refused=100), 0, "900 of 1,000"),
        (MSRVTT, Coverage(1000, 1000), 3, "997 of 1,000"),
        (MSRVTT, Coverage(2990, 2990), 0, "2,990 clips for 1,000"),
        (MSRVTT, Coverage(1000, 1000, is_official=False), 0, "other videos"),
        (MSVD, Coverage(670, 27000), 0, "27,000 captions for 27,763"),
        (OWN, Coverage(45, 90), 0, ""),
        (OWN, Coverage(45, 90, num_refused=5), 0, "45 of 50"),
    ],
)
def test_a_result_says_what_was_not_there(benchmark, coverage, num_undecodable, deviation):
    assert coverage.deviation(benchmark, num_undecodable) == deviation


@pytest.mark.parametrize(
    ("benchmark", "coverage", "clips", "texts"),
    [
        (MSRVTT, Coverage(900, 900, num_refused=60), 100, 100),
        (MSRVTT, Coverage(2990, 2990, num_refused=1), 0, 0),
        (MSVD, Coverage(660, 27000), 10, 763),
        (MSVD, Coverage(670, 27000), 0, 0),
        (OWN, Coverage(45, 90, num_refused=5), 5, 5),
    ],
)
def test_clips_that_are_not_there_are_counted_with_their_texts(benchmark, coverage, clips, texts):
    assert (coverage.absent_clips(benchmark), coverage.absent_texts(benchmark)) == (clips, texts)


def test_videos_are_known_by_the_hash_of_their_ids():
    benchmark = BenchmarkConfig(dataset="x", num_clips=2, video_ids_sha256=hash_ids(["video1", "video2"]))
    assert has_official_videos(["video2", "video1"], benchmark) is True
    assert has_official_videos(["all/video2", "all/video1"], benchmark) is True
    assert has_official_videos(["video2", "video3"], benchmark) is False
    assert has_official_videos(["video2"], benchmark) is False
    assert has_official_videos(["video2"], benchmark, refused=["video1"]) is True
    assert has_official_videos(["video2", "video1"], benchmark, refused=["damaged"]) is True
    assert has_official_videos(["video2", "video3"], OWN) is None


@pytest.mark.parametrize("num_clips", [None, 3])
def test_the_hash_counts_whatever_the_number_of_clips(num_clips):
    benchmark = BenchmarkConfig(dataset="x", num_clips=num_clips, video_ids_sha256=hash_ids(["video1", "video2"]))
    assert has_official_videos(["video1", "video2", "video2"], benchmark) is True
    is_official = has_official_videos(["video1", "video3", "video3"], benchmark)
    assert Coverage(3, 3, is_official=is_official).deviation(benchmark) == "other videos"
