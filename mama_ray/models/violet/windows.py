"""Windows of Video Swin: how a clip is cut into them, which tokens of a shifted one may meet, where a bias stands.

A size is (frames, rows, columns) of tokens.
"""

from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Num
from torch import Tensor

Size = tuple[int, int, int]
NOT_SEEN = -100.0  # added to the score of two tokens that only the cyclic shift made neighbours, as in Swin's release


def fit_window(clip: Size, window: Size, *, shifts: bool) -> tuple[Size, Size]:
    """Return the window and its shift for a clip: along an axis that one window spans it shrinks and does not shift."""
    fitted = tuple(min(length, size) for length, size in zip(clip, window, strict=True))
    shift = tuple(size // 2 if shifts and length > size else 0 for length, size in zip(clip, window, strict=True))
    return fitted, shift


def pad_to_windows(tokens: Tensor, window: Size) -> Tensor:
    """Add zeros behind (batch, frames, rows, columns, width) so that windows tile it."""
    missing = [-length % size for length, size in zip(tokens.shape[1:4], window, strict=True)]
    return F.pad(tokens, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0])) if any(missing) else tokens


def cut_windows(
    tokens: Num[Tensor, "batch frames rows columns width"], window: Size
) -> Num[Tensor, "batch windows tokens width"]:
    """Cut a clip into windows."""
    t, h, w = window
    return rearrange(
        tokens,
        "batch (frames t) (rows h) (columns w) width -> batch (frames rows columns) (t h w) width",
        t=t,
        h=h,
        w=w,
    )


def join_windows(
    windows: Float[Tensor, "batch windows tokens width"], window: Size, clip: Size
) -> Float[Tensor, "batch frames rows columns width"]:
    """Put the windows of a clip of that (padded) size together again."""
    frames, rows, _ = (length // size for length, size in zip(clip, window, strict=True))
    return rearrange(
        windows,
        "batch (frames rows columns) (t h w) width -> batch (frames t) (rows h) (columns w) width",
        frames=frames,
        rows=rows,
        t=window[0],
        h=window[1],
        w=window[2],
    )


def shift_mask(clip: Size, window: Size, shift: Size, like: Tensor) -> Float[Tensor, "windows 1 tokens tokens"] | None:
    """Return what to add to scores in windows of a cyclically shifted clip; None where nothing is shifted.

    Along an axis three regions meet: what no shifted window reaches past, and the last window's two halves, which come
    from both ends of the clip. Tokens of different regions do not see each other.
    """
    if not any(shift):
        return None
    regions = torch.zeros(clip, dtype=torch.long, device=like.device)
    for axis, (length, size, step) in enumerate(zip(clip, window, shift, strict=True)):
        place = torch.arange(length, device=like.device)
        region = (place >= length - size).long() + (place >= length - step).long() if step else torch.zeros_like(place)
        regions = 3 * regions + region.view([-1 if one == axis else 1 for one in range(3)])
    region = cut_windows(regions[None, ..., None], window)[0, ..., 0]
    apart = region[:, None, :] != region[:, :, None]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, NOT_SEEN)[:, None]


def relative_position_index(window: Size) -> Int[Tensor, "tokens tokens"]:
    """Return the row of the bias table for each pair of tokens of a full window.

    A window with fewer frames takes the top-left block: its tokens are the first ones, and their offsets the same.
    """
    places = torch.tensor(list(product(*map(range, window))))
    offsets = places[:, None] - places[None] + torch.tensor(window) - 1
    t, h, w = offsets.unbind(-1)
    return (t * (2 * window[1] - 1) + h) * (2 * window[2] - 1) + w


def num_biases(window: Size) -> int:
    """Return the rows of the bias table: one for each offset of two tokens of a window."""
    return (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
