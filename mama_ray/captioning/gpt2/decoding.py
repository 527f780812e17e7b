"""Writing captions with a gated narrator, many at a time: LaViLa's decoding without its waste.

The release computes every token of a caption anew for each further one, 76 times whatever the caption's length, and
repeats the clip's visual tokens for each of its samples. Here keys and values are kept, those of a clip once for all of
its captions; a caption leaves when it ends and the next one takes its place in the same step. A caption is a function
of its clip and its seed alone: what runs beside it changes nothing (`choice.py`).
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.captioning.gpt2.cache import ClipCache, TextCache
from mama_ray.captioning.gpt2.choice import Drawing, choose, step_keys
from mama_ray.captioning.gpt2.scoring import exact_logits
from mama_ray.errors import UserError
from mama_ray.models.narrator.model import GatedNarrator

_BEYOND_DOUBT = 1e4  # a logit ahead of all others by more than any draw adds, and within half precision


@dataclass(frozen=True)
class Written:
    """A caption that has ended.

    Attributes:
        clip: the number that `Decoder.add` gave its clip.
        sample: its place among the seeds of the clip.
        token_ids: what was written, the token that ends a caption included where it did.
        logprob: of these tokens, in nats, under the model's own distribution: no temperature, no filter. NaN where the
            model's logits were no numbers: the caption was ended there and means nothing.
        has_ended: by the model, not by its length.
        legacy_perplexity: exp of the mean entropy of the distributions that the tokens were drawn from, which the
            release returns as a likelihood; NaN unless the decoder was asked for it.
    """

    clip: int
    sample: int
    token_ids: tuple[int, ...]
    logprob: float
    has_ended: bool
    legacy_perplexity: float = math.nan


@dataclass(eq=False)
class _Clip:
    number: int
    visual: Tensor
    seeds: Sequence[int]
    num_begun: int = 0
    num_left: int = 0
    place: int = -1


@dataclass(eq=False)
class _Row:
    clip: _Clip
    sample: int
    keys: list[int]
    tokens: list[int]
    logprob: float = 0.0
    entropy: float = 0.0


@dataclass(eq=False)
class _Counts:
    """What was done, for reports and benchmarks."""

    num_steps: int = 0
    num_row_steps: int = 0
    num_settled: int = 0


@dataclass(frozen=True)
class _Limits:
    max_tokens: int
    min_tokens: int


class Decoder:
    """Captions of clips that come at any time; `step` writes one token of every caption that is being written.

    Args:
        model: in evaluation mode, on the device that decodes.
        drawing: how tokens are drawn.
        max_tokens: tokens after which a caption is cut off; at most the model's context without its first token.
        min_tokens: tokens before which no caption ends.
        num_rows: captions that are written at a time.
        with_entropy: compute `Written.legacy_perplexity`.
    """

    def __init__(
        self,
        model: GatedNarrator,
        drawing: Drawing,
        *,
        max_tokens: int,
        min_tokens: int = 0,
        num_rows: int = 64,
        with_entropy: bool = False,
    ) -> None:
        longest = model.config.language.num_positions - 1
        if not 1 <= max_tokens <= longest:
            raise UserError("max_tokens of a caption", got=max_tokens, wanted=f"1 to {longest}, the model's positions")
        assert not model.training, "dropout has no place in decoding"
        self._model, self._language, self._drawing = model, model.text_decoder, drawing
        self._limits, self._num_rows, self._with_entropy = _Limits(max_tokens, min_tokens), num_rows, with_entropy
        like = model.img_queries.detach()
        self._is_exact = like.dtype in (torch.float32, torch.float64)
        self._text = TextCache(model.config.language, num_rows, max_tokens, like)
        self._clips = ClipCache(self._language, model.config.num_queries, like)
        self._at: list[_Clip] = []  # by place in the cache
        self._rows: list[_Row] = []
        self._waiting: deque[_Clip] = deque()
        self._num_clips = 0
        self.counts = _Counts()

    @property
    def has_work(self) -> bool:
        """Whether a caption is being written or waits."""
        return bool(self._rows or self._waiting)

    @property
    def num_free(self) -> int:
        """How many more captions could be written at a time than are asked for."""
        waiting = sum(len(clip.seeds) - clip.num_begun for clip in self._waiting)
        return self._num_rows - len(self._rows) - waiting

    @torch.inference_mode()
    def add(self, visual: Float[Tensor, "queries width"], seeds: Sequence[int]) -> int:
        """Queue captions of a clip, one for each seed, and return the clip's number. `visual` is of `encode_visual`,
        best of this clip alone: in a batch its last bits depend on the others."""
        clip = _Clip(self._num_clips, visual.to(self._model.img_queries), tuple(seeds))
        self._num_clips += 1
        if clip.seeds:
            self._waiting.append(clip)
        return clip.number

    @torch.inference_mode()
    def step(self) -> list[Written]:
        """Write one token of each running caption, after the free rows have been filled; return those that ended."""
        self._fill()
        if not self._rows:
            return []
        logits = self._next_logits()
        tokens = self._choose(self._made_numbers(logits))
        self._note(logits, tokens)
        self.counts.num_steps += 1
        self.counts.num_row_steps += len(self._rows)
        return self._leave()

    def _fill(self) -> None:
        while self._waiting and len(self._rows) < self._num_rows:
            clip = self._waiting[0]
            if clip.place < 0:
                clip.place = self._clips.add(clip.visual)
                self._at.append(clip)
            keys = step_keys(clip.seeds[clip.num_begun], self._limits.max_tokens)
            self._rows.append(_Row(clip, clip.num_begun, keys, [self._model.config.bos_id]))
            clip.num_begun += 1
            clip.num_left += 1
            if clip.num_begun == len(clip.seeds):
                self._waiting.popleft()

    def _next_logits(self) -> Float[Tensor, "rows vocab"]:
        device = self._model.img_queries.device
        positions = [len(row.tokens) - 1 for row in self._rows]
        last = torch.tensor([[row.tokens[-1]] for row in self._rows], device=device)
        hidden = self._language.embed(last, torch.tensor(positions, device=device)[:, None])
        over_text = self._text.at(positions)
        over_visual = self._clips.seen_by([row.clip.place for row in self._rows])
        for layer, *looks in zip(self._language.layers, over_text, over_visual, strict=True):
            hidden = layer.run(hidden, *looks)
        return self._language.logits(hidden[:, 0])

    def _made_numbers(self, logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
        """Give rows that weights or an overflow have made NaN, which none can choose from, some token beyond doubt."""
        is_lost = logits[:, 0].isnan()  # one that is NaN makes all of its row so: it came through the hidden state
        if not is_lost.any():
            return logits
        logits = logits.masked_fill(is_lost[:, None], 0.0)
        some_token = (self._model.config.eos_id + 1) % logits.shape[1]  # an end may be ruled out
        logits[is_lost, some_token] = _BEYOND_DOUBT
        return logits

    def _choose(self, logits: Float[Tensor, "rows vocab"]) -> list[int]:
        keys = [row.keys[len(row.tokens) - 1] for row in self._rows]
        choice = choose(self._allowed(logits.float(), self._rows), self._drawing, keys)
        tokens = choice.tokens.tolist()
        # Half precision is too coarse: most choices would be close.
        close = choice.is_close.nonzero()[:, 0].tolist() if self._is_exact else []
        if close:
            rows = [self._rows[place] for place in close]
            settled = choose(self._allowed(self._exact(rows), rows), self._drawing, [keys[place] for place in close])
            for place, token in zip(close, settled.tokens.tolist(), strict=True):
                tokens[place] = token
            self.counts.num_settled += len(close)
        return tokens

    def _allowed(self, logits: Float[Tensor, "rows vocab"], rows: list[_Row]) -> Float[Tensor, "rows vocab"]:
        """Rule out an end before its time."""
        early = [len(row.tokens) <= self._limits.min_tokens for row in rows]
        if any(early):
            logits = logits.clone()
            logits[torch.tensor(early, device=logits.device), self._model.config.eos_id] = -torch.inf
        return logits

    def _exact(self, rows: list[_Row]) -> Float[Tensor, "rows vocab"]:
        device = self._model.img_queries.device
        lengths = torch.tensor([len(row.tokens) for row in rows], device=device)
        token_ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64, device=device)
        for ids, row in zip(token_ids, rows, strict=True):
            ids[: len(row.tokens)] = torch.tensor(row.tokens, device=device)
        return exact_logits(self._language, torch.stack([row.clip.visual for row in rows]), token_ids, lengths)

    def _note(self, logits: Float[Tensor, "rows vocab"], tokens: list[int]) -> None:
        logits = logits.float()
        norms = logits.logsumexp(dim=1)
        chosen = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0] - norms
        entropies = [0.0] * len(tokens)
        if self._with_entropy:
            logprobs = logits - norms[:, None]
            entropies = (-(logprobs.exp() * logprobs).sum(dim=1)).tolist()
        for row, token, logprob, entropy in zip(self._rows, tokens, chosen.tolist(), entropies, strict=True):
            row.tokens.append(token)
            row.logprob += logprob
            row.entropy += entropy

    def _leave(self) -> list[Written]:
        """Take out what has ended, from the last row on, so that a row that takes a place has been looked at."""
        written = []
        for place in reversed(range(len(self._rows))):
            row = self._rows[place]
            has_ended = row.tokens[-1] == self._model.config.eos_id
            goes_on = not has_ended and len(row.tokens) <= self._limits.max_tokens
            if goes_on and not math.isnan(row.logprob):
                continue
            written.append(self._written(row, has_ended))
            last = self._rows.pop()
            if last is not row:
                self._rows[place] = last
                self._text.move(len(self._rows), place, len(last.tokens) - 1)
            self._part_from(row.clip)
        return written[::-1]

    def _written(self, row: _Row, has_ended: bool) -> Written:
        tokens = tuple(row.tokens[1:])
        perplexity = math.exp(row.entropy / len(tokens)) if self._with_entropy else math.nan
        return Written(row.clip.number, row.sample, tokens, row.logprob, has_ended, perplexity)

    def _part_from(self, clip: _Clip) -> None:
        """Free a clip's place once none of its captions needs it."""
        clip.num_left -= 1
        if clip.num_left or clip.num_begun < len(clip.seeds):
            return
        self._clips.remove(clip.place)
        last = self._at.pop()
        if last is not clip:
            self._at[clip.place], last.place = last, clip.place
