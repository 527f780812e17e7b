import copy
import logging

import numpy as np
import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.settings import DecodeConfig
from tests.data.video.video_factory import (
    frame_number,
    is_upright,
    make_audio_only,
    make_damaged_video,
    make_empty_video,
    make_video,
)

READERS = ("pyav", "decord")
ALL_KINDS = {
    "h264": {},
    "h264 with sound": {"with_audio": True},
    "h264 without B-frames": {"options": {"bf": "0"}},
    "many key frames": {"options": {"g": "2"}},
    "matroska": {"container": "matroska"},
    "avi, without times": {"container": "avi"},
    "mpegts, not starting at 0": {"container": "mpegts"},
    "vp9 webm": {"codec": "libvpx-vp9"},
    "mpeg4": {"codec": "mpeg4"},
    "gif": {"codec": "gif"},
    "upright by rotation 90": {"rotation": 90},
    "upright by rotation -90": {"rotation": -90},
    "upright by rotation 180": {"rotation": 180},
    "rotated matroska": {"container": "matroska", "rotation": 90},
}


def numbers(frames):
    return [frame_number(frame) for frame in frames]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_of_video_gives_its_frames_upright(kind, reader):
    video = make_video(num_frames=12, width=96, height=64, **ALL_KINDS[kind])
    config = DecodeConfig(reader=reader)
    decoder = VideoDecoder(video, config=config)
    assert (decoder.num_frames, decoder.width, decoder.height) == (12, 96, 64)
    assert decoder.duration_s == pytest.approx(1.5, abs=0.02)
    assert decoder.fps == pytest.approx(8, rel=0.02)
    frames = decoder.frames_by_index(range(12))
    assert frames.shape == (12, 64, 96, 3)
    assert frames.dtype == np.uint8
    assert numbers(frames) == list(range(12))
    assert all(is_upright(frame) for frame in frames)
    # Any order, with repetitions, scaled inside the decoder to another aspect.
    squashed = VideoDecoder(video, width=40, height=56, config=config).frames_by_index([9, 2, 2, 11, 0])
    assert squashed.shape == (5, 56, 40, 3)
    assert numbers(squashed) == [9, 2, 2, 11, 0]
    assert all(is_upright(frame) for frame in squashed)
    assert decoder.num_replaced == 0


@pytest.mark.parametrize("width", [16, 22, 24, 32, 48, 50, 64, 72, 90, 112, 144])
def test_both_readers_agree_at_every_width(width):
    """decord mistakes the padding of narrow rows for a fourth channel, e.g. at 48 pixels."""
    video = make_video(width=96, height=64)
    pyav, decord = (
        VideoDecoder(video, width=width, height=32, config=DecodeConfig(reader=reader)).frames_by_index(range(8))
        for reader in READERS
    )
    assert decord.shape == pyav.shape == (8, 32, width, 3)
    assert np.abs(pyav.astype(int) - decord).mean() < 4  # two versions of one scaler


@pytest.mark.parametrize("reader", READERS)
def test_variable_frame_rate_uses_the_containers_times(reader):
    times = [0, 0.1, 0.2, 1.0, 1.1, 1.2, 3.0, 3.1]
    decoder = VideoDecoder(make_video(timestamps_s=times), config=DecodeConfig(reader=reader))
    np.testing.assert_allclose(decoder.timestamps_s, times, atol=1e-3)
    assert numbers(decoder.frames_at([0.05, 0.9, 1.0, 2.9, 3.05, 99, -1])) == [0, 2, 3, 5, 6, 7, 0]


@pytest.mark.parametrize("reader", READERS)
def test_seeking_over_key_frames_equals_reading_through(reader):
    video = make_video(num_frames=64, options={"g": "7", "bf": "2"})
    config = DecodeConfig(reader=reader)
    everything = VideoDecoder(video, config=config).frames_by_index(range(64))
    decoder = VideoDecoder(video, config=config)
    for indices in ([63], [0, 20, 21, 50], [30, 3, 45]):
        np.testing.assert_array_equal(decoder.frames_by_index(indices), everything[indices])


def test_a_clip_shorter_than_asked_repeats_frames():
    decoder = VideoDecoder(make_video(num_frames=2, fps=2))
    assert numbers(decoder.frames_at([0.1, 0.3, 0.6, 0.9])) == [0, 0, 1, 1]
    single = VideoDecoder(make_video(num_frames=1))
    assert numbers(single.frames_at([0.0, 0.5, 3.0])) == [0, 0, 0]


def test_no_frames_asked_gives_an_empty_array():
    assert VideoDecoder(make_video()).frames_at([]).shape == (0, 48, 64, 3)


