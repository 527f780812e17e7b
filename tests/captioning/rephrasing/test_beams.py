"""Beams: one group is `generate` token for token; groups differ by the penalty; nothing depends on the texts beside."""

import pytest
import torch

from mama_ray.captioning.rephrasing.beams import Hypothesis, diverse_beams
from mama_ray.captioning.rephrasing.seq2seq import CachedDecoder
from mama_ray.captioning.rephrasing.settings import DecodingConfig
from tests.captioning.rephrasing.tiny_t5 import build_t5

VOCAB, START, END = 60, 0, 1
TEXTS = 6


@pytest.fixture(scope="module")
def model():
    return build_t5(VOCAB)


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(3, VOCAB, (TEXTS, 12), generator=generator)
    lengths = torch.tensor([12, 3, 7, 12, 1, 9])
    mask = (torch.arange(12)[None] < lengths[:, None]).long()
    return token_ids * mask, mask


def search(model, token_ids, mask, **values) -> list[list[Hypothesis]]:
    decoding = DecodingConfig(**{"num_kept": 1, "max_length": 16} | values)
    decoder = CachedDecoder(model, token_ids, mask, decoding.num_beams)
    return diverse_beams(decoder, start_id=START, eos_ids=(END,), decoding=decoding)


def tokens_of(found: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in own] for own in found]


def naive_logprob(model, token_ids, mask, answer: tuple[int, ...]) -> float:
    """The log-probability of an answer, read at once and without a cache."""
    length = int(mask.sum())
    decoder_ids = torch.tensor([[START, *answer[:-1]]])
    logits = model(input_ids=token_ids[None, :length], decoder_input_ids=decoder_ids, use_cache=False).logits[0]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item()


@pytest.mark.parametrize("num_beams", [1, 4, 7])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", [True, False])
@torch.no_grad()
def test_one_group_without_penalty_is_generate_token_for_token(
    model, inputs, num_beams, length_penalty, early_stopping
):
    token_ids, mask = inputs
    early_stopping |= num_beams == 1  # greedy search knows no other end
    values = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    found = search(model, token_ids, mask, num_groups=1, diversity_penalty=0.0, **values)
    told = model.generate(
        input_ids=token_ids,
        attention_mask=mask,
        max_new_tokens=16,
        num_return_sequences=num_beams,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **(values if num_beams > 1 else {}),
    )
    wanted = []
    for row in told.sequences[:, 1:].tolist():
        end = row.index(END) + 1 if END in row else len(row)
        wanted.append(tuple(row[:end]))
    assert [tokens for own in tokens_of(found) for tokens in own] == wanted
    assert any(own[0].is_whole for own in found) and len({own[0].token_ids for own in found}) > 1
    if num_beams > 1:
        scores = torch.tensor([one.score for own in found for one in own])
        torch.testing.assert_close(scores, told.sequences_scores, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_logprobs_are_those_of_the_whole_answers_read_at_once(model, inputs):
    token_ids, mask = inputs
    for text, own in enumerate(search(model, token_ids, mask, num_beams=6, num_groups=3, diversity_penalty=0.7)):
        for one in own:
            wanted = naive_logprob(model, token_ids[text], mask[text], one.token_ids)
            assert one.logprob == pytest.approx(wanted, abs=1e-3)
            assert one.score <= one.logprob / len(one.token_ids) + 1e-5  # less the penalties


def test_groups_differ_with_a_penalty_and_are_alike_without(model, inputs):
    alike = tokens_of(search(model, *inputs, num_beams=8, num_groups=8, diversity_penalty=0.0))
    assert all(len(set(own)) == 1 for own in alike)
    unlike = tokens_of(search(model, *inputs, num_beams=8, num_groups=8, diversity_penalty=5.0))
    # No group is kept off the end, so some answers of a model that ends anywhere meet again.
    assert all(len(set(own)) > 1 for own in unlike) and sum(len(set(own)) for own in unlike) > 30
    # The first group is kept off nothing: it finds what it would alone.
    assert all(own[0] in others for own, others in zip(alike, unlike, strict=True))


def test_the_penalty_is_hammings_by_a_search_of_loops(model, inputs):
    """Groups of one beam: each takes the likeliest token after the penalty, and ends at its first end."""
    token_ids, mask = inputs
    found = search(model, token_ids, mask, num_beams=4, num_groups=4, diversity_penalty=0.9)
    for text in range(TEXTS):
        assert sorted(tokens_of(found)[text]) == sorted(naive_groups(model, token_ids[text], mask[text], 4, 0.9))


@torch.no_grad()
def naive_groups(model, token_ids, mask, num_groups: int, penalty: float) -> list[tuple[int, ...]]:
    length = int(mask.sum())
    running: list[list[int]] = [[] for _ in range(num_groups)]
    ended: dict[int, tuple[int, ...]] = {}
    for step in range(16):
        chosen: list[int] = []
        for group, tokens in enumerate(running):
            if group in ended:
                continue
            decoder_ids = torch.tensor([[START, *tokens]])
            output = model(input_ids=token_ids[None, :length], decoder_input_ids=decoder_ids, use_cache=False)
            scores = output.logits[0, -1].log_softmax(-1)
            for token in chosen:
                scores[token] -= penalty
            order = scores.argsort(descending=True).tolist()
            if order[0] == END or step == 15:
                ended[group] = (*tokens, order[0])
            # In the step in which a group ends, what it would have gone on with is what others are kept off.
            going_on = order[0] if order[0] != END else order[1]
            chosen.append(going_on)
            tokens.append(going_on)
    return list(ended.values())


def test_a_text_is_answered_alike_alone_and_beside_others(model, inputs):
    token_ids, mask = inputs
    values = {"num_beams": 6, "num_groups": 3, "diversity_penalty": 0.7}
    together = tokens_of(search(model, token_ids, mask, **values))
    for text in range(TEXTS):
        length = int(mask[text].sum())
        alone = search(model, token_ids[text : text + 1, :length], mask[text : text + 1, :length], **values)
        assert tokens_of(alone) == [together[text]]
