"""Which moments of a clip are looked at, and the random numbers of one row.

Sampling is sparse: the clip is cut into equal segments and one moment is taken from each, its centre in evaluation, a
random point in training (TSN; LaViLa, CVPR 2023, section 3); or frames lie evenly between its ends (CLIP-ViP).
"""

from collections.abc import Sequence

import numpy as np


def sample_timestamps(
    duration_s: float,
    num_frames: int,
    *,
    start_s: float = 0.0,
    rng: np.random.Generator | None = None,
    offsets: Sequence[float] | None = None,
) -> np.ndarray:
    """Return one time per equal segment of [start_s, duration_s), float64 (num_frames,), ascending.

    Without `rng` the centres, with it a uniformly random point of each segment; `offsets`, in [0, 1), are points that
    were drawn before. `start_s` is when a video's first frame is shown.
    """
    if num_frames < 1 or not duration_s >= start_s >= 0:
        raise ValueError(
            f"got num_frames {num_frames} and [{start_s}, {duration_s}) s, wanted at least one and an interval from 0"
        )
    if offsets is None:
        offsets = draw_offsets(num_frames, rng)
    return (np.arange(num_frames) + np.asarray(offsets)) * ((duration_s - start_s) / num_frames) + start_s


def draw_offsets(num_frames: int, rng: np.random.Generator | None) -> list[float]:
    """Return how far into its segment each moment is: a half without `rng`."""
    return [0.5] * num_frames if rng is None else rng.random(num_frames).tolist()


def sample_frame_indices(
    start: int,
    stop: int,
    num_frames: int,
    *,
    rng: np.random.Generator | None = None,
    offsets: Sequence[float] | None = None,
) -> np.ndarray:
    """Return one frame number per equal segment of [start, stop), int64 (num_frames,), as LaViLa's release does.

    Segment i spans round(w i) + start ... min(round(w (i + 1)) + start, stop) with w = (stop - start - 1) /
    num_frames and rounding half to even. Without `rng` the floor of its midpoint, with it a random number, both ends
    included; `offsets`, in [0, 1), are points that were drawn before.
    """
    if num_frames < 1 or stop <= start:
        raise ValueError(f"got [{start}, {stop}) and num_frames {num_frames}, wanted at least one frame of each")
    edges = np.round((stop - start - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64) + start
    low, high = edges[:-1], np.minimum(edges[1:], stop)
    if offsets is not None:
        # Every number of a segment is as likely, and a half is the floor of its midpoint.
        steps = np.ceil(np.asarray(offsets) * (high - low + 1)).astype(np.int64) - 1
        return low + np.maximum(steps, 0)
    if rng is None:
        return (low + high) // 2
    return rng.integers(low, high, endpoint=True)


def sample_between_ends(
    start: int, stop: int, num_frames: int, *, offsets: Sequence[float] | None = None
) -> np.ndarray:
    """Return frame numbers of [start, stop) in equal steps, int64 (num_frames,), from the first to the last one.

    As CLIP-ViP's release does, `offsets` that were drawn in [0, 1) put the ends up to a step of it further inside, each
    number as likely; offsets of a half leave them.
    """
    if num_frames < 1 or stop <= start:
        raise ValueError(f"got [{start}, {stop}) and num_frames {num_frames}, wanted at least one frame of each")
    first, last = start, stop - 1
    if offsets is not None:
        step = min((stop - start) // max(1, num_frames - 1), (last - first) // 2)  # the ends do not pass each other
        first += _up_to(step, offsets[0])
        last -= _up_to(step, offsets[-1])
    return np.linspace(first, last, num_frames).astype(np.int64)


def _up_to(most: int, offset: float) -> int:
    """Return a number from 0 to `most`, each as likely, 0 for an offset of a half."""
    return min(most, int(abs(2 * offset - 1) * (most + 1)))


def row_rng(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Return the generator of one row of one epoch: the same for the same three numbers on every machine and worker."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, row))))
