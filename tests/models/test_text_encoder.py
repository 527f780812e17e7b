import pytest
import torch

from mama_ray.errors import UserError


def test_tokens_behind_end_of_text_do_not_change_the_feature(model, token_ids):
    other = token_ids.clone()
    for row, length in enumerate((3, 5, 7)):
        other[row, length:] = torch.arange(10 - length)
    assert not torch.equal(other, token_ids)
    torch.testing.assert_close(model.encode_text(other), model.encode_text(token_ids), rtol=1e-12, atol=1e-12)


def test_trimming_padding_does_not_change_the_feature(model, token_ids):
    whole = model.encode_text(token_ids)
    torch.testing.assert_close(model.encode_text(token_ids[:3, :7]), whole[:3], rtol=1e-12, atol=1e-12)


def test_every_token_before_end_of_text_changes_the_feature(model, token_ids):
    before = model.encode_text(token_ids)
    for row, length in enumerate((3, 5, 7, 10)):
        for position in range(length - 1):
            other = token_ids.clone()
            other[row, position] = (other[row, position] + 1) % 39
            after = model.encode_text(other)
            assert (after[row] - before[row]).abs().max() > 1e-4
            unchanged = [r for r in range(4) if r != row]
            torch.testing.assert_close(after[unchanged], before[unchanged], rtol=1e-12, atol=1e-12)


def test_more_tokens_than_positions_are_refused(model, token_ids):
    with pytest.raises(UserError, match="at most 10"):
        model.encode_text(torch.cat([token_ids, token_ids], dim=1))
