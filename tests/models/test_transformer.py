import pydantic
import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.models.attention import attend, causal_attention
from mama_ray.models.transformer import EncoderConfig, EncoderLayer, Mlp


def _loss(features: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    video, text = features
    return torch.nn.functional.cross_entropy(10 * video @ text.T, torch.arange(len(video)))


def test_mlp_equals_quick_gelu_written_out():
    torch.manual_seed(0)
    mlp = Mlp(6, 24).double()
    hidden = torch.randn(3, 6, dtype=torch.float64)
    inner = mlp.fc1(hidden)
    expected = mlp.fc2(inner * torch.sigmoid(1.702 * inner))
    torch.testing.assert_close(mlp(hidden), expected, rtol=1e-12, atol=1e-12)


def test_reading_one_token_equals_computing_all_and_picking_it():
    torch.manual_seed(0)
    layer = EncoderLayer(EncoderConfig(width=8, num_layers=1, num_heads=2)).double()
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    positions = torch.tensor([4, 4])  # the last token sees all, so the causal pattern needs no cut
    every = layer(hidden, causal_attention)
    torch.testing.assert_close(layer(hidden, attend, positions)[:, 0], every[:, 4], rtol=1e-12, atol=1e-12)


def test_checkpointing_changes_neither_features_nor_gradients(model, frames, token_ids):
    results = {}
    for enabled in (False, True):
        model.set_gradient_checkpointing(enabled)
        features = model(frames, token_ids)
        parameters = [p for name, p in model.named_parameters() if name != "logit_scale"]
        results[enabled] = [*features, *torch.autograd.grad(_loss(features), parameters)]
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*results.values(), strict=True))


def test_checkpointing_recomputes_with_the_parameters_of_a_functional_call(model, frames, token_ids):
    """The gradient at the lookahead must not be that of the layers' own, restored parameters."""
    results = {}
    for enabled in (False, True):
        model.set_gradient_checkpointing(enabled)
        lookahead = {name: (p + 0.05).detach().requires_grad_() for name, p in model.named_parameters()}
        loss = _loss(functional_call(model, lookahead, (frames, token_ids)))
        used = [p for name, p in lookahead.items() if name != "logit_scale"]
        results[enabled] = torch.autograd.grad(loss, used)
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*results.values(), strict=True))


def test_checkpointing_changes_no_second_derivative(model, frames, token_ids):
    parameters = [p for name, p in model.named_parameters() if name != "logit_scale"]
    results = {}
    for enabled in (False, True):
        model.set_gradient_checkpointing(enabled)
        with sdpa_kernel(SDPBackend.MATH):
            gradients = torch.autograd.grad(_loss(model(frames, token_ids)), parameters, create_graph=True)
            results[enabled] = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)
    for plain, recomputed in zip(*results.values(), strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-12, atol=1e-12)


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(pydantic.ValidationError, match="multiple of num_heads 3"):
        EncoderConfig(width=64, num_layers=1, num_heads=3)
