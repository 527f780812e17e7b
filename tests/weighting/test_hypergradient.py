"""The hypergradient: against the second-order graph, central differences of the whole map, and its identities."""

import pytest
import torch
from torch import nn

from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.hypergradient import directional_derivatives
from mama_ray.weighting.settings import InnerStepConfig, WeightingConfig
from tests.weighting.toys import (
    ToyEncoder,
    build_step,
    meta_loss_after_lookahead,
    random_batch,
    random_weight_net,
    weight_gradients,
)

METHODS = ("forward_mode", "second_order", "central_difference", "finite_difference")


def relative_error(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    our, their = torch.cat([t.flatten() for t in ours]), torch.cat([t.flatten() for t in theirs])
    return float((our - their).norm() / their.norm())


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("normalisation", ["sum_global", "none", "l2"])
def test_hypergradient_equals_the_second_order_graph(margin, method, arrangement, normalisation):
    step = build_step(
        ToyEncoder(),
        random_weight_net(),
        objective=ContrastiveConfig(margin=margin),
        weighting_config=WeightingConfig(normalisation=normalisation),
        hypergradient=method,
        arrangement=arrangement,
    )
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    reference = torch.autograd.grad(
        meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True), list(step.weighting.parameters())
    )
    ours = weight_gradients(step, batch, meta_batch)
    assert relative_error(ours, list(reference)) < 1e-9
    assert all(gradient.abs().max() > 0 for gradient in ours)


@pytest.mark.parametrize("method", METHODS)
def test_hypergradient_equals_finite_difference(method):
    """Central differences of phi -> L_meta(theta'(phi)); non-zero, so the meta step has an effect."""
    step = build_step(ToyEncoder(), random_weight_net(), hypergradient=method)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    ours = weight_gradients(step, batch, meta_batch)
    differences = []
    for parameter in step.weighting.parameters():
        estimate = torch.zeros_like(parameter)
        for position in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[position] += sign * 1e-5
                values.append(meta_loss_after_lookahead(step, batch, meta_batch, differentiable=False).detach())
                with torch.no_grad():
                    parameter.view(-1)[position] -= sign * 1e-5
            estimate.view(-1)[position] = (values[0] - values[1]) / 2e-5
        differences.append(estimate)
    tolerance = {"finite_difference": 5e-2, "central_difference": 1e-3}.get(method, 1e-5)
    assert relative_error(ours, differences) < tolerance
    assert all(difference.abs().max() > 0 for difference in differences)


def test_forward_mode_equals_second_order_on_a_decomposable_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    inputs, labels = torch.randn(10, 4, dtype=torch.float64), torch.randint(0, 3, (10,))
    parameters = dict(model.named_parameters())

    def loss_fn(values):
        logits = torch.func.functional_call(model, dict(values), (inputs,))
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    direction = {name: torch.randn_like(value) for name, value in parameters.items()}
    exact = directional_derivatives(loss_fn, parameters, direction, "second_order")
    assert torch.allclose(directional_derivatives(loss_fn, parameters, direction, "forward_mode"), exact, rtol=1e-10)
    naive = torch.stack(
        [
            sum(
                (g * direction[name]).sum()
                for name, g in zip(parameters, torch.autograd.grad(loss, model.parameters()), strict=True)
            )
            for loss in [loss_fn(parameters)[i] for i in range(10)]
        ]
    )
    assert torch.allclose(exact, naive, rtol=1e-10)


def test_zero_inner_lr_gives_a_zero_hypergradient():
    step = build_step(ToyEncoder(), random_weight_net(), inner=InnerStepConfig(lr=0.0))
    gradients = weight_gradients(step, random_batch(1, 8), random_batch(2, 4))
    assert all((gradient == 0).all() for gradient in gradients)


def test_swapping_two_samples_swaps_their_derivatives():
    step = build_step(ToyEncoder(), random_weight_net())
    batch, order = random_batch(1, 6), torch.tensor([0, 4, 2, 3, 1, 5])
    swapped = type(batch)(batch.frames[order], batch.token_ids[order], batch.rows[order], batch.valid[order])
    direction = {name: torch.randn_like(value) for name, value in step.parameters.items()}
    of = [
        directional_derivatives(
            lambda p, b=b: step._functional_losses(p, b), step.parameters, direction, "forward_mode"
        )
        for b in (batch, swapped)
    ]
    assert torch.allclose(of[0][order], of[1], rtol=1e-10)


def test_lookahead_starts_from_current_parameters():
    model = ToyEncoder()
    step = build_step(model, random_weight_net())
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        step.compute_gradients(batch, meta_batch)
        optimizer.step()
    reference = torch.autograd.grad(
        meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True), list(step.weighting.parameters())
    )
    assert relative_error(weight_gradients(step, batch, meta_batch), list(reference)) < 1e-9
