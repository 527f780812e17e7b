"""Clips to measure on: ten seconds of H.264 as the web has them, of several sizes, and shards made of them."""

import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa

from mama_ray.data.clip import Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.storage.places import Place

DURATION_S, FPS = 10, 30
# Bit rates that videos of these sizes have on the web, give or take a factor of two.
SIZES = {"320x240": (320, 240, 400_000), "640x360": (640, 360, 800_000), "1280x720": (1280, 720, 2_500_000)}
TRANSCODED = "1280x720 made smaller"  # what prepare --transcode.short_side 256 makes of them
_CLIPS_PER_SHARD = 64


def encode_clip(size: str, seed: int) -> bytes:
    """Encode ten seconds: a camera that wanders over a textured plane, objects that cross it, a little grain."""
    width, height, bit_rate = SIZES[size]
    rng = np.random.default_rng(seed)
    plane = _texture(rng, height * 2, width * 2)
    phase, speed = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.2, 0.5, 2)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", bit_rate
        for number in range(DURATION_S * FPS):
            time_s = number / FPS
            top, left = ((0.5 + 0.4 * np.sin(phase + speed * time_s)) * (height, width)).astype(int)
            frame = plane[top : top + height, left : left + width].copy()
            for thing in range(4):
                x = int((0.15 * thing + (0.1 + 0.05 * thing) * time_s) % 1 * width * 0.9)
                y = int(height * (0.1 + 0.2 * thing))
                frame[y : y + height // 6, x : x + width // 8] = (60 * thing, 200 - 40 * thing, 120)
            frame = np.clip(frame + rng.integers(-4, 5, frame.shape[:2])[..., None], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def write_shards(directory: Path, videos: list[bytes], num_clips: int) -> Path:
    """Write shards of `num_clips` clips with ids of their own, made of a few videos again and again."""
    directory.mkdir(parents=True)
    width, height = _size_of(videos[0])
    facts = {"duration_s": float(DURATION_S), "width": width, "height": height, "fps": float(FPS), "codec": "h264"}
    tables, sizes = [], {}
    for start in range(0, num_clips, _CLIPS_PER_SHARD):
        name = f"clips-{start // _CLIPS_PER_SHARD:06d}.tar"
        samples = []
        for number in range(start, min(start + _CLIPS_PER_SHARD, num_clips)):
            identity = f"clip-{number:08d}"
            clip = Clip(
                clip_id=identity, video_id=identity, start_s=0.0, end_s=float(DURATION_S), captions=(), split="train"
            )
            samples.append((clip, videos[number % len(videos)], "mp4"))
        places = write_shard(directory / name, samples)
        rows = [index_row(clip, place, name, facts) for (clip, *_), place in zip(samples, places, strict=True)]
        tables.append(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
        sizes[name] = {"num_bytes": (directory / name).stat().st_size, "num_clips": len(rows)}
    write_index(Place.of(directory), tables, sizes)
    return directory


def _size_of(video: bytes) -> tuple[int, int]:
    """Return width and height."""
    with av.open(io.BytesIO(video)) as container:
        return container.streams.video[0].width, container.streams.video[0].height


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return smooth noise of several scales, int16 (height, width, 3)."""
    plane = np.full((height, width, 3), 128.0)
    for scale, amount in ((64, 70), (16, 35), (4, 12)):
        coarse = rng.normal(0, amount, (height // scale + 2, width // scale + 2, 3))
        plane += coarse.repeat(scale, axis=0).repeat(scale, axis=1)[:height, :width]
    return np.clip(plane, 0, 255).astype(np.int16)
