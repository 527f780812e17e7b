"""The scenes of a video: where they begin and end, and what is no scene."""

import io

import av
import numpy as np
import pytest
from pydantic import ValidationError

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import SourceVideo
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.scenes import find_scenes
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from tests.data.video.scene_factory import make_scenes, scene_of


def scenes_of(video: bytes, **options) -> list[tuple[float, float | None]]:
    with SourceVideo(video) as source:
        return find_scenes(source, SceneConfig(**{"detector": "content", "min_s": 1.0, **options}))


@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_a_scene_goes_from_one_change_to_the_next(detector):
    found = scenes_of(make_scenes([3, 1.5, 2.2]), detector=detector)
    assert np.allclose(found, [(0, 3), (3, 4.5), (4.5, 6.7)], atol=1e-3)


def test_every_frame_of_a_scene_is_of_that_scene_where_the_rate_varies():
    video = make_scenes([2, 2, 2], gap_s=0.3)
    found = scenes_of(video)
    assert np.allclose(found, [(0, 5.0), (5.0, 7.0), (7.0, 9.0)], atol=1e-3)
    with SourceVideo(video) as source:
        for number, (start_s, end_s) in enumerate(found):
            with av.open(io.BytesIO(source.cut(start_s, end_s))) as clip:
                frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
            assert {scene_of(frame) for frame in frames} == {number} and len(frames) in (10, 20)


def test_a_scene_that_is_too_short_is_left_out():
    assert np.allclose(scenes_of(make_scenes([3, 0.5, 2])), [(0, 3), (3.5, 5.5)], atol=1e-3)
    with pytest.raises(DecodeError, match=r"no scene is long enough: got 3 scenes, .*4 s"):
        scenes_of(make_scenes([3, 0.5, 2]), min_s=4.0)


def test_a_scene_that_is_too_long_comes_in_equal_parts():
    found = scenes_of(make_scenes([7, 2]), max_s=3.0)
    assert np.allclose(found, [(0, 7 / 3), (7 / 3, 14 / 3), (14 / 3, 7), (7, 9)], atol=1e-3)
    assert len(scenes_of(make_scenes([6]), max_s=3.0)) == 2


def test_a_video_of_one_scene_stays_whole():
    assert scenes_of(make_scenes([4])) == [(0.0, None)]
    assert scenes_of(make_scenes([4]), min_s=10.0) == [(0.0, None)]


def test_the_motion_of_the_camera_is_no_change_to_the_adaptive_detector():
    video = make_scenes([2, 2], pan=4)  # of its stripes, with every frame
    assert len(scenes_of(video, threshold=3.0, min_s=0.0)) > 10
    assert np.allclose(scenes_of(video, detector="adaptive"), [(0, 2), (2, 4)], atol=1e-3)


def test_the_child_process_finds_the_same_and_refuses_what_is_no_video(tmp_path):
    video = make_scenes([2, 2])
    (tmp_path / "v.mp4").write_bytes(video)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    guard = VideoGuard()
    try:
        assert guard.find_scenes(str(tmp_path / "v.mp4"), SceneConfig(detector="content")) == scenes_of(video)
        with pytest.raises(DecodeError, match="not a readable video"):
            guard.find_scenes(str(tmp_path / "bad.mp4"), SceneConfig(detector="content"))
    finally:
        guard.close()


def test_a_video_that_takes_too_long_is_refused():
    with pytest.raises(DecodeError, match="decoding takes too long"):
        scenes_of(make_scenes([2, 2]), timeout_s=1e-9)


def test_frames_over_the_limit_are_refused_on_the_way():
    with pytest.raises(DecodeError, match="too large"), SourceVideo(make_scenes([2]), DecodeConfig(max_pixels=99)):
        pass


def test_lengths_that_cannot_be_met_are_refused():
    with pytest.raises(ValidationError, match=r"max_s 3 is not at least twice min_s 2"):
        SceneConfig(max_s=3.0)
