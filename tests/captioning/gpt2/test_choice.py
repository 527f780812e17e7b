"""Tokens are drawn from the shares that the filters leave, and a choice that rounding could change is said to be so."""

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mama_ray.captioning.gpt2.choice import Drawing, choose, step_keys

DRAWINGS = [
    Drawing(1.0),
    Drawing(0.7, top_p=0.95),
    Drawing(1.3, top_k=5),
    Drawing(0.9, top_k=12, top_p=0.8),
    Drawing(1.0, top_p=0.05),
    Drawing(1.0, top_k=1000),
]


def expected_shares(logits: torch.Tensor, drawing: Drawing) -> torch.Tensor:
    """By transformers' own filters."""
    scores = TemperatureLogitsWarper(drawing.temperature)(None, logits)
    if drawing.top_k:
        scores = TopKLogitsWarper(drawing.top_k)(None, scores)
    return TopPLogitsWarper(drawing.top_p)(None, scores).softmax(dim=-1)


@pytest.mark.parametrize("drawing", DRAWINGS, ids=str)
@pytest.mark.parametrize("spread", [2.0, 0.05])
def test_tokens_are_drawn_from_the_shares_that_the_filters_leave(drawing, spread):
    num_draws, num_tokens = 20_000, 300 if spread < 1 and drawing.top_k == 0 else 40
    logits = spread * torch.randn(1, num_tokens, generator=torch.Generator().manual_seed(3))
    shares = expected_shares(logits, drawing)[0]
    tokens = choose(logits.expand(num_draws, -1), drawing, step_keys(7, num_draws)).tokens
    found = torch.bincount(tokens, minlength=num_tokens) / num_draws
    assert not found[shares == 0].any()
    assert (found - shares).abs().max() < 5 * (shares.max() / num_draws) ** 0.5


def test_the_likeliest_token_is_taken_at_temperature_0():
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    choice = choose(logits, Drawing(), [0] * 50)
    assert torch.equal(choice.tokens, logits.argmax(dim=1)) and not choice.is_close.any()
    logits[7, 3] = logits[7, 4] = 9.0
    assert choose(logits, Drawing(), [0] * 50).is_close.nonzero().tolist() == [[7]]


@pytest.mark.parametrize("drawing", [Drawing(), *DRAWINGS], ids=str)
def test_what_rounding_changes_was_said_to_be_close(drawing):
    """On logits of a coarse lattice, where ties and near ties are everywhere."""
    generator = torch.Generator().manual_seed(5)
    num_rows, num_changed = 4000, 0
    logits = torch.randint(0, 12, (num_rows, 60), generator=generator) / 4
    logits = logits + 2e-6 * torch.randn(logits.shape, generator=generator)
    keys = step_keys(11, num_rows)
    choice = choose(logits, drawing, keys)
    for _ in range(5):
        shaken = logits + 4e-6 * (2 * torch.rand(logits.shape, generator=generator) - 1)
        again = choose(shaken, drawing, keys)
        changed = again.tokens != choice.tokens
        assert not (changed & ~choice.is_close).any()
        num_changed += int(changed.sum())
    if drawing in (Drawing(), DRAWINGS[2]):
        assert num_changed > 0, "nothing was tried"


def test_hardly_anything_is_close_on_logits_of_no_lattice():
    logits = torch.randn(2000, 500, generator=torch.Generator().manual_seed(2))
    for drawing in DRAWINGS[:2]:
        assert choose(logits, drawing, step_keys(3, 2000)).is_close.sum() <= 4


def test_a_row_does_not_depend_on_those_beside_it():
    logits, keys = 3 * torch.randn(200, 400, generator=torch.Generator().manual_seed(4)), step_keys(9, 200)
    logits[::2] /= 100  # flat ones need all tokens, which the others do not
    for drawing in DRAWINGS:
        together = choose(logits, drawing, keys).tokens
        alone = [choose(logits[row : row + 1], drawing, keys[row : row + 1]).tokens.item() for row in range(200)]
        assert together.tolist() == alone


def test_what_is_ruled_out_is_never_drawn():
    logits = torch.zeros(500, 4)
    logits[:, 1] = -torch.inf
    for drawing in (Drawing(), Drawing(1.0), Drawing(5.0, top_p=0.9), Drawing(1.0, top_k=3)):
        assert 1 not in choose(logits, drawing, step_keys(1, 500)).tokens.tolist()


def test_keys_are_of_the_seed_and_the_step():
    assert step_keys(5, 4) == step_keys(5, 9)[:4] and step_keys(5, 4) != step_keys(6, 4)
    assert len(set(step_keys(2**62, 1000))) == 1000 and all(abs(key) < 2**63 for key in step_keys(0, 100))
    assert np.array(step_keys(3, 1000)).astype(float).std() > 2**60
