"""Clips that are made smaller: what they show and when, whatever they were, and what becomes of damaged ones."""

import hashlib
import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.orientation import Orientation
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.settings import DecodeConfig, TranscodeConfig
from mama_ray.data.video.transcode import Transcoded, transcode
from tests.data.video.test_real_clips import ROWS, SHARED
from tests.data.video.video_factory import draw_frame, frame_number, is_upright, make_damaged_video, make_video

SMALL = TranscodeConfig(short_side=48, fps=8, key_every=4)
LONG = {"num_frames": 64, "width": 192, "height": 128, "fps": 32}
# Of real clips: rotations, a full range, GIF, AVI, WebM, long pixels, many streams, a damaged one.
REAL = (
    "video_0.mov",
    "video_90",
    "bt709_full_range",
    ".gif",
    ".avi",
    ".webm",
    "sample_demo_16",
    "nasa_13013",
    "corrupted",
)
HDR = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}  # BT.2020 and PQ


def made_of(video: bytes, folder: Path, config: TranscodeConfig = SMALL) -> Transcoded:
    (folder / "video").write_bytes(video)
    return transcode(str(folder / "video"), config, DecodeConfig())


def encode(codec, container, pixels, *, tags=(), options=None) -> bytes:
    """The frames of `make_video(**LONG)`, with pixels of another kind."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=LONG["fps"], options=options or {})
        stream.width, stream.height, stream.pix_fmt = LONG["width"], LONG["height"], pixels
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        for number in range(LONG["num_frames"]):
            frame = av.VideoFrame.from_ndarray(draw_frame(number, LONG["width"], LONG["height"]), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


VARIABLE = [number / 32 + (1.5 if number > 20 else 0) + (0.01 if number % 3 else 0) for number in range(64)]
KINDS = {
    "plain": lambda: make_video(**LONG),
    "sound": lambda: make_video(**LONG, with_audio=True),
    "turned": lambda: make_video(**LONG, rotation=90),
    "mirrored": lambda: make_video(**LONG, orientation=Orientation(transposes=True, flips_x=True, flips_y=True)),
    "anamorphic": lambda: make_video(**LONG, pixel_aspect=Fraction(4, 3)),
    "anamorphic and turned": lambda: make_video(**LONG, pixel_aspect=Fraction(3, 4), rotation=-90),
    "variable rate": lambda: make_video(**LONG, timestamps_s=VARIABLE),
    "odd size": lambda: make_video(**LONG | {"width": 193, "height": 129}, codec="libvpx-vp9"),
    "GIF": lambda: make_video(**LONG | {"fps": 25}, codec="gif"),
    "no times of presentation": lambda: make_video(**LONG, container="avi", options={"bf": "2"}),
    "raw": lambda: make_video(**LONG | {"fps": 25}, container="h264"),
    "interlaced": lambda: make_video(**LONG, options={"x264-params": "tff=1"}),
    "10 bits": lambda: encode("libx264", "mp4", "yuv420p10le"),
    "HDR": lambda: encode("libx264", "mp4", "yuv420p10le", tags=HDR),
    "4:4:4 of full range": lambda: encode("libx264", "matroska", "yuvj444p"),
    "alpha": lambda: encode("qtrle", "mov", "argb"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_of_any_kind_is_upright_square_8_bit_and_on_time(kind, tmp_path):
    video = KINDS[kind]()
    data = made_of(video, tmp_path).data
    original, small = VideoDecoder(video), VideoDecoder(data)
    with av.open(io.BytesIO(data)) as container:
        stream, told = container.streams.video[0], container.streams.video[0].codec_context
        assert len(container.streams) == 1  # no sound
        assert (told.name, told.pix_fmt, stream.sample_aspect_ratio or 1) == ("h264", "yuv420p", 1)
        assert not next(container.decode(video=0)).interlaced_frame
    assert probe_video(data).rotation == 0 and min(small.width, small.height) == 48
    assert small.width / small.height == pytest.approx(original.width / original.height, rel=0.03)
    assert small.num_frames <= np.ceil(small.duration_s * 8)
    assert small.duration_s == pytest.approx(original.duration_s - original.start_s, abs=0.01)
    frames = small.frames_by_index(range(small.num_frames))
    assert all(is_upright(frame) for frame in frames)
    shown = [frame_number(frame) for frame in original.frames_by_index(range(original.num_frames))]
    for frame, time_s in zip(frames, small.timestamps_s, strict=True):
        times_s = original.timestamps_s[[number == frame_number(frame) for number in shown]] - original.start_s
        assert np.abs(times_s - time_s).min() <= 1 / 16 + 0.002
    assert np.diff(small.timestamps_s).min() > 0.12
    wanted = VideoDecoder(video, width=small.width, height=small.height).frames_at(small.timestamps_s + 1 / 16)
    assert np.abs(wanted.astype(int)[:, 20:, :20] - frames[:, 20:, :20]).mean() < 4


def test_key_frames_come_as_often_as_asked(tmp_path):
    data = made_of(make_video(**LONG), tmp_path).data
    with av.open(io.BytesIO(data)) as container:
        is_key = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    keys = np.flatnonzero([*is_key, True])
    assert len(is_key) == 16 and keys[0] == 0 and max(np.diff(keys)) <= 4


def test_a_picture_that_stays_comes_once_and_stays(tmp_path):
    data = made_of(make_video(**LONG, timestamps_s=VARIABLE), tmp_path).data
    small = VideoDecoder(data)
    assert max(np.diff(small.timestamps_s)) == pytest.approx(1.5, abs=0.13)
    assert small.num_frames < small.duration_s * 8 - 8


def test_a_slow_clip_keeps_its_frames_and_times(tmp_path):
    times = [0, 0.5, 0.7, 1.9, 2.0, 3.0]
    video = make_video(num_frames=6, width=192, height=128, timestamps_s=times)
    small = VideoDecoder(made_of(video, tmp_path).data)
    np.testing.assert_allclose(small.timestamps_s, times, atol=1e-3)
    assert [frame_number(frame) for frame in small.frames_by_index(range(6))] == list(range(6))


@pytest.mark.parametrize("times", [[0.0], [0, 3000, 6000]])
def test_a_single_picture_and_a_slide_show_keep_their_times(times, tmp_path):
    video = make_video(num_frames=len(times), width=192, height=128, timestamps_s=times)
    small = VideoDecoder(made_of(video, tmp_path).data)
    np.testing.assert_allclose(small.timestamps_s, times, atol=1e-3)
    assert small.duration_s == pytest.approx(VideoDecoder(video).duration_s, abs=0.01)


def test_a_last_picture_stays_as_long_as_it_did(tmp_path):
    video = make_video(**LONG | {"num_frames": 67}, options={"bf": "3"})
    small = VideoDecoder(made_of(video, tmp_path).data)
    assert small.duration_s == pytest.approx(67 / 32, abs=1e-3)
    assert small.duration_s - small.timestamps_s[-1] == pytest.approx(3 / 32, abs=1e-3)


def test_a_small_clip_keeps_its_size(tmp_path):
    video = make_video(num_frames=64, fps=32, width=66, height=40)
    info = probe_video(made_of(video, tmp_path).data)
    assert (info.width, info.height, info.num_frames) == (66, 40, 16)


def test_a_clip_that_is_as_wanted_and_would_not_lose_a_byte_is_kept(tmp_path):
    video = make_video(num_frames=16, width=64, height=48, options={"crf": "40"})
    assert made_of(video, tmp_path).data is None
    # One that is larger or turned is not, whatever its bytes.
    assert made_of(make_video(num_frames=16, fps=9, options={"crf": "40"}), tmp_path).data is not None
    assert made_of(make_video(num_frames=16, rotation=180, options={"crf": "40"}), tmp_path).data is not None


def test_the_same_clip_and_settings_give_the_same_bytes(tmp_path):
    video = make_video(**LONG)
    first, second = made_of(video, tmp_path).data, made_of(video, tmp_path).data
    assert first == second != made_of(video, tmp_path, SMALL.model_copy(update={"crf": 30})).data
    assert b"Lav" not in first  # no version of FFmpeg, and no date


@pytest.mark.parametrize("num_bad", [0, 3, 9])
def test_frames_that_do_not_decode_are_counted(num_bad, tmp_path):
    video = make_damaged_video(num_frames=20, first_bad=5, num_bad=num_bad)
    made = made_of(video, tmp_path, TranscodeConfig(short_side=32))
    assert made.num_missing == num_bad
    assert probe_video(made.data).duration_s == pytest.approx(2.5, abs=0.01)


def test_a_clip_of_which_too_little_decodes_is_refused(tmp_path):
    with pytest.raises(DecodeError, match=r"too many frames cannot be decoded: got 11 of 20, limit 50%"):
        made_of(make_damaged_video(num_frames=20, first_bad=5, num_bad=11), tmp_path)


def test_what_is_missing_at_the_end_of_a_file_counts(tmp_path):
    (tmp_path / "whole.mkv").write_bytes(make_video(**LONG, container="matroska", options={"g": "1"}))
    with (
        av.open(str(tmp_path / "whole.mkv")) as container,
        av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "+faststart"}) as output,
    ):
        copied = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            packet.stream = copied
            output.mux([packet] if packet.size else [])
    whole = (tmp_path / "whole.mp4").read_bytes()
    made = made_of(whole[: len(whole) * 3 // 4], tmp_path)
    assert 10 < made.num_missing < 30
    with pytest.raises(DecodeError, match="cut off"):
        made_of(whole[: len(whole) // 3], tmp_path)


@pytest.mark.parametrize(("first", "num_frames"), [(0, 40), (40, 16)])
def test_what_an_edit_list_hides_is_not_missing(first, num_frames, tmp_path):
    video = bytearray(make_video(**LONG, options={"g": "8", "bf": "2"}))
    place = video.index(b"elst") + 12
    _, media_time = struct.unpack(">Ii", video[place : place + 8])
    video[place : place + 8] = struct.pack(">Ii", num_frames * 1000 // 32, media_time + first * 400)
    made = made_of(bytes(video), tmp_path)
    assert (made.num_missing, probe_video(made.data).num_frames) == (0, num_frames // 4)


@pytest.fixture
def guard():
    guard = VideoGuard(transcode=SMALL)
    yield guard
    guard.close()


def test_the_guard_tells_what_a_clip_was(guard, tmp_path):
    path, made = tmp_path / "v.mp4", tmp_path / "cut.mp4"
    path.write_bytes(make_video(**LONG))
    whole = guard.inspect(str(path), 0.0, None, str(made))
    assert whole["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (whole["is_cut"], whole["end_s"], whole["width"], whole["height"], whole["fps"]) == (True, 2.0, 72, 48, 8.0)
    part = guard.inspect(str(path), 0.5, 1.5, str(made))
    plain = VideoGuard()
    plain.inspect(str(path), 0.5, 1.5, str(tmp_path / "plain.mp4"))
    plain.close()
    # What it would have been without being made smaller: a table of captions of those clips goes on to hold.
    assert part["source_sha256"] == hashlib.sha256((tmp_path / "plain.mp4").read_bytes()).hexdigest()
    assert part["num_frames"] == 8 and part["num_missing"] == 0


def test_frames_that_are_missing_in_a_cut_are_counted(guard, tmp_path):
    (tmp_path / "v.mp4").write_bytes(make_damaged_video(num_frames=24, first_bad=5, num_bad=3))
    facts = guard.inspect(str(tmp_path / "v.mp4"), 0.25, 2.25, str(tmp_path / "cut.mp4"))
    assert facts["num_missing"] == 3
    (tmp_path / "v.mp4").write_bytes(make_damaged_video(num_frames=24, first_bad=5, num_bad=10))
    with pytest.raises(DecodeError, match="too many frames cannot be decoded: got 10 of 16"):
        guard.inspect(str(tmp_path / "v.mp4"), 0.25, 2.25, str(tmp_path / "cut.mp4"))


def test_settings_without_a_size_are_refused():
    assert not TranscodeConfig().is_on
    with pytest.raises(ValidationError, match="fps have no meaning without short_side"):
        TranscodeConfig(fps=4)


@pytest.mark.slow
@pytest.mark.skipif(not ROWS, reason="../shared/data/clips.csv is not there")
@pytest.mark.parametrize("kind", REAL)
def test_real_clips_look_as_they_did(kind, tmp_path):
    rows = [row["file"] for row in ROWS if kind in row["file"]]
    assert rows
    for name in rows[:2]:
        video = (SHARED / name).read_bytes()
        data = made_of(video, tmp_path, TranscodeConfig(short_side=128)).data or video
        small = VideoDecoder(data)
        original = VideoDecoder(video, width=small.width, height=small.height)
        assert small.duration_s == pytest.approx(original.duration_s - original.start_s, abs=0.01)
        assert min(small.width, small.height) <= 128
        middles = small.timestamps_s[::7] + 0.5 / max(8.0, small.fps)
        frames, wanted = small.frames_at(middles), original.frames_at(middles + original.start_s)
        differences = np.abs(frames.astype(int) - wanted).mean((1, 2, 3))
        assert np.median(differences) < 6 and differences.max() < 12, name
