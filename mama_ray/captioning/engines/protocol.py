"""What a caption engine owes: texts of what it is shown, whichever library runs the model.

Whoever captions knows engines by this page alone; `build.py` says which there are. An engine is built in the process
that uses it and takes requests from any number of threads, so that those of several batches run together. Answers are
matched to requests by their futures, never by order. An engine that fails is dead: all its callers are told, and its
process should end.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.captioning.pictures.settings import FRAMES, GRID, KINDS, VIDEO

__all__ = [
    "FRAMES", "GRID", "KINDS", "VIDEO", "CaptionEngine", "EngineDied", "GeneratedText", "RequestRefused", "Shown",
    "caption_all",
]  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What an engine is shown of one clip.

    Attributes:
        kind: one of KINDS, what a clip is shown as (pictures/settings.py).
        content: its pixels, RGB: (side, side, 3) of a grid, (frames, height, width, 3) of frames and of a video.
        sha256: of the content when it was made, by `hash_pixels`; it is what a caption's row names as its origin.
        times_s: (frames,), ascending: where in the clip the frames of a video are, in seconds; None for other kinds.
    """

    kind: str
    content: UInt8[np.ndarray, "*sizes 3"]
    sha256: str
    times_s: tuple[float, ...] | None = None

    def is_intact(self) -> bool:
        """Tell whether the content is still what was hashed when it was made."""
        return hash_pixels(self.content) == self.sha256


@dataclass(frozen=True)
class GeneratedText:
    """One caption as the model wrote it; mean_logprob is over its tokens, in nats."""

    text: str
    num_tokens: int
    finish_reason: str
    mean_logprob: float


class EngineDied(RuntimeError):
    """The engine failed and will answer no more; the process should end and be started anew."""


class RequestRefused(ValueError):
    """The engine took no such request, as one with more tokens than the model can hold; others go on."""


class CaptionEngine(Protocol):
    """A model that is ready to write captions.

    Attributes:
        busy_s: seconds with a request, from the end of the start on.
        idle_s: seconds without one.
        last_step_s: when it last did something, by `time.monotonic()`: an engine that hangs is told by it.
        num_tokens: written so far.
    """

    busy_s: float
    idle_s: float
    last_step_s: float
    num_tokens: int

    def submit(self, shown: Shown, seed: int) -> Future[list[GeneratedText]]:
        """Queue a request; the future gives one text per caption of a clip, sample k being drawn with seed + k.

        The future raises RequestRefused for what this model cannot be shown, and EngineDied.
        """
        ...

    def close(self) -> None:
        """End the engine once all requests are answered; those that come later die."""
        ...


def caption_all(engine: CaptionEngine, shown: Sequence[Shown], seeds: Sequence[int]) -> list[list[GeneratedText]]:
    """Submit several requests together and wait for all of them."""
    futures = [engine.submit(one, seed) for one, seed in zip(shown, seeds, strict=True)]
    return [future.result() for future in futures]
