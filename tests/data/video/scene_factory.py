"""Videos of several scenes, each of one colour and moving a little, encoded on the spot."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

COLOURS = ((200, 40, 40), (40, 180, 60), (50, 60, 210), (220, 200, 40), (230, 230, 230))
_WIDTH, _HEIGHT = 96, 64


def make_scenes(lengths_s: Sequence[float], *, fps: float = 10, pan: int = 0, gap_s: float = 0.0) -> bytes:
    """Encode scenes of these lengths; scene k has colour k. `pan` pixels a frame move the stripes in front of it; with
    `gap_s`, every second frame of the first scene is left out and so much time more passes after it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12_800)
        stream.codec_context.thread_count = 1
        number, later_s = 0, 0.0
        for scene, length_s in enumerate(lengths_s):
            for _ in range(round(length_s * fps)):
                is_left_out = gap_s and scene == 0 and number % 2
                later_s += gap_s if is_left_out else 0.0
                if not is_left_out:
                    frame = av.VideoFrame.from_ndarray(_picture(scene, number * pan), format="rgb24")
                    frame = frame.reformat(format="yuv420p")
                    frame.time_base = Fraction(1, 12_800)
                    frame.pts = round((number / fps + later_s) * 12_800)
                    output.mux(stream.encode(frame))
                number += 1
        output.mux(stream.encode())
    return buffer.getvalue()


def scene_of(frame: np.ndarray) -> int:
    """Return the number of the scene that a frame (height, width, 3) is of."""
    colour = np.median(frame[: frame.shape[0] // 4].reshape(-1, 3), axis=0)
    return int(np.abs(np.array(COLOURS) - colour).sum(axis=1).argmin())


def _picture(scene: int, shift: int) -> np.ndarray:
    picture = np.empty((_HEIGHT, _WIDTH, 3), np.uint8)
    picture[:] = COLOURS[scene % len(COLOURS)]
    is_striped = (np.arange(_WIDTH) + shift) % 32 < 16
    picture[_HEIGHT // 4 :, is_striped] //= 2
    return picture
