"""Measure what a short clip of a long video costs: many narrations of one hour, cut one after the other.

    python benchmarks/long_video.py [--minutes 60] [--clips 25] [--clip_s 5] [--alone 3]

The video is 10 s (640 x 360, 25 frames/s, one key frame, with sound) again and again. Prints one JSON
object: CPU seconds per clip where the file is opened and indexed once for all of them, as in prepare, and where it is
for each; how much of that is the index; and how often the file was read for an index.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from mama_ray.data.video.cut import SourceVideo
from mama_ray.data.video.inspection import Inspector
from mama_ray.data.video.settings import DecodeConfig

FPS, WIDTH, HEIGHT = 25, 640, 360
PART_S = 10
SOUND_RATE = 48_000


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--clips", type=int, default=25)
    parser.add_argument("--clip_s", type=float, default=5.0)
    parser.add_argument("--alone", type=int, default=3, help="clips for which the file is opened and indexed anew")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/long.mp4"
        write_long_video(path, arguments.minutes)
        starts = np.linspace(1, 60 * arguments.minutes - arguments.clip_s, arguments.clips).tolist()
        started_s = time.process_time()
        with SourceVideo(path) as source:
            index_s, num_frames = time.process_time() - started_s, source.info.num_frames
        together_s = seconds_per_clip(path, starts, arguments.clip_s, scratch, is_kept=True)
        some = starts[:: max(1, len(starts) // max(1, arguments.alone))]
        alone_s = seconds_per_clip(path, some, arguments.clip_s, scratch, is_kept=False)
        report = {
            "minutes": arguments.minutes,
            "megabytes": round(Path(path).stat().st_size / 1e6),
            "num_frames": num_frames,
            "num_clips": arguments.clips,
            "clip_s": arguments.clip_s,
            "cpu_s_per_clip": round(together_s, 3),
            "cpu_s_per_clip_opened_for_each": round(alone_s, 3),
            "cpu_s_of_the_index": round(index_s, 3),
            "ratio": round(alone_s / together_s, 2),
        }
    print(json.dumps(report, indent=1))


def seconds_per_clip(path: str, starts: list[float], clip_s: float, scratch: str, *, is_kept: bool) -> float:
    """Return the CPU seconds that prepare's inspection of a clip takes: cut, facts and trial."""
    started_s = time.process_time()
    inspector = Inspector()
    for start_s in starts:
        if not is_kept:
            inspector.close()
        inspector.inspect(
            path,
            start_s=start_s,
            end_s=start_s + clip_s,
            num_trial_frames=4,
            cut_to=f"{scratch}/cut.mp4",
            config=DecodeConfig(),
        )
    inspector.close()
    return (time.process_time() - started_s) / len(starts)


def write_long_video(path: str, minutes: int) -> None:
    """Write one part of moving squares and sound, and repeat its packets."""
    with av.open(path, "w", format="mp4") as output:
        options = {"preset": "veryfast", "g": str(PART_S * FPS)}
        video = output.add_stream("libx264", rate=FPS, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", options=options)
        audio = output.add_stream("aac", rate=SOUND_RATE, layout="mono")
        packets = [(packet, video) for frame in (*pictures(), None) for packet in video.encode(frame)]
        packets += [(packet, audio) for frame in (*sound(), None) for packet in audio.encode(frame)]
        packets.sort(key=lambda item: item[0].dts * item[0].time_base)
        times = [(packet.pts, packet.dts) for packet, _ in packets]
        for part in range(60 * minutes // PART_S):
            for (packet, stream), (pts, dts) in zip(packets, times, strict=True):
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                shift = round(PART_S * part / packet.time_base)
                copy.pts, copy.dts, copy.duration = pts + shift, dts + shift, packet.duration
                output.mux(copy)


def pictures() -> list[av.VideoFrame]:
    """The frames of one part."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8 + PART_S * FPS // 4, 3), dtype=np.uint8)
    noise = noise.repeat(8, axis=0).repeat(8, axis=1)
    frames = []
    for number in range(PART_S * FPS):
        pixels = np.ascontiguousarray(noise[:, 2 * number : 2 * number + WIDTH])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        frames.append(frame)
    return frames


def sound() -> list[av.AudioFrame]:
    """Hiss, but for what does not fill a frame of sound."""
    rng = np.random.default_rng(0)
    frames = []
    for start in range(0, PART_S * SOUND_RATE - 1024, 1024):
        samples = rng.normal(scale=0.1, size=(1, 1024)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SOUND_RATE, start
        frames.append(frame)
    return frames


if __name__ == "__main__":
    main()
