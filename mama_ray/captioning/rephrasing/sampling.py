"""Sampling with a seed per sequence: what is drawn depends on the seed and the text alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.captioning.rephrasing.beams import Hypothesis
from mama_ray.captioning.rephrasing.seq2seq import CachedDecoder
from mama_ray.captioning.rephrasing.settings import DecodingConfig


@torch.no_grad()
def sampled(
    decoder: CachedDecoder,
    seeds: Sequence[int],
    *,
    start_id: int,
    eos_ids: tuple[int, ...],
    decoding: DecodingConfig,
) -> list[list[Hypothesis]]:
    """Draw `decoding.num_samples` sequences of every text, whose sample k has the seed of the text plus k.

    decoder: with num_samples rows per text. A score is the mean log-probability of the tokens, by the model itself.
    """
    count, device = decoding.num_samples, decoder.device
    ends = torch.tensor(eos_ids, device=device)
    draws = _uniform([seed + sample for seed in seeds for sample in range(count)], decoding.max_length).to(device)
    num_rows = len(draws)
    newest = torch.full((num_rows,), start_id, device=device)
    is_open = torch.ones(num_rows, dtype=torch.bool, device=device)
    logprobs, lengths = torch.zeros(num_rows, device=device), torch.zeros(num_rows, dtype=torch.long, device=device)
    tokens = torch.zeros(num_rows, decoding.max_length, dtype=torch.long, device=device)
    for step in range(decoding.max_length):
        log_probs = decoder.step(newest)
        newest = draw_tokens(log_probs, draws[:, step], decoding)
        tokens[:, step] = newest
        logprobs += log_probs.gather(1, newest[:, None])[:, 0] * is_open
        lengths += is_open
        is_open = is_open & ~torch.isin(newest, ends)
        if not is_open.any():
            break
    found = [
        Hypothesis(tuple(own[:length]), logprob / length, logprob, not cut)
        for own, length, logprob, cut in zip(
            tokens.tolist(), lengths.tolist(), logprobs.tolist(), is_open.tolist(), strict=True
        )
    ]
    return [found[start : start + count] for start in range(0, num_rows, count)]


def draw_tokens(
    log_probs: Float[Tensor, "rows vocab"], draws: Float[Tensor, " rows"], decoding: DecodingConfig
) -> Tensor:
    """Return a token per row by the inverse of the cumulative distribution at `draws`, numbers in [0, 1).

    Temperature, then top-k, then top-p, as `transformers` warps.
    """
    ordered, token_ids = (log_probs / decoding.temperature).sort(dim=-1, descending=True, stable=True)
    if decoding.top_k:
        ordered = ordered[:, : decoding.top_k]
    probabilities = ordered.softmax(dim=-1)
    mass = probabilities.cumsum(dim=-1)
    # A token stays while what is before it has not reached the share yet: the first always does.
    probabilities = torch.where(mass - probabilities < decoding.top_p, probabilities, 0.0)
    mass = probabilities.cumsum(dim=-1)
    last_kept = (probabilities > 0).sum(dim=-1) - 1
    places = torch.searchsorted(mass, draws[:, None] * mass[:, -1:], right=True)[:, 0]
    return token_ids.gather(1, torch.minimum(places, last_kept)[:, None])[:, 0]


def _uniform(seeds: Sequence[int], count: int) -> Float[Tensor, "seeds count"]:
    """Return numbers in [0, 1), drawn on the CPU, so that every device has the same."""
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
