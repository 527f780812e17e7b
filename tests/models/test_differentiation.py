"""Derivatives that the hypergradient needs: along a direction of parameters, and of gradients."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

STEP = 1e-5


@pytest.fixture
def direction(model):
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(p.shape, dtype=p.dtype, generator=generator) / p.numel() ** 0.5
        for name, p in model.named_parameters()
    }


def _features_at(model, direction, step, frames, token_ids):
    moved = {name: p.detach() + step * direction[name] for name, p in model.named_parameters()}
    return functional_call(model, moved, (frames, token_ids))


@pytest.fixture
def finite_difference(model, direction, frames, token_ids):
    forth, back = (_features_at(model, direction, step, frames, token_ids) for step in (STEP, -STEP))
    return [(f - b) / (2 * STEP) for f, b in zip(forth, back, strict=True)]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("grad_enabled", [False, True])
def test_dual_numbers_equal_finite_differences(
    model, direction, frames, token_ids, finite_difference, checkpointing, grad_enabled
):
    model.set_gradient_checkpointing(checkpointing)
    with torch.set_grad_enabled(grad_enabled), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p, direction[name]) for name, p in model.named_parameters()}
        features = functional_call(model, duals, (frames, token_ids))
        tangents = [forward_ad.unpack_dual(f).tangent for f in features]
    for ours, wanted in zip(tangents, finite_difference, strict=True):
        torch.testing.assert_close(ours.detach(), wanted, rtol=1e-6, atol=1e-8)


def test_func_jvp_equals_finite_differences(model, direction, frames, token_ids, finite_difference):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):
        _, tangents = jvp(lambda p: functional_call(model, p, (frames, token_ids)), (parameters,), (direction,))
    for ours, wanted in zip(tangents, finite_difference, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-8)


def test_double_backward_equals_finite_differences_of_the_gradient(model, direction, frames, token_ids):
    names = [name for name, _ in model.named_parameters() if name != "logit_scale"]

    def gradients(step, create_graph):
        moved = {name: (p.detach() + step * direction[name]).requires_grad_() for name, p in model.named_parameters()}
        video, text = functional_call(model, moved, (frames, token_ids))
        wanted = [moved[name] for name in names]
        loss = (10 * video @ text.T).logsumexp(dim=1).sum()
        return wanted, torch.autograd.grad(loss, wanted, create_graph=create_graph)

    with sdpa_kernel(SDPBackend.MATH):
        parameters, here = gradients(0.0, create_graph=True)
        inner = sum((g * direction[name]).sum() for g, name in zip(here, names, strict=True))
        hessian_times_direction = torch.autograd.grad(inner, parameters)
        (_, forth), (_, back) = (gradients(step, create_graph=False) for step in (STEP, -STEP))
    for ours, f, b in zip(hessian_times_direction, forth, back, strict=True):
        torch.testing.assert_close(ours, (f - b) / (2 * STEP), rtol=1e-5, atol=1e-6)
