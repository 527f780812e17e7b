"""What a search for near-duplicates is asked for."""

from typing import Literal

from pydantic import Field

from mama_ray.config import Config
from mama_ray.data.video.settings import DecodeConfig

Split = Literal["train", "meta", "val", "test"]


class DuplicatesJob(Config):
    """Which clips of the splits that are measured on look like clips that are learned from."""

    shards: str
    """Folder or URI of prepared shards."""

    output: str = "runs/duplicates.csv"
    """CSV file that names every pair, for a spreadsheet; a path or a URI."""

    learned: tuple[Split, ...] = ("train", "meta")
    """Splits that are learned from."""

    measured: tuple[Split, ...] = ("val", "test")
    """Splits that are measured on."""

    num_frames: int = Field(default=6, ge=2, le=64)
    """Frames compared of every clip, the centres of equal parts."""

    max_distance: int = Field(default=8, ge=0, le=31)
    """Bits of 64 by which two clips differ at most: 8 finds copies of another encoder, size or mark; unrelated clips
    differ by some 28."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""
