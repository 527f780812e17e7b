"""A part of a batch's clips in a pass of their own: their rows of what the pass over all gave, and its dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class ChosenClips:
    """The clips of this rank's batch, or of a part of it, that get tangents: their places in order, in host memory."""

    rows: Int[Tensor, " chosen"]
    num_clips: int

    def split(self, sizes: list[int]) -> list["ChosenClips"]:
        """Return those of each part of the batch; a part may have none."""
        parts, start = [], 0
        for size in sizes:
            inside = (self.rows >= start) & (self.rows < start + size)
            parts.append(ChosenClips(self.rows[inside] - start, size))
            start += size
        return parts

    def rows_of(self, whole: Tensor, num_rows: int) -> Tensor:
        """Return the chosen clips' part of a tensor that the pass over the whole batch gave.

        Axis 0 is the clip, or the clip and then something else. What has `num_rows` rows in the pass over the chosen
        clips and in the other alike is not of clips, and all of it is returned.
        """
        if len(whole) == num_rows:
            return whole
        if len(whole) * len(self.rows) != num_rows * self.num_clips:
            words = f"{len(whole)} rows for {self.num_clips} clips, {num_rows} for {len(self.rows)} of them"
            raise RuntimeError(f"clips are not on axis 0 of what a layer gave: {words}")
        return self.of_clips(whole)

    def of_clips(self, whole: Tensor) -> Tensor:
        """Return the chosen clips' part of a tensor whose axis 0 is the clip, or the clip and then something else."""
        rows = self.rows.to(whole.device)
        return whole.unflatten(0, (self.num_clips, -1)).index_select(0, rows).flatten(0, 1)

    @contextmanager
    def drop_as_whole(self) -> Iterator[None]:
        """Let dropout in a pass over the chosen clips drop what it drops in the pass over the whole batch."""
        with _DropsAsWhole(self):
            yield


class _DropsAsWhole(TorchFunctionMode):
    def __init__(self, chosen: ChosenClips):
        super().__init__()
        self._chosen = chosen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (self._dropout if func is F.dropout else func)(*args, **(kwargs or {}))

    def _dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return values
        per_clip, rest = divmod(len(values), len(self._chosen.rows))
        if rest:
            words = f"{len(values)} rows for {len(self._chosen.rows)} clips"
            raise RuntimeError(f"clips are not on axis 0 of what dropout drops: {words}")
        shape = (per_clip * self._chosen.num_clips, *values.shape[1:])
        order = sorted(range(values.dim()), key=values.stride, reverse=True)  # numbers are drawn in the order of memory
        ones = torch.empty_permuted(shape, order, dtype=values.dtype, device=values.device).fill_(1.0)
        factors = self._chosen.of_clips(F.dropout(ones, p))
        return values.mul_(factors) if inplace else values * factors