def test_one_side_or_the_short_side_keeps_the_aspect_ratio_of_the_upright_picture():
    video = make_video(width=96, height=64, rotation=90)
    for request, size in (({"width": 48}, (48, 32)), ({"height": 32}, (48, 32)), ({"short_side": 32}, (48, 32))):
        decoder = VideoDecoder(video, **request)
        assert (decoder.width, decoder.height) == size
        assert decoder.frames_by_index([0]).shape == (1, size[1], size[0], 3)
    assert VideoDecoder(video, short_side=500).width == 96


def test_path_and_bytes_give_the_same_frames(tmp_path):
    video = make_video()
    path = tmp_path / "clip.mp4"
    path.write_bytes(video)
    for reader in READERS:
        config = DecodeConfig(reader=reader)
        expected = VideoDecoder(video, config=config).frames_by_index(range(8))
        np.testing.assert_array_equal(VideoDecoder(str(path), config=config).frames_by_index(range(8)), expected)


UNREADABLE = {
    "empty file": (b"", "empty"),
    "HTML page": (b"<html><body>404 not found</body></html>" * 20, "not a readable video"),
    "garbage": (bytes(range(256)) * 40, "not a readable video"),
    "no sample in the stream": (make_empty_video, "no video stream|no frames"),
    "sound only": (make_audio_only, "no video stream"),
    "first bytes only": (lambda: make_video()[:700], "not a readable video|no video stream|no frames"),
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "not a readable",
    ),
    "concat script": (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a readable"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_not_a_video_is_one_readable_error(kind, reader):
    data, reason = UNREADABLE[kind]
    with pytest.raises(DecodeError, match=reason):
        VideoDecoder(data() if callable(data) else data, config=DecodeConfig(reader=reader)).frames_by_index([0])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DecodeError, match=r"no such file.*nowhere\.mp4"):
        VideoDecoder(tmp_path / "nowhere.mp4")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_bytes": 100}, "too large: got .* bytes, limit 100 bytes"),
        ({"max_pixels": 1000}, "frames are too large: got 64x48, limit 1000 pixels"),
        ({"max_duration_s": 0.5}, "too long: got 1.0 s, limit 0.5 s"),
        ({"timeout_s": 1e-9}, "takes too long"),
    ],
)
def test_limits_are_refused_with_what_was_got(limit, reason):
    with pytest.raises(DecodeError, match=reason):
        VideoDecoder(make_video(), config=DecodeConfig(**limit))


def test_frames_that_do_not_decode_are_replaced_by_their_neighbours_and_counted(caplog):
    decoder = VideoDecoder(make_damaged_video(num_frames=20, first_bad=14, num_bad=6))
    with caplog.at_level(logging.WARNING):
        frames = decoder.frames_by_index([0, 5, 10, 13, 19])
    assert numbers(frames) == [0, 5, 10, 13, 13]
    assert decoder.num_replaced == 1
    assert "1 of 5 frames cannot be decoded" in caplog.text


def test_a_ruined_video_is_refused_rather_than_filled_up():
    video = make_damaged_video(num_frames=20, first_bad=4, num_bad=16)
    with pytest.raises(DecodeError, match="too many frames cannot be decoded: got 8 of 12, limit 50%"):
        VideoDecoder(video).frames_by_index([0, 1, 2, 3, *range(8, 16)])
    decoder = VideoDecoder(video, config=DecodeConfig(max_replaced=0.9))
    assert decoder.frames_by_index(range(0, 20, 2)).shape[0] == 10


def test_a_file_cut_off_early_is_refused_and_one_cut_off_late_serves():
    whole = make_video(
        num_frames=24,
        width=128,
        height=96,
        options={"g": "1", "qp": "2"},
        container_options={"moov_size": "8000"},  # the header before the frames
    )
    start = whole.index(b"mdat")
    with pytest.raises(DecodeError, match=r"cut off: got \d+ of 24 frames"):
        VideoDecoder(whole[: start + (len(whole) - start) * 3 // 10])
    late = VideoDecoder(whole[: start + (len(whole) - start) * 9 // 10])
    assert 12 < late.num_frames <= 24
    assert late.frames_at(np.linspace(0, late.duration_s, 8)).shape == (8, 96, 128, 3)


def test_random_damage_gives_frames_or_a_decode_error():
    rng = np.random.default_rng(0)
    sources = [make_video(num_frames=12, with_audio=True), make_video(codec="libvpx-vp9"), make_video(codec="gif")]
    for source in sources:
        for _ in range(25):
            video = bytearray(source)
            for place in rng.integers(len(video), size=rng.integers(1, 30)):
                video[place] = rng.integers(256)
            try:
                frames = VideoDecoder(bytes(video), width=32, height=32).frames_at([0.1, 0.5, 0.9])
            except DecodeError:
                continue
            assert frames.shape == (3, 32, 32, 3)


def test_decode_errors_survive_the_way_between_processes():
    error = copy.copy(DecodeError("too long", got="3 s", limit="2 s"))  # by the protocol that pickling uses
    assert (str(error), error.limit) == ("too long: got 3 s, limit 2 s", "2 s")
