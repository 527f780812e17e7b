import numpy as np
import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig, transform_frames
from tests.data.video.video_factory import frame_number, make_video


@pytest.mark.parametrize("resize", ["squash", "center_crop", "random_resized_crop"])
@pytest.mark.parametrize("size", [(96, 64), (64, 96), (40, 40)])
def test_a_clip_becomes_squares_whatever_its_shape(resize, size):
    video = make_video(width=size[0], height=size[1])
    transform = TransformConfig(image_size=48, resize=resize)
    for rng in (None, row_rng(0, 0, 0)):
        frames = load_clip_frames(video, num_frames=4, transform=transform, rng=rng)
        assert frames.shape == (4, 48, 48, 3)
        assert frames.dtype == np.uint8


def test_a_frame_of_a_few_lines_is_refused_before_it_is_scaled_to_gigabytes():
    video = make_video(num_frames=2, width=2000, height=8)
    with pytest.raises(DecodeError, match="2000x8"):
        load_clip_frames(video, num_frames=2, transform=TransformConfig(image_size=48, resize="center_crop"))
    assert load_clip_frames(video, num_frames=2, transform=TransformConfig(image_size=48)).shape == (2, 48, 48, 3)


@pytest.mark.parametrize("resize", ["squash", "center_crop"])
def test_another_filter_than_the_decoders_sees_the_frames_as_they_are(resize):
    video = make_video(width=96, height=64)
    decoder = VideoDecoder(video)
    middles = decoder.start_s + decoder.duration_s * np.array([0.25, 0.75])
    transform = TransformConfig(image_size=32, resize=resize, interpolation="bilinear")
    np.testing.assert_array_equal(
        load_clip_frames(video, num_frames=2, transform=transform),
        transform_frames(decoder.frames_at(middles), transform, rng=None),
    )


def test_evaluation_takes_the_centres_of_equal_segments():
    frames = load_clip_frames(make_video(num_frames=12), num_frames=4, transform=TransformConfig(image_size=48))
    assert [frame_number(frame) for frame in frames] == [1, 4, 7, 10]


def test_more_frames_than_the_clip_has_are_repetitions():
    frames = load_clip_frames(make_video(num_frames=3), num_frames=6, transform=TransformConfig(image_size=48))
    assert [frame_number(frame) for frame in frames] == [0, 0, 1, 1, 2, 2]


def test_training_frames_are_a_pure_function_of_seed_epoch_and_row():
    video = make_video(num_frames=16)
    transform = TransformConfig(image_size=32, resize="random_resized_crop")

    def load(*key):
        return load_clip_frames(video, num_frames=4, transform=transform, rng=row_rng(*key))

    np.testing.assert_array_equal(load(0, 1, 2), load(0, 1, 2))
    assert (load(0, 1, 2) != load(0, 2, 2)).any()


def test_a_rotated_clip_is_cropped_upright():
    shown = make_video(width=96, height=64)
    turned = make_video(width=96, height=64, rotation=90)
    transform = TransformConfig(image_size=32, resize="center_crop")
    a, b = (load_clip_frames(video, num_frames=2, transform=transform).astype(int) for video in (shown, turned))
    assert np.abs(a - b).mean() < 3


def test_limits_reach_the_decoder():
    with pytest.raises(DecodeError, match="too long"):
        load_clip_frames(
            make_video(),
            num_frames=2,
            transform=TransformConfig(image_size=32),
            decode=DecodeConfig(max_duration_s=0.1),
        )
