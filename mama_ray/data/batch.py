"""A batch of decoded clips as tensors: what readers yield and what a training step takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

PADDING_ROW = -1  # the row number of what is no clip


@dataclass(frozen=True)
class ClipBatch:
    """Decoded clips with one caption each; axis 0 is the clip.

    `rows` are the clips' row numbers in their index; a clip that could not be read has `valid` False and black frames,
    and so has padding, whose row is PADDING_ROW.
    """

    frames: UInt8[Tensor, "batch frames height width channels"]
    token_ids: Int[Tensor, "batch tokens"]
    rows: Int[Tensor, "batch"]
    valid: Bool[Tensor, "batch"]

    def __len__(self) -> int:
        return self.frames.shape[0]

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Copy to a device; pinned host memory makes the copy asynchronous."""
        moved = (
            tensor.to(device, non_blocking=True) for tensor in (self.frames, self.token_ids, self.rows, self.valid)
        )
        return ClipBatch(*moved)

    def __getitem__(self, item: slice) -> "ClipBatch":
        return ClipBatch(self.frames[item], self.token_ids[item], self.rows[item], self.valid[item])

    def chunks(self, num_chunks: int) -> Iterator["ClipBatch"]:
        """Split along the batch axis into equal parts; the batch size must be divisible."""
        if len(self) % num_chunks:
            raise ValueError(f"batch of {len(self)} cannot be split into {num_chunks} equal micro-batches")
        size = len(self) // num_chunks
        for start in range(0, len(self), size):
            yield self[start : start + size]


def pad_batch(arrays: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Return the arrays of a batch, axis 0 the clip, with padding up to `size` rows; without need nothing is copied.

    Padding is not valid, so it has no loss, no weight and is nobody's negative; a batch may consist of it.
    """
    padded = {}
    for name, values in arrays.items():
        missing = size - len(values)
        if missing < 0:
            raise ValueError(f"batch of {len(values)} rows in {name} cannot be padded to {size}")
        fill = PADDING_ROW if name == "rows" else 0
        filling = np.full((missing, *values.shape[1:]), fill, values.dtype)
        padded[name] = np.concatenate([values, filling]) if missing else values
    return padded
