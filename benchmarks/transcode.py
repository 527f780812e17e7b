"""What clips that are made smaller cost a reader, beside their originals: CPU time, decoded frames, bytes, likeness.

    .venv/bin/python benchmarks/transcode.py [--videos FOLDER] [--clips 3] [--frames 4 16] [--short_side 256] [--fps 8]

Without a folder of videos the clips are ten seconds of 1280x720 at 30 frames/s and 2.5 Mbit/s. A reader fetches so
many frames of a clip at random moments, 224 pixels wide and high, as training does. Prints JSON: medians over the
clips, and how many times cheaper (the least, too). CPU time is that of this process; SSIM is of the luma, in windows of
7 x 7, between a frame made smaller and the original one scaled to its size, the mean and the worst frame.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mama_ray.data.clip import VIDEO_EXTENSIONS
from mama_ray.data.video import pyav_reader
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.data.video.settings import DecodeConfig, TranscodeConfig
from mama_ray.data.video.transcode import transcode
from mama_ray.experiments.scaling.videos import encode_clip

_SIZE, _WINDOW, _NUM_COMPARED = 224, 7, 8
_LUMA = np.array([0.299, 0.587, 0.114])
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of Wang et al., 2004


def compute_ssim(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean structural similarity of two pictures, uint8 (height, width, 3)."""

    def means(values: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(values, (_WINDOW, _WINDOW)).mean((-2, -1))

    x, y = ours @ _LUMA, theirs @ _LUMA
    mean_x, mean_y = means(x), means(y)
    var_x, var_y = means(x * x) - mean_x**2, means(y * y) - mean_y**2
    covariance = means(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float((likeness / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))).mean())


def compare(video: bytes, small: bytes) -> list[float]:
    """Return the SSIM of some frames, each in the middle of the time for which it is shown."""
    reader = VideoDecoder(small)
    original = VideoDecoder(video, width=reader.width, height=reader.height)
    ends = np.append(reader.timestamps_s[1:], reader.duration_s)
    middles = ((reader.timestamps_s + ends) / 2)[:: max(1, reader.num_frames // _NUM_COMPARED)]
    pairs = zip(reader.frames_at(middles), original.frames_at(middles + original.start_s), strict=True)
    return [compute_ssim(ours, theirs) for ours, theirs in pairs]


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the frames that leave the decoder."""
    count, decode_frames = [0], pyav_reader.decode_frames

    def noted(*given):
        for frame in decode_frames(*given):
            count[0] += 1
            yield frame

    pyav_reader.decode_frames = noted
    try:
        yield count
    finally:
        pyav_reader.decode_frames = decode_frames


def cost_of(work: Callable[[], object], rounds: int) -> float:
    """Return CPU seconds of one round."""
    start_s = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - start_s) / rounds


def read_cost(video: bytes, num_frames: int, rounds: int) -> tuple[float, float]:
    """Return CPU milliseconds and decoded frames of one reading as training reads."""
    rng = np.random.default_rng(0)

    def read() -> None:
        decoder = VideoDecoder(video, width=_SIZE, height=_SIZE)
        decoder.frames_at(sample_timestamps(decoder.duration_s, num_frames, start_s=decoder.start_s, rng=rng))

    with counted() as count:
        cost_s = cost_of(read, rounds)
    return 1000 * cost_s, count[0] / rounds


def measure(path: Path, config: TranscodeConfig, args: argparse.Namespace) -> dict[str, float] | None:
    """Return the figures of a clip; None for one that cannot be used."""
    video, made = path.read_bytes(), []
    try:
        encode_s = cost_of(lambda: made.append(transcode(str(path), config, DecodeConfig())), 1)
    except DecodeError as error:
        sys.stderr.write(f"{path}: {error}\n")
        return None
    small = made[0].data or video
    likeness = compare(video, small)
    found = {"original_bytes": len(video), "small_bytes": len(small), "making it, CPU s": encode_s}
    found |= {"bytes, share": len(small) / len(video), "SSIM": float(np.mean(likeness)), "worst SSIM": min(likeness)}
    for count in args.frames:
        before_ms, before = read_cost(video, count, args.rounds)
        after_ms, after = read_cost(small, count, args.rounds)
        found |= {f"{count} frames of the original, CPU ms": before_ms, f"{count} frames, CPU ms": after_ms}
        found |= {f"{count} frames, decoded of the original": before, f"{count} frames, decoded": after}
        found[f"{count} frames, times cheaper"] = before_ms / after_ms
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", help="a folder of videos, each a clip")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 16])
    for name, kind in (("short_side", int), ("fps", float), ("key_every", int), ("crf", int)):
        default = 256 if name == "short_side" else TranscodeConfig.model_fields[name].default
        parser.add_argument(f"--{name}", type=kind, default=default)
    args = parser.parse_args()
    config = TranscodeConfig(short_side=args.short_side, fps=args.fps, key_every=args.key_every, crf=args.crf)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.videos or scratch)
        if args.videos is None:
            for seed in range(args.clips):
                (folder / f"{seed}.mp4").write_bytes(encode_clip("1280x720", seed))
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix[1:].lower() in VIDEO_EXTENSIONS]
        rows = [row for path in paths[: args.clips] if (row := measure(path, config, args)) is not None]
    names = list(rows[0]) if rows else []
    medians = {name: round(float(np.median([row[name] for row in rows])), 4) for name in names}
    least = {f"{name}, least": round(min(row[name] for row in rows), 4) for name in names if "cheaper" in name}
    worst = {"worst SSIM of all": round(min(row["worst SSIM"] for row in rows), 4)} if rows else {}
    print(json.dumps({"options": vars(args), "num_clips": len(rows), "medians": medians} | least | worst, indent=1))


if __name__ == "__main__":
    main()
