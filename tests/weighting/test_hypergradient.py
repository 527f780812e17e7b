"""The hypergradient: against the second-order graph, central differences of the whole map, and its identities."""

import pytest
import torch
from torch import nn

from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.hypergradient import directional_derivatives
from mama_ray.weighting.inner_step import take_lookahead
from mama_ray.weighting.settings import InnerStepConfig, WeightingConfig
from mama_ray.weighting.weight_net import compute_sample_weights
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


@pytest.mark.parametrize("num_real_steps", [0, 3])
def test_adam_map_is_the_derivative_of_an_adam_step_with_frozen_preconditioner(num_real_steps):
    model = ToyEncoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, betas=(0.9, 0.98), weight_decay=0.0)
    step = build_step(model, random_weight_net(), optimizer=optimizer, inner=InnerStepConfig(optimizer="adam", lr=0.05))
    for number in range(num_real_steps):
        optimizer.zero_grad()
        step.compute_gradients(random_batch(10 + number, 8))
        optimizer.step()
    gradients = {name: torch.randn_like(value) for name, value in step.parameters.items()}
    ahead = take_lookahead(
        step.parameters, gradients, step.meta.inner, optimizer=optimizer, named_parameters=step.parameters
    )
    before = {name: value.detach().clone() for name, value in step.parameters.items()}
    for name, value in step.parameters.items():
        value.grad = gradients[name].clone()
    optimizer.step()  # the real step from the same state and gradient lands where the lookahead did
    for name, value in step.parameters.items():
        assert torch.allclose(value, ahead.parameters[name], rtol=1e-9, atol=1e-12)
    # With the preconditioner frozen the map is linear: its adjoint is the slope of theta - theta' in the gradient.
    ones = {name: torch.ones_like(value) for name, value in gradients.items()}
    slope = ahead.adjoint(ones)
    for name in gradients:
        second = ahead.preconditioner[name]
        assert torch.allclose(slope[name], 0.05 * second)
        moved = before[name] - ahead.parameters[name]
        constant = moved - slope[name] * gradients[name]
        assert torch.allclose(constant + slope[name] * gradients[name], moved)


@pytest.mark.parametrize("num_real_steps", [0, 3])
@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
def test_hypergradient_with_adam_map_equals_the_second_order_graph(method, margin, num_real_steps):
    """The graph of a lookahead with the optimiser's moments as they are and the preconditioner frozen."""
    model = ToyEncoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.98))
    step = build_step(
        model,
        random_weight_net(),
        objective=ContrastiveConfig(margin=margin),
        optimizer=optimizer,
        hypergradient=method,
        inner=InnerStepConfig(optimizer="adam", lr=0.01),
    )
    for number in range(num_real_steps):
        step.compute_gradients(random_batch(10 + number, 8))
        optimizer.step()
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    losses = step._functional_losses(step.parameters, batch)
    weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
    values = list(step.parameters.values())
    gradients = torch.autograd.grad((weights * losses).sum(), values, create_graph=True)
    named = dict(zip(step.parameters, gradients, strict=True))
    frozen = take_lookahead(
        step.parameters,
        {name: gradient.detach() for name, gradient in named.items()},
        step.meta.inner,
        optimizer=optimizer,
        named_parameters=step.parameters,
    )
    ahead = {
        name: value.detach() - 0.01 * frozen.preconditioner[name] * (named[name] - named[name].detach())
        for name, value in frozen.parameters.items()
    }
    meta_loss = step._functional_losses(ahead, meta_batch).mean()
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    assert relative_error(weight_gradients(step, batch, meta_batch), list(reference)) < 1e-9


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


def test_relative_step_has_the_asked_length():
    step = build_step(ToyEncoder(), random_weight_net())
    gradients = {name: torch.randn_like(value) for name, value in step.parameters.items()}
    ahead = take_lookahead(step.parameters, gradients, InnerStepConfig(lr=0.01, relative=True))
    moved = torch.cat([(ahead.parameters[n] - v).detach().flatten() for n, v in step.parameters.items()])
    norm = torch.cat([v.detach().flatten() for v in step.parameters.values()]).norm()
    assert float(moved.norm() / norm) == pytest.approx(0.01, rel=1e-9)


def test_lookahead_clamps_the_logit_scale_and_blocks_its_direction():
    step = build_step(ToyEncoder(), random_weight_net())
    gradients = {name: torch.zeros_like(value) for name, value in step.parameters.items()}
    gradients["model.logit_scale"] = torch.tensor(-1e3, dtype=torch.float64)
    bounds = {"model.logit_scale": (0.0, 3.0)}
    ahead = take_lookahead(step.parameters, gradients, InnerStepConfig(lr=0.1), bounds=bounds)
    assert float(ahead.parameters["model.logit_scale"].detach()) == 3.0
    assert ahead.adjoint({"model.logit_scale": torch.tensor(1.0)})["model.logit_scale"] == 0.0


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
