"""DistilBERT against transformers', by the same keys."""

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.distilbert import DistilBert, TransformerBlock
from mama_ray.models.transformer import EncoderConfig


@pytest.fixture
def theirs():
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(dim=24, n_heads=4, hidden_dim=48, n_layers=2, vocab_size=40, max_position_embeddings=12)
    return DistilBertModel(config).eval()


@pytest.fixture
def ours(theirs) -> DistilBert:
    config = EncoderConfig(width=24, num_layers=2, num_heads=4, mlp_ratio=2)
    model = DistilBert(config, vocab_size=40, num_positions=12).eval()
    model.load_state_dict(theirs.state_dict(), strict=True)
    return model


def test_block_equals_that_of_distilbert(ours, theirs):
    block, layer = ours.transformer.layer[0], theirs.transformer.layer[0]
    tokens = torch.randn(3, 4, 24)
    torch.testing.assert_close(block(tokens), layer(tokens), rtol=0, atol=1e-6)


def test_first_token_of_a_padded_batch_is_that_of_transformers(ours, theirs):
    ids = torch.randint(1, 40, (3, 9))
    ids[0, 4:], ids[1, 7:] = 0, 0
    wanted = theirs(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(ids), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours(ids[:1, :4]), wanted[:1], rtol=0, atol=1e-6)


def test_more_tokens_than_positions_are_refused(ours):
    with pytest.raises(UserError, match="got 13, wanted at most 12"):
        ours(torch.ones(1, 13, dtype=torch.long))


def test_dropout_drops_attention_and_the_feed_forward_part_in_training_alone():
    block, tokens = TransformerBlock(24, 4, 40, dropout=0.5), torch.randn(3, 4, 24)
    torch.manual_seed(0)
    first = block.train()(tokens)
    torch.manual_seed(0)
    assert torch.equal(block(tokens), first)
    assert not torch.equal(block(tokens), first)
    assert torch.equal(block.eval()(tokens), block(tokens))
