"""Choosing tokens so that the choice does not depend on rounding, which depends on what else is computed beside it.

A matrix product of 64 rows rounds otherwise than one of a single row, so the logits of the same caption differ in their
last bits with the batch. The choice tells where such a difference could matter: where two tokens, or a token and a
border of the filters, lie closer than the logits are certain. Whoever asked then computes those logits again in double
precision and chooses anew, which gives every batch the same token.

Filters are applied in the order temperature, top-k, top-p. Among what they leave, a token is drawn by adding a Gumbel
variate to each score and taking the largest sum: a draw from their shares, and one that is close for a part of the
tokens that does not grow with the vocabulary. The variates are a hash of the caption's seed, the step and the token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Logits are taken to be certain to this many units in the last place of the largest of their row; rows in a batch of
# 64, alone, and without stored keys were seen to differ by up to a fifth of it.
_ROUNDINGS = 16
_NUM_LOOKED_AT = 256  # of the largest logits, which mostly hold more than top_p of the mass
_LARGEST_KEY = 1 << 63
# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), as numbers with a sign.
_STEP, _FIRST, _SECOND = (value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the likeliest token always.
        top_k: how many tokens may be drawn; 0 is all.
        top_p: the likeliest tokens that together have this share may be drawn.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Choice:
    """One token per row.

    Attributes:
        tokens: what was chosen.
        is_close: where rounding of the logits could have chosen another.
    """

    tokens: Int64[Tensor, " rows"]
    is_close: Bool[Tensor, " rows"]


@dataclass(frozen=True)
class _Candidates:
    """The tokens of each row that a filter may leave, by falling score (rows, looked_at)."""

    scores: Tensor
    ids: Tensor
    is_in: Tensor
    is_doubted: Tensor


def step_keys(seed: int, num_steps: int) -> list[int]:
    """Return a number for each step of a caption, from which its variates are made."""
    return np.random.default_rng(seed).integers(_LARGEST_KEY, size=num_steps, dtype=np.uint64).astype(np.int64).tolist()


def choose(logits: Float[Tensor, "rows vocab"], drawing: Drawing, keys: Sequence[int]) -> Choice:
    """Choose a token per row; `keys` are the rows' of this step, which the likeliest token does not need."""
    slack = _ROUNDINGS * torch.finfo(logits.dtype).eps * _largest(logits)
    if drawing.temperature == 0:
        best, tokens = logits.topk(2)
        return Choice(tokens[:, 0], best[:, 0] - best[:, 1] <= 2 * slack)
    slack = slack.double() / drawing.temperature
    keyed = torch.tensor(keys, device=logits.device)
    num_tokens = logits.shape[1]
    num_looked_at = num_tokens
    if 0 < drawing.top_k < num_tokens:
        num_looked_at = drawing.top_k + 1  # and the first that is left out
    elif drawing.top_p < 1.0:
        num_looked_at = min(_NUM_LOOKED_AT, num_tokens)
    found, is_enough = _filter(logits, drawing, slack, num_looked_at)
    choice = _draw(found, keyed, slack)
    if not is_enough.all():  # a flat distribution
        rows = ~is_enough
        rest = _draw(_filter(logits[rows], drawing, slack[rows], num_tokens)[0], keyed[rows], slack[rows])
        choice.tokens[rows], choice.is_close[rows] = rest.tokens, rest.is_close
    return choice


