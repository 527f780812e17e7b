"""Diverse beam search (arXiv 1610.02424) with the Hamming penalty, over a decoder with a cache.

Groups take turns at each place: a group's tokens lose `diversity_penalty` for every beam of the groups before it that
chose the same token there. Within a group it is the beam search of `transformers`, whose scores and order it gives
token for token where there is one group.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mama_ray.captioning.rephrasing.seq2seq import CachedDecoder
from mama_ray.captioning.rephrasing.settings import DecodingConfig

_NEVER = -1.0e9  # of what must not be chosen
_IS_REAL = -1.0e8


@dataclass(frozen=True)
class Hypothesis:
    """A candidate.

    Attributes:
        token_ids: without the start, with the end where it has one.
        score: log-probability less penalties, over the length to the power of the length penalty.
        logprob: of its tokens by the model, without penalties, in nats.
        is_whole: False where it was cut off.
    """

    token_ids: tuple[int, ...]
    score: float
    logprob: float
    is_whole: bool


@torch.no_grad()
def diverse_beams(
    decoder: CachedDecoder, *, start_id: int, eos_ids: tuple[int, ...], decoding: DecodingConfig
) -> list[list[Hypothesis]]:
    """Search candidates of every text, the best first; `decoding.num_beams` each.

    decoder: with num_beams rows per text. Nothing of a text depends on the texts beside it.
    """
    num_texts, num_groups = decoder.num_texts, decoding.num_groups
    width, device = decoding.num_beams // num_groups, decoder.device
    ends = torch.tensor(eos_ids, device=device)
    groups = [_Group(num_texts, width, decoding, ends) for _ in range(num_groups)]
    token_ids = torch.full((num_texts, num_groups, width), start_id, device=device)
    first_row = torch.arange(num_texts * num_groups, device=device).view(num_texts, num_groups, 1) * width
    for step in range(decoding.max_length):
        log_probs = decoder.step(token_ids.flatten())
        log_probs = log_probs.view(num_texts, num_groups, width, -1)
        chosen_before = torch.zeros(num_texts, log_probs.shape[-1], device=device)
        parents = torch.empty_like(token_ids)
        for number, group in enumerate(groups):
            penalty = decoding.diversity_penalty * chosen_before if number else None
            was_open = group.is_open
            parents[:, number], token_ids[:, number] = group.advance(log_probs[:, number], penalty, step)
            counted = was_open[:, None].expand(-1, width).to(chosen_before.dtype)
            chosen_before.scatter_add_(1, token_ids[:, number], counted)
        if not any(bool(group.is_open.any()) for group in groups):
            break
        decoder.reorder((first_row + parents).flatten())
    return [
        sorted((one for group in groups for one in group.hypotheses(text)), key=lambda one: -one.score)
        for text in range(num_texts)
    ]


class _Group:
    """A beam search of every text: `width` running beams and the best that have ended, as tensors (texts, width)."""

    def __init__(self, num_texts: int, width: int, decoding: DecodingConfig, ends: Int[Tensor, " ends"]) -> None:
        shape, device = (num_texts, width), ends.device
        self._decoding, self._ends, self._width = decoding, ends, width
        self._tokens = torch.zeros(*shape, decoding.max_length, dtype=torch.long, device=device)
        self._scores = torch.full(shape, _NEVER, device=device)
        self._scores[:, 0] = 0.0  # all beams are alike at the start: one of them tells
        self._logprobs = torch.zeros(shape, device=device)
        self._ended = _Ended(
            tokens=self._tokens.clone(),
            scores=torch.full(shape, _NEVER, device=device),
            logprobs=self._logprobs.clone(),
            lengths=torch.zeros(shape, dtype=torch.long, device=device),
            is_whole=torch.zeros(shape, dtype=torch.bool, device=device),
        )
        self.is_open: Bool[Tensor, " texts"] = torch.ones(num_texts, dtype=torch.bool, device=device)

    def advance(
        self, log_probs: Float[Tensor, "texts width vocab"], penalty: Float[Tensor, "texts vocab"] | None, step: int
    ) -> tuple[Int[Tensor, "texts width"], Int[Tensor, "texts width"]]:
        """Choose the next tokens; return the beam that each running beam goes on from, and its token."""
        vocab = log_probs.shape[-1]
        told = log_probs if penalty is None else log_probs - penalty[:, None]
        told = (told + self._scores[:, :, None]).flatten(1)
        # So many that enough go on even if every beam's best token is an end.
        num_chosen = max(2, 1 + len(self._ends)) * self._width
        scores, places = told.topk(num_chosen)
        parents, token_ids = places // vocab, places % vocab
        logprobs = self._logprobs.gather(1, parents) + log_probs.flatten(1).gather(1, places)
        tokens = _take(self._tokens, parents)
        tokens[:, :, step] = token_ids
        is_whole = torch.isin(token_ids, self._ends)
        is_ending = is_whole | (step + 1 == self._decoding.max_length)
        running = scores + is_ending * _NEVER
        going_on = running.topk(self._width).indices
        self._tokens, self._scores = _take(tokens, going_on), running.gather(1, going_on)
        self._logprobs = logprobs.gather(1, going_on)
        ended = _Ended(tokens, scores, logprobs, torch.full_like(token_ids, step + 1), is_whole)
        self._keep_ended(ended, is_ending, step)
        return parents.gather(1, going_on), token_ids.gather(1, going_on)

    def _keep_ended(self, ended: "_Ended", is_ending: Bool[Tensor, "texts chosen"], step: int) -> None:
        """Keep the best of what ended now and before, and see whether a better one may come."""
        power = float(step + 1) ** self._decoding.length_penalty
        # Behind the best `width` there are only those that would go on in place of an ended one.
        is_ending = is_ending.clone()
        is_ending[:, self._width :] = False
        scores = torch.where(is_ending & self.is_open[:, None], ended.scores / power, _NEVER)
        ended = _Ended(ended.tokens, scores, ended.logprobs, ended.lengths, ended.is_whole)
        self._ended = self._ended.joined(ended).best(self._width)
        is_full = (self._ended.scores > _IS_REAL).all(dim=1)
        may_improve = self._scores[:, 0] / power > self._ended.scores.amin(dim=1)
        if self._decoding.early_stopping:
            may_improve = torch.zeros_like(may_improve)
        self.is_open = self.is_open & (may_improve | ~is_full)

    def hypotheses(self, text: int) -> list[Hypothesis]:
        """Return what ended of a text, the best first."""
        ended = self._ended
        return [
            Hypothesis(
                tuple(ended.tokens[text, beam, : int(ended.lengths[text, beam])].tolist()),
                float(ended.scores[text, beam]),
                float(ended.logprobs[text, beam]),
                bool(ended.is_whole[text, beam]),
            )
            for beam in range(self._width)
            if float(ended.scores[text, beam]) > _IS_REAL
        ]


@dataclass(frozen=True)
class _Ended:
    """Candidates of every text, (texts, candidates), with their tokens."""

    tokens: Int[Tensor, "texts candidates tokens"]
    scores: Float[Tensor, "texts candidates"]
    logprobs: Float[Tensor, "texts candidates"]
    lengths: Int[Tensor, "texts candidates"]
    is_whole: Bool[Tensor, "texts candidates"]

    def joined(self, other: "_Ended") -> "_Ended":
        return _Ended(*(torch.cat([getattr(self, name), getattr(other, name)], dim=1) for name in self.__annotations__))

    def best(self, count: int) -> "_Ended":
        chosen = self.scores.topk(count).indices
        return _Ended(*(_take(getattr(self, name), chosen) for name in self.__annotations__))


def _take(values: Tensor, chosen: Int[Tensor, "texts chosen"]) -> Tensor:
    """Return what is at the chosen places of each text; values are (texts, places) or have a further axis."""
    if values.ndim == 3:
        return values.gather(1, chosen[:, :, None].expand(-1, -1, values.shape[2]))
    return values.gather(1, chosen)
