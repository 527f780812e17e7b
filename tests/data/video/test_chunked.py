"""A folder of chunks is one video: its clips are those of the uncut file, and what is missing is told."""

from pathlib import Path

import numpy as np
import pytest

from mama_ray.data.video.chunked import ChunkedVideo, chunks_in, chunks_to_fetch, order_chunks
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.inspection import Inspector
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.sampled import sampled_frames
from mama_ray.data.video.settings import DecodeConfig, WindowConfig
from tests.data.video.chunk_factory import make_chunks, make_uncut
from tests.data.video.video_factory import frame_number, make_empty_video, make_video


@pytest.fixture(scope="module")
def uncut() -> bytes:
    return make_uncut()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_chunks(tmp_path_factory.mktemp("chunks") / "uid.mp4")


@pytest.fixture(scope="module")
def ntsc(tmp_path_factory) -> tuple[Path, bytes]:
    kind = {"num_frames": 180, "fps": 30000 / 1001}
    return make_chunks(tmp_path_factory.mktemp("ntsc") / "uid.mp4", **kind), make_uncut(**kind)


@pytest.fixture
def folder(tmp_path):
    return make_chunks(tmp_path / "uid.mp4")


def cut(folder, start_s, end_s, **window) -> bytes:
    with ChunkedVideo(folder, window=WindowConfig(**window)) as video:
        return video.cut(start_s, end_s)


def numbers(video: bytes) -> list[int]:
    return numbers_of(VideoDecoder(video))


def numbers_of(decoder: VideoDecoder) -> list[int]:
    return [frame_number(frame) for frame in decoder.frames_by_index(range(decoder.num_frames))]


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(0.4, 1.6), (1.4, 2.6), (1.2, 6.4), (1.9, 4.1), (0, 8), (2, 4), (3.99, 4.01), (6.2, 99)],
)
def test_a_clip_over_any_number_of_chunks_is_that_of_the_uncut_video(whole, uncut, start_s, end_s):
    from_chunks, from_file = cut(whole, start_s, end_s), cut_clip(uncut, start_s, end_s)
    frames, wanted = VideoDecoder(from_chunks), VideoDecoder(from_file)
    assert frames.num_frames == wanted.num_frames
    every = range(frames.num_frames)
    assert np.array_equal(frames.frames_by_index(every), wanted.frames_by_index(every))
    np.testing.assert_allclose(frames.timestamps_s, wanted.timestamps_s, atol=1e-4)
    assert probe_video(from_chunks) == probe_video(from_file)
    assert from_chunks == from_file  # down to the bytes


@pytest.mark.parametrize(
    "kind",
    [
        {"width": 48, "height": 48},
        {"num_frames": 250, "fps": 50},
        {"num_frames": 30, "timestamps_s": [number * 0.1 + (number % 3) * 0.03 for number in range(30)]},
    ],
    ids=["square", "50", "variable"],
)
def test_shapes_and_rates_of_all_kinds_come_out_of_chunks_as_of_the_file(tmp_path, kind):
    frames = [
        VideoDecoder(clip)
        for clip in (
            cut(make_chunks(tmp_path / "uid.mp4", **kind), 1.51, 2.49),
            cut_clip(make_uncut(**kind), 1.51, 2.49),
        )
    ]
    shown = [[frame_number(frame) for frame in one.frames_by_index(range(one.num_frames))] for one in frames]
    assert len(shown[0]) >= 5
    assert shown[0] == shown[1]
    np.testing.assert_allclose(frames[0].timestamps_s, frames[1].timestamps_s, atol=2e-4)


@pytest.mark.parametrize("start_s", [1.99, 2.0, 2.001, 2.01, 4.001])
def test_a_clip_that_starts_before_the_first_picture_of_its_chunk_starts_with_the_last_of_the_one_before(ntsc, start_s):
    folder, uncut = ntsc  # frame 60 is shown from 2.002 s on, frame 120 from 4.004 s on
    clip, wanted = (
        VideoDecoder(cut(folder, start_s, start_s + 0.2)),
        VideoDecoder(cut_clip(uncut, start_s, start_s + 0.2)),
    )
    assert numbers_of(clip) == numbers_of(wanted)
    np.testing.assert_allclose(clip.timestamps_s, wanted.timestamps_s, atol=2e-3)  # mp4 delays pictures by whole ms
    (folder / "2.mp4").rename(folder / "2.gone")  # without it the clip begins as soon as there is a picture
    shown = numbers_of(VideoDecoder(cut(folder, 4.0, 4.2)))
    (folder / "2.gone").rename(folder / "2.mp4")
    assert shown == [number % 16 for number in range(120, 126)]


