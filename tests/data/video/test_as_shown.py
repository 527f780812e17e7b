"""Videos look as players show them, in every path that leads to pixels: whole, cut, training, features and grid."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.inspection import Inspector
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.orientation import Orientation
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from tests.data.video.video_factory import frame_number, is_upright, make_song_with_cover, make_video

CASES = Path(__file__).resolve().parents[3] / "../shared/data/cases/videos"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/data/cases is not there")
ORIENTATIONS = [Orientation(*flags) for flags in product((False, True), repeat=3)]


def in_every_path(video, from_s=0.25, to_s=1.0):
    """{path: uint8 frames or a picture}, of moments that are the same for videos of the same frames."""
    square = TransformConfig(image_size=48, resize="center_crop")
    cropped = TransformConfig(image_size=48, resize="random_resized_crop")
    pictures = {"grid": make_clip_grid(video, ClipGridConfig(), side=192).pixels}
    for reader in ("pyav", "decord"):
        config = DecodeConfig(reader=reader)
        pictures[f"whole by {reader}"] = VideoDecoder(video, config=config).frames_by_index([0, 3, 5])
        pictures[f"squashed by {reader}"] = VideoDecoder(video, width=40, height=40, config=config).frames_by_index([4])
    pictures["cut"] = VideoDecoder(cut_clip(video, from_s, to_s)).frames_by_index([0, 2])
    pictures["features"] = load_clip_frames(video, num_frames=3, transform=square)
    pictures["training"] = load_clip_frames(video, num_frames=3, transform=cropped, rng=row_rng(0, 0, 0))
    return pictures


def assert_same_look(video, reference, limit=4.0):
    wanted = in_every_path(reference)
    for path, picture in in_every_path(video).items():
        assert picture.shape == wanted[path].shape, path
        assert np.abs(picture.astype(int) - wanted[path]).mean() < limit, path


def inspect(path, tmp_path, start_s=0.0, end_s=None):
    return Inspector().inspect(
        str(path),
        start_s=start_s,
        end_s=end_s,
        num_trial_frames=4,
        cut_to=str(tmp_path / "cut.mp4"),
        config=DecodeConfig(),
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_all_eight_display_matrices_are_undone_in_every_path(orientation):
    video = make_video(num_frames=8, width=96, height=64, orientation=orientation)
    assert_same_look(video, make_video(num_frames=8, width=96, height=64))
    frames = VideoDecoder(video).frames_by_index([2, 7])
    assert all(is_upright(frame) for frame in frames)
    assert [frame_number(frame) for frame in frames] == [2, 7]
    info = probe_video(video)
    assert (info.width, info.height) == (96, 64)


@pytest.mark.parametrize("pixel_aspect", [Fraction(16, 11), Fraction(8, 9), Fraction(3, 2), Fraction(1, 2)], ids=str)
@pytest.mark.parametrize("orientation", [Orientation(), Orientation(transposes=True, flips_x=True)], ids=str)
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_pixels_that_are_not_square_become_square_in_every_path(pixel_aspect, orientation, container):
    size = {"num_frames": 8, "width": 96, "height": 72, "container": container, "options": {"qp": "8"}}
    video = make_video(**size, pixel_aspect=pixel_aspect, orientation=orientation)
    info = probe_video(video)
    assert (info.width, info.height) == pytest.approx((96, 72), abs=1)
    cut = probe_video(cut_clip(video, 0.2, 0.8))
    assert cut.width / cut.height == pytest.approx(4 / 3, rel=0.03)
    reference = make_video(**size)
    assert_same_features(video, reference)
    # Both readers give the same pixels at the size that is shown.
    pyav, decord = (
        VideoDecoder(video, config=DecodeConfig(reader=reader)).frames_by_index([1, 6]) for reader in ("pyav", "decord")
    )
    assert pyav.shape == decord.shape
    assert np.abs(pyav.astype(int) - decord).mean() < 4
    frames = VideoDecoder(video, width=96, height=72).frames_by_index([1, 6]).astype(int)
    assert np.abs(frames - VideoDecoder(reference).frames_by_index([1, 6])).mean() < 6


def assert_same_features(video, reference):
    """The size of a whole frame may be off by one: what goes through a square or a cell may not."""
    transform = TransformConfig(image_size=48, resize="center_crop")
    ours, wanted = (load_clip_frames(v, num_frames=3, transform=transform).astype(int) for v in (video, reference))
    assert np.abs(ours - wanted).mean() < 6
    ours, wanted = (make_clip_grid(v, ClipGridConfig(), side=192).pixels.astype(int) for v in (video, reference))
    assert np.abs(ours - wanted).mean() < 6


@needs_cases
def test_a_mirrored_case_is_mirrored_left_to_right():
    base, mirrored = in_every_path(CASES / "base.mp4"), in_every_path(CASES / "mirror.mp4")
    for path in base.keys() - {"grid", "training"}:  # cells do not change places, and a random crop is elsewhere
        # Four and not nothing, because decord's scaler stands on one side and PyAV's on the other.
        assert np.abs(mirrored[path].astype(int) - base[path][:, :, ::-1]).mean() < 4, path
        assert np.abs(mirrored[path].astype(int) - base[path][:, ::-1, ::-1]).mean() > 20, path


@needs_cases
def test_a_circle_stays_a_circle():
    video, reference = CASES / "sar_pal.mp4", CASES / "square_pixels.mp4"
    assert (probe_video(video).width, probe_video(video).height) == (501, 288)
    assert_same_features(video, reference)
    for source in (video, cut_clip(video, 0.5, 1.0)):
        frame = VideoDecoder(source).frames_by_index([0])[0].astype(int)
        corner = frame[2, 2]
        is_figure = np.abs(frame - corner).sum(-1) > 60
        height, width = (np.ptp(np.flatnonzero(is_figure.any(axis))) + 1 for axis in (1, 0))
        assert width / height == pytest.approx(1, abs=0.04)


@needs_cases
def test_times_of_a_late_picture_count_from_the_sound():
    video = CASES / "late_video.mp4"
    info = probe_video(video)
    assert (info.first_frame_s, info.duration_s) == pytest.approx((3, 13))
    assert info.fps == pytest.approx(10)
    clip = VideoDecoder(cut_clip(video, 5, 6))
    levels = [float(frame.mean()) for frame in clip.frames_by_index(range(clip.num_frames))]
    assert levels == pytest.approx([2 * frame for frame in range(20, 30)], abs=3)


def test_a_late_picture_keeps_its_times_in_every_path(tmp_path):
    times = [1.5 + number / 8 for number in range(16)]
    path = tmp_path / "late.mp4"
    for container in ("mp4", "matroska", "mpegts"):
        path.write_bytes(make_video(num_frames=16, timestamps_s=times, with_audio=True, container=container))
        decoder = VideoDecoder(path)
        np.testing.assert_allclose(decoder.timestamps_s, times, atol=0.07)  # aac's silence before the sound
        assert [frame_number(frame) for frame in decoder.frames_at([0.0, 2.1, 3.2])] == [0, 4, 13]
        # Training and features look at what there is to see, not at the time before it.
        frames = load_clip_frames(path, num_frames=4, transform=TransformConfig(image_size=48))
        assert [frame_number(frame) for frame in frames] == [2, 6, 10, 14]
        assert inspect(path, tmp_path, 2.1, 2.35)["num_frames"] == 3
        cut = VideoDecoder((tmp_path / "cut.mp4").read_bytes())
        assert [frame_number(frame) for frame in cut.frames_by_index(range(3))] == [4, 5, 6]
        # A clip that begins before the picture has the part that there is.
        early = VideoDecoder(cut_clip(path, 1.0, 1.85))
        assert [frame_number(frame) for frame in early.frames_by_index(range(3))] == [0, 1, 2]
        assert early.duration_s == pytest.approx(0.375, abs=0.08)
        with pytest.raises(DecodeError, match=r"ends before the first picture: got \[0.2, 1.2\) s, limit 1.5"):
            cut_clip(path, 0.2, 1.2)


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("is_flagged", [True, False])
def test_a_cover_is_no_video(reader, container, is_flagged):
    with pytest.raises(DecodeError, match="no video stream, a cover picture only"):
        VideoDecoder(make_song_with_cover(container, is_flagged=is_flagged), config=DecodeConfig(reader=reader))
    both = make_song_with_cover(container, is_flagged=is_flagged, video=make_video(num_frames=8))
    decoder = VideoDecoder(both, config=DecodeConfig(reader=reader))
    assert (decoder.width, decoder.height) == (64, 48)
    assert [frame_number(frame) for frame in decoder.frames_by_index([0, 5])] == [0, 5]


@needs_cases
def test_the_case_of_a_song_with_its_cover_is_refused(tmp_path):
    with pytest.raises(DecodeError, match="no video stream, a cover picture only"):
        inspect(CASES / "song_with_cover.mp4", tmp_path)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video"])
def test_raw_streams_are_read_whatever_their_name(codec, tmp_path):
    raw = {"libx264": "h264", "libx265": "hevc", "mpeg4": "m4v", "mpeg2video": "mpeg2video"}[codec]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = tmp_path / "camera.mp4"
    path.write_bytes(make_video(num_frames=16, fps=25, codec=codec, container=raw, options=options))
    assert [frame_number(f) for f in VideoDecoder(path).frames_by_index([0, 3, 9, 14])] == [0, 3, 9, 14]
    facts = inspect(path, tmp_path, 0.2, 0.4)
    assert (facts["num_frames"], facts["width"]) == (5, 64)
    cut = VideoDecoder((tmp_path / "cut.mp4").read_bytes())
    assert [frame_number(frame) for frame in cut.frames_by_index(range(5))] == [5, 6, 7, 8, 9]
    assert in_every_path(path, 0.1, 0.3)["grid"].shape == (192, 192, 3)


@needs_cases
def test_the_raw_recording_of_a_camera_is_read(tmp_path):
    assert_same_look(CASES / "cctv_raw.mp4", CASES / "base.mp4")
    assert inspect(CASES / "cctv_raw.mp4", tmp_path)["duration_s"] == pytest.approx(4)
