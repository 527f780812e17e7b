"""A video of 20 s or less in chunks of 2 s, and the same video uncut: both lossless, so that equal frames are equal."""

from fractions import Fraction
from pathlib import Path

from tests.data.video.video_factory import make_video

CHUNK_S = 2
_LOSSLESS = {"qp": "0", "g": "4"}


def make_uncut(num_frames: int = 40, fps: float = 5, **options) -> bytes:
    """Frames of 64 x 48 at 5 frames/s: four chunks of ten, of which no two begin alike."""
    return make_video(num_frames=num_frames, fps=fps, options=_LOSSLESS, **options)


def make_chunks(folder: Path, num_frames: int = 40, fps: float = 5, **options) -> Path:
    """Write the frames of `make_uncut` as 0.mp4, 2.mp4, ..., with sound, which begins with the chunk; so the time of a
    first frame that comes a little later is kept."""
    folder.mkdir(parents=True)
    first, rate = 0, Fraction(fps).limit_denominator(1001)
    times = options.pop("timestamps_s", None) or [number / rate for number in range(num_frames)]
    while first < num_frames:
        start = int(times[first]) // CHUNK_S * CHUNK_S
        here = [time for time in times[first:] if time < start + CHUNK_S]
        chunk = make_video(
            first=first,
            num_frames=len(here),
            fps=fps,
            timestamps_s=[float(time - start) for time in here],
            with_audio=True,
            options=_LOSSLESS,
            **options,
        )
        (folder / f"{start}.mp4").write_bytes(chunk)
        first += len(here)
    return folder