def test_an_odd_side_loses_its_last_line(tmp_path):
    (tmp_path / "uid.mp4").mkdir()
    for start in (0, 2):
        (tmp_path / f"uid.mp4/{start}.gif").write_bytes(make_video(codec="gif", width=65, height=47, num_frames=16))
    info = probe_video(cut(tmp_path / "uid.mp4", 1.5, 2.5))
    assert (info.width, info.height, info.num_frames) == (64, 46, 8)


def test_chunks_of_another_size_come_at_that_of_the_first(folder):
    (folder / "2.mp4").write_bytes(make_video(first=10, num_frames=10, fps=5, width=96, height=80))
    info = probe_video(cut(folder, 1.6, 2.4))
    assert (info.width, info.height, info.num_frames) == (64, 48, 4)


def test_a_missing_chunk_refuses_the_clips_that_need_it_alone(folder, uncut):
    (folder / "2.mp4").unlink()
    for start_s, end_s in ((1.8, 2.2), (2.5, 3.5), (3.9, 4.1), (0.0, 8.0)):
        with pytest.raises(DecodeError, match=r"missing or empty: got nothing from 2\.0 s to 4\.0 s"):
            cut(folder, start_s, end_s)
    assert cut(folder, 1.2, 2.0) == cut_clip(uncut, 1.2, 2.0)
    assert cut(folder, 4.0, 7.0) == cut_clip(uncut, 4.0, 7.0)
    (folder / "0.mp4").unlink()
    with pytest.raises(DecodeError, match=r"missing or empty: got nothing from 1\.0 s to 4\.0 s"):
        cut(folder, 1.0, 1.5)


@pytest.mark.parametrize("content", [b"", make_empty_video()], ids=["no byte", "no frame"])
def test_an_empty_last_chunk_is_the_end_of_the_video_and_another_one_is_a_hole(folder, uncut, content):
    (folder / "8.mp4").write_bytes(content)
    assert cut(folder, 7.0, 8.5) == cut_clip(uncut, 7.0, 8.5)
    assert ChunkedVideo(folder).end_of(7.0, 8.5) == pytest.approx(8.0)
    with pytest.raises(DecodeError, match=r"starts after the end of the video: got 8\.2, limit 8\.000 s"):
        cut(folder, 8.2, 9.0)
    (folder / "4.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=r"nothing from 4\.0 s to 6\.0 s"):
        cut(folder, 3.0, 5.0)


def test_without_the_last_chunk_the_video_ends_before_it(folder):
    (folder / "6.mp4").unlink()
    assert ChunkedVideo(folder).end_of(5.0, 7.0) == pytest.approx(6.0)
    with pytest.raises(DecodeError, match="starts after the end of the video"):
        cut(folder, 6.5, 7.0)


def test_a_damaged_chunk_is_named_and_the_others_serve(folder):
    (folder / "4.mp4").write_bytes(b"not a video")
    with pytest.raises(DecodeError, match=r"a chunk of the video cannot be read: got 4\.mp4 \(not a readable video"):
        cut(folder, 3.0, 5.0)
    assert numbers(cut(folder, 6.0, 6.8)) == [14, 15, 0, 1]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["readme.txt", "a.mp4", "-1.mp4", "0.mp4.tmp"], "no chunks that are named by their start"),
        (["0.mp4", "00.mp4"], "the same start: got 0.mp4 and 00.mp4"),
        (["300.mp4", "300.mkv"], "the same start"),
    ],
)
def test_names_that_are_no_starts_are_refused(names, reason):
    with pytest.raises(DecodeError, match=reason):
        order_chunks(names)


def test_chunks_that_are_named_by_their_number_are_told(tmp_path):
    (tmp_path / "uid.mp4").mkdir()
    for number in range(3):
        (tmp_path / f"uid.mp4/{number}.mp4").write_bytes(make_video(num_frames=15, fps=5))
    with pytest.raises(DecodeError, match=r"chunks of the video overlap.*got 0\.mp4 of 3\.0 s, and 1\.mp4"):
        cut(tmp_path / "uid.mp4", 0.2, 2.2)


