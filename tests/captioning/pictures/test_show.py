"""The three ways to show a clip: which frames, of what size, where in the clip, and one function for all sources."""

import dataclasses

import numpy as np
import pytest

from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.captioning.pictures.keyframes import KeyFrameConfig
from mama_ray.captioning.pictures.settings import FRAMES, GRID, KINDS, VIDEO, ClipGridConfig, ClipShowConfig
from mama_ray.captioning.pictures.show import ShowConfig, arrange_frames, contact_sheet, show_clip
from mama_ray.config import ConfigError, parse_config
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from tests.data.video.video_factory import frame_number, make_video

UNIFORM = ClipGridConfig(key_frames=KeyFrameConfig(method="uniform"))
HOW = {
    GRID: ShowConfig(GRID, 192, grid=UNIFORM),
    FRAMES: ShowConfig(FRAMES, 32, num_frames=4),
    VIDEO: ShowConfig(VIDEO, 64, num_frames=4),
}


@pytest.mark.parametrize(("kind", "shape"), [(FRAMES, (4, 32, 32, 3)), (VIDEO, (4, 48, 64, 3))])
def test_frames_are_the_centres_of_equal_parts_and_their_numbers_and_times_are_told(kind, shape):
    video = make_video(num_frames=16, width=96, height=72, fps=8)
    shown = show_clip(video, HOW[kind])
    assert shown.content.shape == shape
    assert shown.frame_indices.tolist() == [2, 6, 10, 14]
    assert [frame_number(frame) for frame in shown.content] == [2, 6, 10, 14]
    assert shown.times_s is not None and shown.times_s.tolist() == pytest.approx([0.25, 0.75, 1.25, 1.75])
    assert (shown.num_filled, shown.sha256) == (0, hash_pixels(shown.content))


def test_frames_are_those_that_a_model_is_trained_on():
    video = make_video(num_frames=16, width=96, height=72)
    transform = TransformConfig(image_size=32, resize="center_crop")
    wanted = load_clip_frames(video, num_frames=4, transform=transform)
    np.testing.assert_array_equal(show_clip(video, HOW[FRAMES]).content, wanted)
    for sampling in ("numbers", "ends"):
        decode = DecodeConfig(sampling=sampling)
        wanted = load_clip_frames(video, num_frames=4, transform=transform, decode=decode)
        found = show_clip(video, dataclasses.replace(HOW[FRAMES], decode=decode))
        np.testing.assert_array_equal(found.content, wanted)
    assert found.frame_indices.tolist() == [0, 5, 10, 15]


def test_a_small_video_is_not_scaled_up_and_small_frames_are():
    video = make_video(num_frames=8, width=32, height=16)
    assert show_clip(video, HOW[VIDEO]).content.shape == (4, 16, 32, 3)
    assert show_clip(video, HOW[FRAMES]).content.shape == (4, 32, 32, 3)


@pytest.mark.parametrize("kind", [FRAMES, VIDEO])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_clip_of_fewer_frames_repeats_them_and_counts_that(kind, num_frames):
    shown = show_clip(make_video(num_frames=num_frames), HOW[kind])
    assert sorted(set(shown.frame_indices.tolist())) == list(range(num_frames))
    assert shown.num_filled == 4 - num_frames


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_somebody_else_decoded_are_shown_as_those_of_a_clip(kind):
    video, how = make_video(num_frames=24, width=96, height=72), HOW[kind]
    decoder = VideoDecoder(video, **how.decoded_size)
    count = min(how.num_candidates, decoder.num_frames)
    indices = ((np.arange(count) + 0.5) * decoder.num_frames / count).astype(np.int64)
    times_s = None if kind == GRID else decoder.timestamps_s[indices]
    ours, theirs = arrange_frames(decoder.frames_by_index(indices), indices, times_s, how), show_clip(video, how)
    assert ours.sha256 == theirs.sha256
    assert ours.frame_indices.tolist() == theirs.frame_indices.tolist()
    assert len(theirs.frame_indices) == how.num_indices
    assert show_clip(video, how, is_guarded=False).sha256 == theirs.sha256
    assert how.blank().shape[:1] == theirs.content.shape[:1] and how.blank().ndim == theirs.content.ndim


def test_another_number_of_frames_than_is_shown_is_refused():
    with pytest.raises(ValueError, match="got 3, wanted 4 with their times"):
        arrange_frames(np.zeros((3, 8, 8, 3), np.uint8), np.arange(3), np.arange(3.0), HOW[VIDEO])


@pytest.mark.parametrize(("num_frames", "size"), [(1, 40), (4, 300), (5, 40), (12, 333)])
def test_a_contact_sheet_holds_every_frame_and_stays_small(num_frames, size):
    frames = np.stack([np.full((size, 2 * size, 3), 10 * number + 10, np.uint8) for number in range(num_frames)])
    sheet = contact_sheet(frames)
    assert max(sheet.shape) <= 480
    assert {10 * number + 10 for number in range(num_frames)} <= set(np.unique(sheet).tolist())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--show", "video", "--num_frames", "200"], r"num_frames 200 of 448 pixels are too many: at most 83"),
        (["--show", "grid", "--num_frames", "8"], r"num_frames is of frames and video"),
        (["--show", "film"], r"show"),
        (["--num_frames", "0"], r"num_frames"),
        (["--show", "video", "--long_side", "3"], r"long_side"),
    ],
)
def test_what_cannot_be_shown_is_refused_when_the_config_is_read(arguments, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(ClipShowConfig, arguments)
