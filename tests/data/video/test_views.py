"""Windows over a clip and crops side by side, of a video whose frames say which they are."""

import io

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.loading import decoded_size
from mama_ray.data.video.sampling import sample_frame_indices
from mama_ray.data.video.transforms import TransformConfig, transform_frames
from mama_ray.data.video.view_loading import load_views, three_crops
from mama_ray.data.video.views import BLACK, ViewConfig, window_indices
from tests.data.video.video_factory import make_video


def test_frame_lists_round_half_to_even():
    """Half up would give 1 4 6 9."""
    assert sample_frame_indices(0, 11, 4).tolist() == [1, 3, 6, 9]


def test_ten_windows_of_32_frames_begin_at_equal_distances():
    found = window_indices(122, 16, num_windows=10, window_frames=32)
    assert found[:, 0].tolist() == list(range(0, 91, 10))
    np.testing.assert_array_equal(found[3], np.arange(30, 62, 2))
    assert found.max() == 120  # the last window ends with the last frame, 121, of which every second is seen


def test_a_short_clip_is_filled_up_with_black_and_repeated():
    found = window_indices(9, 8, num_windows=3, window_frames=16)
    assert found.tolist() == [[0, 2, 4, 6, 8, BLACK, BLACK, BLACK]] * 3


@given(st.integers(1, 400), st.integers(1, 12), st.integers(1, 32))
def test_windows_stay_in_the_clip_and_ascend(num_video_frames, num_windows, num_frames):
    found = window_indices(num_video_frames, num_frames, num_windows=num_windows, window_frames=32)
    assert found.shape == (num_windows, num_frames)
    assert found.max() < num_video_frames
    assert (np.diff(found, axis=0) >= 0).all()
    if num_video_frames >= 32:
        assert found.min() >= 0
        assert (np.diff(found, axis=1) > 0).all()


@pytest.mark.parametrize("shape", [(24, 72), (72, 24)])
def test_three_crops_are_the_first_the_middle_and_the_last_square(shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    frames = np.broadcast_to((rows + columns).astype(np.uint8)[None, ..., None], (2, *shape, 3)).copy()
    crops = three_crops(frames, 24)
    assert crops.shape == (3, 2, 24, 24, 3)
    assert crops[:, 0, 0, 0, 0].tolist() == [0, 24, 48]


def test_views_are_windows_by_crops_and_all_differ():
    video = wide_video(num_frames=50)
    views = ViewConfig(num_windows=3, window_frames=16, num_crops=3, pool="max")
    found = load_views(video, views=views, num_frames=4, transform=TransformConfig(image_size=32)).astype(int)
    assert found.shape == (9, 4, 32, 32, 3)
    grey = found.mean(axis=(2, 3, 4)).reshape(3, 3, 4)
    assert (np.diff(grey, axis=0) > 0).all()  # frames grow brighter
    assert (np.diff(grey, axis=1) > 0).all()  # from left to right, too
    assert len({one.tobytes() for one in found}) == 9
    assert str(views) == "3 windows of 16 frames x 3, max"


def test_a_clip_shorter_than_a_window_ends_in_black():
    video = wide_video(num_frames=9)
    views = ViewConfig(num_windows=2, window_frames=16)
    found = load_views(video, views=views, num_frames=4, transform=TransformConfig(image_size=32))
    assert found.shape == (2, 4, 32, 32, 3)
    assert [bool(frame.any()) for frame in found[0]] == [True, True, True, False]


@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear"])
@pytest.mark.parametrize("num_windows", [1, 2])
def test_the_middle_crop_has_the_pixels_of_the_models_own_centre(filter_name, num_windows):
    """Also where the model's filter is not the decoder's."""
    video = make_video(num_frames=16, width=96, height=64)
    transform = TransformConfig(image_size=24, resize="center_crop", interpolation=filter_name)
    windows = {"num_windows": 2, "window_frames": 8} if num_windows == 2 else {}
    one, three = (load_views(video, views=ViewConfig(num_crops=crops, **windows), **ask(transform)) for crops in (1, 3))
    np.testing.assert_array_equal(one, three[1::3])
    if num_windows == 2:
        frames = VideoDecoder(video, **decoded_size(transform, at_random=False)).frames_by_index(
            np.array([0, 4, 8, 12])
        )
        np.testing.assert_array_equal(np.concatenate(one), transform_frames(frames, transform, rng=None))


def test_filters_differ_in_every_view():
    video = make_video(num_frames=16, width=96, height=64)
    views = ViewConfig(num_windows=2, window_frames=8, num_crops=3)
    cubic, linear = (
        load_views(video, views=views, **ask(TransformConfig(image_size=24, interpolation=name)))
        for name in ("bicubic", "bilinear")
    )
    assert all((cubic[view] != linear[view]).any() for view in range(6))


def test_windows_of_a_model_that_squashes_are_scaled_once():
    video = make_video(num_frames=8, width=96, height=64)
    transform = TransformConfig(image_size=24)
    found = load_views(video, views=ViewConfig(num_windows=2, window_frames=4), **ask(transform))
    frames = VideoDecoder(video, width=24, height=24).frames_by_index(np.array([0, 2, 4, 6]))
    np.testing.assert_array_equal(np.concatenate(found), frames)


def ask(transform: TransformConfig) -> dict:
    return {"num_frames": 2, "transform": transform}


def test_one_view_is_what_a_clip_is_by_default():
    video = wide_video(num_frames=20)
    found = load_views(video, views=ViewConfig(), num_frames=4, transform=TransformConfig(image_size=32))
    assert found.shape == (1, 4, 32, 32, 3)


def wide_video(num_frames: int) -> bytes:
    """96 x 32; frame i has grey level 20 + 2 i at the left and is brighter to the right."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=8, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 32, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(num_frames):
            row = 20 + 2 * number + np.arange(96)
            pixels = np.broadcast_to(row[None, :, None], (32, 96, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()