def _filter(
    logits: Tensor, drawing: Drawing, slack: Tensor, num_looked_at: int
) -> tuple[_Candidates, Bool[Tensor, " rows"]]:
    """Apply top-k and top-p among the largest scores; tell for which rows they are enough to know what is left."""
    num_tokens, temperature = logits.shape[1], drawing.temperature
    has_top_k = 0 < drawing.top_k < num_tokens
    if drawing.top_p == 1.0 and not has_top_k:
        ids = torch.arange(num_tokens, device=logits.device).expand_as(logits)
        nothing = torch.zeros_like(logits, dtype=torch.bool)
        return _Candidates(logits.double() / temperature, ids, ~nothing, nothing), ~nothing[:, 0]
    largest, ids = logits.topk(num_looked_at)
    best, slack = largest.double() / temperature, slack[:, None]
    is_in, is_doubted = torch.ones_like(best, dtype=torch.bool), torch.zeros_like(best, dtype=torch.bool)
    shares = (best - best[:, :1]).exp()
    if has_top_k:
        is_in[:, drawing.top_k :] = False
        last_in, first_out = best[:, drawing.top_k - 1, None], best[:, drawing.top_k, None]
        is_doubted = ((best - last_in).abs() <= 2 * slack) & (last_in - first_out <= 2 * slack)
        whole = (shares * is_in).sum(dim=1, keepdim=True)
        doubt = (shares * is_doubted).sum(dim=1, keepdim=True) / whole
    else:  # over the vocabulary, in place: these passes are a good part of a step
        whole = (logits - largest[:, :1]).mul_(1 / temperature).exp_().sum(dim=1, keepdim=True).double()
        doubt = torch.zeros_like(whole)
    if drawing.top_p < 1.0:
        in_nucleus, on_border = _nucleus(best, shares * is_in / whole, drawing.top_p, slack, doubt)
        is_in, is_doubted = is_in & in_nucleus, (is_doubted | on_border) & (in_nucleus | on_border)
    # Where the last one is surely out, so is all that was not looked at.
    is_enough = ~(is_in | is_doubted)[:, -1] | (num_looked_at == num_tokens)
    return _Candidates(best, ids, is_in, is_doubted), is_enough


def _nucleus(
    best: Tensor, shares: Tensor, top_p: float, slack: Tensor, doubt: Tensor
) -> tuple[Bool[Tensor, "rows looked_at"], Bool[Tensor, "rows looked_at"]]:
    """Return which of the sorted tokens the likeliest ones with a share of top_p are, and of which it is not certain.

    A token is in where those ahead of it have less than top_p. Rounding may put any ahead that is hardly behind.
    """
    total = torch.nn.functional.pad(shares.cumsum(dim=1), (1, 0))  # entry i: the share of the first i
    error = 4 * slack + 2 * doubt
    falling = -best
    num_surely_ahead = torch.searchsorted(falling, falling - 2 * slack)
    num_maybe_ahead = torch.searchsorted(falling, falling + 2 * slack, right=True) - 1
    least = total.gather(1, num_surely_ahead) - error
    most = total.gather(1, num_maybe_ahead) + error
    return total[:, :-1] < top_p, (least < top_p) & (most >= top_p) & (num_maybe_ahead > 0)


def _draw(found: _Candidates, keys: Int64[Tensor, " rows"], slack: Float[Tensor, " rows"]) -> Choice:
    """Draw one of the tokens that are in; it is close where another, in or doubted, could have won."""
    sums = found.scores + _gumbel(found.ids, keys[:, None])
    may_win = sums.masked_fill(~found.is_in, -torch.inf)
    largest, places = may_win.max(dim=1)
    others = sums.masked_fill(~(found.is_in | found.is_doubted), -torch.inf).scatter(1, places[:, None], -torch.inf)
    is_close = largest - others.amax(dim=1) <= 2 * slack
    is_close |= found.is_doubted.gather(1, places[:, None])[:, 0]
    return Choice(found.ids.gather(1, places[:, None])[:, 0], is_close)


def _gumbel(ids: Int64[Tensor, "rows tokens"], keys: Int64[Tensor, "rows 1"]) -> Float[Tensor, "rows tokens"]:
    """Return a Gumbel variate for each token of each key."""
    mixed = keys + (ids + 1) * _STEP
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    mixed = mixed ^ _shifted(mixed, 31)
    uniform = (_shifted(mixed, 11).double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log()


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Shift to the right as numbers without a sign, which torch has no operation for."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)


def _largest(logits: Tensor) -> Float[Tensor, " rows"]:
    """Return the size of the largest finite logit of each row: a token that is ruled out has minus infinity."""
    least, most = logits.aminmax(dim=1)
    if least.isfinite().all():
        return torch.maximum(most.abs(), least.abs())
    return logits.masked_fill(logits == -torch.inf, 0.0).abs().amax(dim=1)
