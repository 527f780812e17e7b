"""What prepare asks of a video: its clips are cut out of one file that is opened and indexed once."""

import io
import json
from collections import Counter

import pytest

from mama_ray.data.video import cut
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.inspection import Inspector, serve
from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.video_factory import frame_number, make_video


@pytest.fixture
def calls(monkeypatch):
    """How often sources were opened and indexed so far."""
    counts = Counter()

    def count(name):
        function = getattr(cut, name)

        def counted(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(cut, name, counted)

    count("open_video")
    count("index_packets")
    return counts


@pytest.fixture
def inspect(tmp_path):
    inspector = Inspector()

    def inspect_clip(path, start_s, end_s):
        target, config = str(tmp_path / "cut.mp4"), DecodeConfig()
        facts = inspector.inspect(
            str(path), start_s=start_s, end_s=end_s, num_trial_frames=2, cut_to=target, config=config
        )
        frames = VideoDecoder(target if facts["is_cut"] else str(path)).frames_by_index([0])
        return facts, frame_number(frames[0])

    yield inspect_clip
    inspector.close()


def test_clips_of_one_video_in_a_row_are_indexed_once(inspect, calls, tmp_path):
    path = tmp_path / "long.mp4"
    path.write_bytes(make_video(num_frames=64, options={"g": "8"}))
    for number in (40, 3, 17, 18, 60, 0):
        facts, first = inspect(path, number / 8, number / 8 + 0.5)
        assert (facts["num_frames"], first) == (4, number % 16)
    with pytest.raises(DecodeError, match="starts after the end"):
        inspect(path, 9.0, 10.0)
    assert calls["index_packets"] == 1
    assert calls["open_video"] == 3  # the two clips before the second key frame are read from a fresh beginning


def test_another_video_at_the_same_place_is_looked_at_anew(inspect, calls, tmp_path):
    path = tmp_path / "source.mp4"
    for first in (2, 7):
        path.write_bytes(make_video(first=first, num_frames=16))
        assert inspect(path, 0.5, 1.0)[1] == first + 4
    assert inspect(path, 0.0, None)[0]["is_cut"] is False
    path.write_bytes(make_video(first=3, num_frames=24))
    assert inspect(path, 0.5, 1.0)[1] == 7
    assert calls["index_packets"] == 3


def test_a_video_that_fails_leaves_the_next_one_alone(tmp_path):
    good, bad, answers = tmp_path / "good.mp4", tmp_path / "bad.mp4", io.StringIO()
    good.write_bytes(make_video(num_frames=16))
    bad.write_bytes(b"not a video")
    request = {"num_trial_frames": 2, "cut_to": str(tmp_path / "cut.mp4"), "config": {}, "limit_s": 100}
    clips = [(good, 0.5, 1.0), (bad, 0.5, 1.0), (good, 1.0, 1.5), (tmp_path / "gone.mp4", 0.0, None), (good, 5.0, 6.0)]
    lines = [json.dumps({**request, "path": str(path), "start_s": a, "end_s": b}) for path, a, b in clips]
    serve(lines, answers)
    kinds = [next(iter(json.loads(line))) for line in answers.getvalue().splitlines()]
    assert kinds == ["facts", "error", "facts", "error", "error"]
