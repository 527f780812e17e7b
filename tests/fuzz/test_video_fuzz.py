"""A few mutations of a video of each codec and container, through both readers."""

from collections import Counter
from functools import partial

from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.video_factory import make_video
from tests.fuzz.video_fuzz import READERS, fuzz

MEMORY_GIB = 2.0
# What is written here: (codec, container).
KINDS = [
    ("libx264", "mp4"),
    ("libx264", "mpegts"),
    ("libx264", "h264"),
    ("mpeg4", "avi"),
    ("libvpx-vp9", "webm"),
    ("libvpx", "matroska"),
    ("gif", "gif"),
    ("libsvtav1", "mp4"),
]


def test_a_mutated_video_is_read_or_refused_with_one_reason():
    videos = [
        partial(bytes, make_video(num_frames=6, width=32, height=32, codec=codec, container=container))
        for codec, container in KINDS
    ]
    numbers = range(5 * len(KINDS))
    rows = fuzz(videos, numbers, DecodeConfig(timeout_s=10, max_memory_gib=MEMORY_GIB))
    assert len(rows) == len(numbers) * len(READERS)
    assert [row for row in rows if row["kind"] == "BUG"] == []
    counts = Counter(row["kind"] for row in rows)
    assert counts["read"] and counts["refused"], counts
    assert 0 < max(row["peak_mib"] for row in rows) < MEMORY_GIB * 1024
    assert max(row["took_s"] for row in rows) < 60
