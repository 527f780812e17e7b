"""Sampling: the distribution is that of transformers' warpers, and a seed alone decides what is drawn."""

import pytest
import torch

from mama_ray.captioning.rephrasing.beams import Hypothesis
from mama_ray.captioning.rephrasing.sampling import draw_tokens, sampled
from mama_ray.captioning.rephrasing.seq2seq import CachedDecoder
from mama_ray.captioning.rephrasing.settings import DecodingConfig
from tests.captioning.rephrasing.tiny_t5 import build_t5

VOCAB = 60


def sampling(**values) -> DecodingConfig:
    return DecodingConfig(**{"method": "sampling", "num_kept": 1, "max_length": 12} | values)


def draw(model, token_ids: torch.Tensor, seeds: list[int], decoding: DecodingConfig) -> list[list[Hypothesis]]:
    decoder = CachedDecoder(model, token_ids, torch.ones_like(token_ids), decoding.num_samples)
    return sampled(decoder, seeds, start_id=0, eos_ids=(1,), decoding=decoding)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (0.5, 9, 0.6)]
)
def test_what_is_drawn_has_the_probabilities_of_transformers_warpers(temperature, top_k, top_p):
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    log_probs = torch.randn(1, 12).log_softmax(-1)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)]
    wanted = warpers(torch.zeros(1, 1, dtype=torch.long), log_probs.clone()).softmax(-1)[0]
    # Every hundred-thousandth of the unit interval once: shares are probabilities, not draws.
    draws = (torch.arange(100_000, dtype=torch.float64) / 100_000).float()
    decoding = sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = draw_tokens(log_probs.expand(len(draws), -1), draws, decoding)
    shares = torch.bincount(drawn, minlength=12) / len(draws)
    torch.testing.assert_close(shares, wanted, atol=1e-4, rtol=0)


def test_the_last_draw_below_one_takes_a_token_that_was_kept():
    log_probs = torch.tensor([[0.5, 0.3, 0.2]]).log()
    highest = torch.tensor([1.0]).nextafter(torch.tensor([0.0]))
    assert draw_tokens(log_probs, highest, sampling(top_p=0.7)).item() == 1


def test_a_sequence_depends_on_its_seed_alone():
    model = build_t5(VOCAB, spread=2.0)
    token_ids = torch.randint(3, VOCAB, (4, 9))
    decoding = sampling(num_samples=5, temperature=5.0, top_p=1.0)
    together = draw(model, token_ids, [100, 200, 300, 400], decoding)
    for text, seed in enumerate([100, 200, 300, 400]):
        assert tokens_of(draw(model, token_ids[[text]], [seed], decoding)) == [tokens_of(together)[text]]
    # Sample k has the seed plus k.
    later = draw(model, token_ids[:1], [102], decoding)
    assert tokens_of(later)[0][:3] == tokens_of(together)[0][2:]
    assert tokens_of(draw(model, token_ids[:1], [7], decoding)) != [tokens_of(together)[0]]


def test_a_sequence_ends_at_its_end_and_has_the_models_own_log_probability():
    model, token_ids = build_t5(VOCAB, spread=2.0), torch.randint(3, VOCAB, (3, 9))
    found = [
        one
        for own in draw(model, token_ids, [1, 2, 3], sampling(num_samples=8, temperature=5.0, top_p=1.0))
        for one in own
    ]
    assert {one.is_whole for one in found} == {True, False}
    for one in found:
        assert one.is_whole == (one.token_ids[-1] == 1) and 1 not in one.token_ids[:-1]
        assert one.is_whole or len(one.token_ids) == 12
    with torch.no_grad():
        answer = torch.tensor(found[0].token_ids)
        ids = torch.cat([torch.zeros(1, dtype=torch.long), answer[:-1]])[None]
        logits = model(input_ids=token_ids[:1], decoder_input_ids=ids, use_cache=False).logits[0]
    wanted = logits.log_softmax(-1).gather(1, answer[:, None]).sum().item()
    assert found[0].logprob == pytest.approx(wanted, abs=1e-3)


def tokens_of(found: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in own] for own in found]
