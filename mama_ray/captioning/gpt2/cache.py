"""What a decoder keeps between steps: keys and values of each caption's tokens, and of each clip once for all captions.

Rows that are in use come first, always: whoever leaves is replaced by the last one, which costs one copy of a row and
saves every step from computing what nobody waits for.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from mama_ray.models.attention import attend_heads
from mama_ray.models.narrator.config import Gpt2Config
from mama_ray.models.narrator.gpt2 import GatedGpt2, OverText, OverVisual

_APART = "rows tokens (heads dim) -> rows heads tokens dim"
_TOGETHER = "rows heads tokens dim -> rows tokens (heads dim)"


class TextCache:
    """Keys and values of the tokens of `num_rows` captions, each of up to `length` tokens."""

    def __init__(self, config: Gpt2Config, num_rows: int, length: int, like: Tensor) -> None:
        self._heads = config.num_heads
        dim = config.width // config.num_heads
        # Zeros, as what a row has not written is multiplied by 0; the memory is taken as it comes into use.
        self._kept = like.new_zeros((config.num_layers, 2, num_rows, config.num_heads, length, dim))

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row over another row."""
        self._kept[:, :, target, :, :length] = self._kept[:, :, source, :, :length]

    def at(self, positions: Sequence[int]) -> list[OverText]:
        """Return for each layer how the one new token of each row, which stands at its position, sees those before."""
        where = torch.tensor(positions, device=self._kept.device)
        longest = max(positions) + 1
        mask = None
        if min(positions) + 1 < longest:
            mask = (torch.arange(longest, device=where.device) <= where[:, None])[:, None, None]
        return [_OverKept(pair, where, longest, mask, self._heads) for pair in self._kept]


class _OverKept:
    """Attention of one layer over what is kept, to which the new tokens are added."""

    def __init__(self, pair: Tensor, where: Tensor, longest: int, mask: Tensor | None, heads: int) -> None:
        self._pair, self._where, self._longest, self._mask, self._heads = pair, where, longest, mask, heads
        self._rows = torch.arange(len(where), device=where.device)

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for kept, new in zip(self._pair, (keys, values), strict=True):
            kept[self._rows, :, self._where] = rearrange(new, "rows 1 (heads dim) -> rows heads dim", heads=self._heads)
        keys, values = self._pair[:, : len(self._rows), :, : self._longest]
        asked = rearrange(queries, _APART, heads=self._heads)
        return rearrange(attend_heads(asked, keys, values, mask=self._mask), _TOGETHER)


class ClipCache:
    """Keys and values of the visual tokens of clips, for every layer that looks at them; it grows as it must."""

    def __init__(self, decoder: GatedGpt2, num_queries: int, like: Tensor) -> None:
        self._crossing = [layer.crossattention for layer in decoder.layers if layer.crosses]
        self._layers = [layer.crosses for layer in decoder.layers]
        self._heads = self._crossing[0].num_heads
        width = self._crossing[0].q_attn.weight.shape[1]
        sizes = (len(self._crossing), 2, 1, self._heads, num_queries, width // self._heads)
        self._kept = like.new_empty(sizes)
        self.num_clips = 0

    def add(self, visual: Float[Tensor, "queries width"]) -> int:
        """Compute the keys and values of a clip and return its place, which is the next one."""
        if self.num_clips == self._kept.shape[2]:
            grown = self._kept.new_empty((*self._kept.shape[:2], 2 * self.num_clips, *self._kept.shape[3:]))
            grown[:, :, : self.num_clips] = self._kept
            self._kept = grown
        for pair, attention in zip(self._kept, self._crossing, strict=True):
            for kept, new in zip(pair, attention.keys_values(visual[None]), strict=True):
                kept[self.num_clips] = rearrange(new[0], "tokens (heads dim) -> heads tokens dim", heads=self._heads)
        self.num_clips += 1
        return self.num_clips - 1

    def remove(self, place: int) -> None:
        """Give a clip's place to the last clip."""
        self.num_clips -= 1
        if place != self.num_clips:
            self._kept[:, :, place] = self._kept[:, :, self.num_clips]

    def seen_by(self, places: Sequence[int]) -> list[OverVisual | None]:
        """Return for each layer how rows, each of the clip at its place, see their clips; None where a layer does not.

        Rows of one clip are asked together, so that its keys are read once.
        """
        counts = [0] * self.num_clips
        ranks = []
        for place in places:
            ranks.append(counts[place])
            counts[place] += 1
        clip, rank = (torch.tensor(one, device=self._kept.device) for one in (places, ranks))
        pairs = iter(self._kept)
        return [
            _OverClips(next(pairs)[:, : self.num_clips], clip, rank, max(counts), self._heads) if crosses else None
            for crosses in self._layers
        ]


class _OverClips:
    """Attention of one layer to the clips."""

    def __init__(
        self, pair: Tensor, clip: Int64[Tensor, " rows"], rank: Int64[Tensor, " rows"], most: int, heads: int
    ) -> None:
        self._pair, self._clip, self._rank, self._most, self._heads = pair, clip, rank, most, heads

    def __call__(self, queries: Tensor) -> Tensor:
        keys, values = self._pair
        grouped = queries.new_zeros((len(keys), self._most, queries.shape[-1]))
        grouped[self._clip, self._rank] = queries[:, 0]
        attended = attend_heads(rearrange(grouped, _APART, heads=self._heads), keys, values)
        return rearrange(attended, _TOGETHER)[self._clip, self._rank, None]
