"""BERT's parts against transformers' with random weights."""

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.bert import BertEmbeddings, BertEncoder, BertMlmHead
from mama_ray.models.transformer import EncoderConfig

SIZE = EncoderConfig(width=24, num_layers=2, num_heads=3)


@pytest.fixture(scope="module")
def hf():
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96,
        max_position_embeddings=20,
    )  # fmt: skip
    model = BertForMaskedLM(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def token_ids():
    ids = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    ids[1, 5:] = ids[2, 2:] = 0
    return ids


def embeddings_of(hf) -> BertEmbeddings:
    ours = BertEmbeddings(24, vocab_size=50, num_positions=20, dropout=0.1).double().eval()
    ours.load_state_dict(hf.bert.embeddings.state_dict())
    return ours


@torch.no_grad()
def test_embeddings_encoder_and_head_equal_transformers(hf, token_ids):
    hidden = embeddings_of(hf)(token_ids)
    torch.testing.assert_close(hidden, hf.bert.embeddings(token_ids))
    encoder, head = BertEncoder(SIZE, 0.1).double().eval(), BertMlmHead(24, 50).double().eval()
    encoder.load_state_dict(hf.bert.encoder.state_dict())
    known = hf.cls.state_dict()
    assert set(known) - set(head.state_dict()) == {"predictions.bias"}  # the decoder's, a second time
    head.load_state_dict({key: known[key] for key in head.state_dict()})
    wanted = hf.bert(token_ids, attention_mask=(token_ids != 0).long()).last_hidden_state
    is_token = token_ids != 0
    ours = encoder(hidden, is_token)
    torch.testing.assert_close(ours[is_token], wanted[is_token])
    torch.testing.assert_close(head(ours[:, 0]), hf.cls(wanted)[:, 0])


def test_dropout_is_of_training_alone_and_repeats_with_the_generator(hf, token_ids):
    encoder, hidden = BertEncoder(SIZE, 0.3).double(), embeddings_of(hf)(token_ids).detach()

    def run():
        torch.manual_seed(7)
        return encoder(hidden, token_ids != 0)

    plain = encoder.eval()(hidden, token_ids != 0)
    assert torch.equal(plain, run())
    dropped = encoder.train()(hidden, token_ids != 0)
    assert not torch.allclose(plain, dropped) and torch.equal(run(), run())


def test_recomputed_layers_drop_what_they_dropped(hf, token_ids):
    encoder, hidden = BertEncoder(SIZE, 0.3).double().train(), embeddings_of(hf)(token_ids).detach()
    gradients = []
    for encoder.gradient_checkpointing in (False, True):
        torch.manual_seed(7)
        loss = encoder(hidden, token_ids != 0).square().sum()
        gradients.append(torch.autograd.grad(loss, list(encoder.parameters())))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_text_longer_than_the_positions_is_refused(hf):
    with pytest.raises(UserError, match="got 21, wanted at most 20"):
        embeddings_of(hf)(torch.ones(1, 21, dtype=torch.long))