def test_chunks_are_ordered_by_their_seconds_and_a_clip_needs_those_it_touches():
    chunks = order_chunks(["1200.mp4", "300.mp4", "0.mp4", "900.MP4", "600.mp4", ".DS_Store"])
    assert [chunk.start_s for chunk in chunks] == [0, 300, 600, 900, 1200]
    assert chunks_in(chunks, 10, 20) == range(0, 1)
    assert chunks_in(chunks, 299.9, 900) == range(0, 3)
    assert chunks_in(chunks, 300, 900.1) == range(1, 4)
    assert chunks_in(chunks, 5000, 5001) == range(4, 5)
    assert chunks_in(chunks, 700, None) == range(2, 5)

    def fetched(start_s, end_s, **window) -> list[float]:
        return [chunk.start_s for chunk in chunks_to_fetch(chunks, start_s, end_s, WindowConfig(**window))]

    assert (fetched(310, 320), fetched(300, 320), fetched(0, 1)) == ([300], [0, 300], [0])
    assert (fetched(590, 599, fps=30), fetched(1300, 1301, fps=30)) == ([300, 600], [1200])


@pytest.mark.parametrize(("start_s", "end_s"), [(-0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_times_that_are_no_interval_are_refused(folder, start_s, end_s):
    with pytest.raises(DecodeError, match="the clip's end must come after its start, and both from 0 on"):
        cut(folder, start_s, end_s)


def test_frames_are_counted_at_the_asked_rate_whatever_the_video_has(folder):
    # 10 frames/s are assumed and 5 are there: second 0.4 begins with frame 4, and 0.5 s are 5 frames.
    assert numbers(cut(folder, 0.4, 0.9, fps=10, min_frames=1)) == [4, 5, 6, 7, 8]
    # From the chunk in which the clip starts: 2 + 0.25 s is frame 10 + round(2.5) = 12, half to even.
    assert numbers(cut(folder, 2.25, 2.75, fps=10, min_frames=1)) == [12, 13, 14, 15, 0]
    assert numbers(cut(folder, 2.25, 2.35, fps=10)) == [12, 13, 14, 15]  # as many as a model takes
    with pytest.raises(
        DecodeError, match=r"after the last frame that is counted: got frame 45 at 30 frames/s .*limit 40"
    ):
        cut(folder, 1.5, 2.5, fps=30)
    # Frames behind the end of a chunk are those of the next ones.
    assert numbers(cut(folder, 1.0, 3.0, fps=12, min_frames=1)) == [number % 16 for number in range(12, 36)]


def test_a_model_gets_the_frames_that_the_release_would_read(whole):
    clip = cut(whole, 1.4, 5.0, fps=5)  # frames 7 ... 24, over three chunks
    frames = sampled_frames(clip, num_frames=4, size={"short_side": 48}, decode=DecodeConfig(sampling="numbers"))
    # Segments of 4.25 frames from 7 on: 0-4, 4-8, 8-13 (12.75 is 13) and 13-17, and the floor of each middle.
    assert [frame_number(frame) for frame in frames] == [number % 16 for number in (9, 13, 17, 22)]


def test_a_file_is_counted_as_a_video_of_one_chunk(tmp_path, uncut):
    (tmp_path / "v.mp4").write_bytes(uncut)
    assert numbers(cut(tmp_path / "v.mp4", 0.4, 0.9, fps=10, min_frames=1)) == [4, 5, 6, 7, 8]
    assert cut(tmp_path / "v.mp4", 0.4, 0.9) == cut_clip(uncut, 0.4, 0.9)


def test_the_frames_of_a_long_video_can_be_walked_as_those_of_one(whole):
    with ChunkedVideo(whole) as video:
        assert (video.info.duration_s, video.info.num_frames) == (pytest.approx(8.0), 40)
        assert (video.info.width, video.info.height) == (64, 48)


def test_an_inspector_tells_what_was_clamped_and_sees_a_chunk_that_came(folder, tmp_path):
    inspector = Inspector()

    def inspect(start_s, end_s):
        return inspector.inspect(
            str(folder),
            start_s=start_s,
            end_s=end_s,
            num_trial_frames=2,
            cut_to=str(tmp_path / "cut.mp4"),
            config=DecodeConfig(),
        )

    assert not inspect(1.5, 4.5)["is_clamped"]
    (folder / "6.mp4").rename(tmp_path / "last.mp4")
    facts = inspect(5.0, 7.0)
    assert (facts["is_clamped"], facts["is_cut"], facts["end_s"]) == (True, True, pytest.approx(6.0))
    (tmp_path / "last.mp4").rename(folder / "6.mp4")
    assert inspect(5.0, 7.0)["end_s"] == 7.0 and inspect(0.0, None)["end_s"] == pytest.approx(8.0)
    inspector.close()
