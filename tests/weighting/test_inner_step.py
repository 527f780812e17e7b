"""The inner step: where it lands, and the hypergradient through its whole derivative, that of Adam's moments and of a
relative step's norm among it."""

import copy

import pytest
import torch
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.weighting.inner_step import take_lookahead
from mama_ray.weighting.settings import InnerStepConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import ToyEncoder, build_step, random_batch, random_weight_net, weight_gradients

BETAS = (0.9, 0.98)
INNER_STEPS = {
    "relative": InnerStepConfig(lr=0.01, relative=True),
    "long relative": InnerStepConfig(lr=0.3, relative=True),
    "adam": InnerStepConfig(optimizer="adam", lr=0.01),
    "relative adam": InnerStepConfig(optimizer="adam", lr=0.03, relative=True),
}


def step_with(inner: InnerStepConfig, *, num_real_steps: int, **options) -> WeightedStep:
    """A step whose AdamW has taken `num_real_steps`, with layers that learn at other rates than the rest."""
    model = ToyEncoder()
    slow = list(model.video.parameters())
    own = {id(value) for value in slow}
    others = [value for value in model.parameters() if id(value) not in own]
    optimizer = torch.optim.AdamW([{"params": others}, {"params": slow}], lr=inner.lr, betas=BETAS, weight_decay=0.0)
    optimizer.param_groups[1]["lr_scale"] = 0.5
    optimizer.param_groups[1]["lr"] *= 0.5
    step = build_step(model, random_weight_net(), optimizer=optimizer, inner=inner, **options)
    for number in range(num_real_steps):
        step.compute_gradients(random_batch(10 + number, 8))
        optimizer.step()
    return step


def shares_of(step: WeightedStep) -> dict[str, float]:
    return {name: 0.5 if name.startswith("model.video.") else 1.0 for name in step.parameters}


def graph_of_adam(gradient: Tensor, state: dict) -> Tensor:
    """The step that Adam takes for a gradient, as a graph; elements that never moved have no slope."""
    number = float(state.get("step", 0)) + 1
    first = BETAS[0] * state.get("exp_avg", 0.0) + (1 - BETAS[0]) * gradient
    second = BETAS[1] * state.get("exp_avg_sq", 0.0) + (1 - BETAS[1]) * gradient**2
    is_moved = second > 0
    root = torch.where(is_moved, second / (1 - BETAS[1] ** number), 1.0).sqrt()
    return torch.where(is_moved, first / (1 - BETAS[0] ** number) / (root + 1e-8), 0.0)


def meta_loss_of_the_whole_map(step: WeightedStep, batch: ClipBatch, meta_batch: ClipBatch) -> Tensor:
    """phi -> L_meta(theta'(phi)) as a second-order graph, whatever the inner step depends on."""
    losses, inner = step._functional_losses(step.parameters, batch), step.meta.inner
    weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
    values = list(step.parameters.values())
    gradients = torch.autograd.grad((weights * losses).sum(), values, create_graph=True)
    steps = dict(zip(step.parameters, gradients, strict=True))
    if inner.optimizer == "adam":
        states = {name: step.optimizer.state.get(value, {}) for name, value in step.parameters.items()}
        steps = {name: graph_of_adam(gradient, states[name]) for name, gradient in steps.items()}
    steps = {name: shares_of(step)[name] * one for name, one in steps.items()}
    scale: Tensor | float = inner.lr
    if inner.relative:
        length = torch.cat([value.detach().flatten() for value in values]).norm()
        scale = inner.lr * length / torch.cat([one.flatten() for one in steps.values()]).norm()
    ahead = {name: value - scale * steps[name] for name, value in step.parameters.items()}
    bounds = step.model.model.logit_scale_bounds
    ahead["model.logit_scale"] = ahead["model.logit_scale"].clamp(*bounds)
    return step._functional_losses(ahead, meta_batch).mean()


@pytest.mark.parametrize("num_real_steps", [0, 3])
@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
@pytest.mark.parametrize("name", INNER_STEPS)
def test_hypergradient_equals_the_second_order_graph_of_the_whole_map(name, method, arrangement, num_real_steps):
    options = {"hypergradient": method, "arrangement": arrangement}
    step = step_with(INNER_STEPS[name], num_real_steps=num_real_steps, **options)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    meta_loss = meta_loss_of_the_whole_map(step, batch, meta_batch)
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    ours = weight_gradients(step, batch, meta_batch)
    assert relative_error(ours, list(reference)) < 1e-8
    assert all(gradient.abs().max() > 0 for gradient in ours)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
def test_no_inner_step_takes_more_passes_than_plain_sgd(arrangement):
    """Training, meta batch and directional pass forward; of these the first two backward, faithful the first twice."""
    counts = {}
    for name, inner in (INNER_STEPS | {"sgd": InnerStepConfig(lr=0.1)}).items():
        step, passes = step_with(inner, num_real_steps=0, arrangement=arrangement), []
        layer = step.model.model.text
        layer.register_forward_hook(lambda *_, to=passes: to.append("forward"))
        layer.register_full_backward_hook(lambda *_, to=passes: to.append("backward"))
        step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
        counts[name] = passes.count("forward"), passes.count("backward")
    assert set(counts.values()) == {(3, 2 if arrangement == "shared" else 3)}


@pytest.mark.parametrize("name", INNER_STEPS)
def test_hypergradient_is_exact_where_a_bound_holds_the_logit_scale(name):
    """What is held counts in the length of a relative step, and yet does not move."""
    step = step_with(INNER_STEPS[name], num_real_steps=3)
    scale = float(step.model.model.logit_scale.detach())
    step.model.model.logit_scale_bounds = (scale - 1e-9, scale + 1e-9)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    meta_loss = meta_loss_of_the_whole_map(step, batch, meta_batch)
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    assert relative_error(weight_gradients(step, batch, meta_batch), list(reference)) < 1e-8


@pytest.mark.parametrize("method", ["finite_difference", "central_difference"])
@pytest.mark.parametrize("name", INNER_STEPS)
def test_differences_are_near_the_second_order_graph_of_the_whole_map(name, method):
    """With tokens among those of the meta batch that no clip of training has ever had."""
    step = step_with(INNER_STEPS[name], num_real_steps=0, hypergradient=method)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    batch.token_ids.remainder_(6)
    assert meta_batch.token_ids.max() >= 6
    meta_loss = meta_loss_of_the_whole_map(step, batch, meta_batch)
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    assert relative_error(weight_gradients(step, batch, meta_batch), list(reference)) < 1e-4


def meta_loss_after_a_real_step(step: WeightedStep, batch: ClipBatch, meta_batch: ClipBatch) -> float:
    """The optimiser's own step, taken by a copy of the model."""
    twin = copy.deepcopy(step)
    losses = twin._functional_losses(twin.parameters, batch)
    weights = compute_sample_weights(twin.weighting, losses.detach(), "sum_global")
    twin.optimizer.zero_grad()
    (weights.detach() * losses).sum().backward()
    twin.optimizer.step()
    with torch.no_grad():
        return float(twin._functional_losses(twin.parameters, meta_batch).mean())


def test_hypergradient_with_adam_is_the_slope_of_the_meta_loss_after_torchs_own_step():
    step = step_with(INNER_STEPS["adam"], num_real_steps=3)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    ours, differences = weight_gradients(step, batch, meta_batch), []
    for parameter in step.weighting.parameters():
        estimate = torch.zeros_like(parameter)
        for position in range(parameter.numel()):
            losses = []
            for change in (1e-5, -2e-5):
                parameter.data.view(-1)[position] += change
                losses.append(meta_loss_after_a_real_step(step, batch, meta_batch))
            parameter.data.view(-1)[position] += 1e-5
            estimate.view(-1)[position] = (losses[0] - losses[1]) / 2e-5
        differences.append(estimate)
    assert relative_error(ours, differences) < 1e-5


@pytest.mark.parametrize("num_real_steps", [0, 3])
def test_adam_lookahead_lands_where_the_optimiser_does(num_real_steps):
    step = step_with(INNER_STEPS["adam"], num_real_steps=num_real_steps)
    generator = torch.Generator().manual_seed(3)
    gradients = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in step.parameters.items()
    }
    ahead = take_lookahead(
        step.parameters, gradients, step.meta.inner, optimizer=step.optimizer, named_parameters=step.parameters
    )
    for name, value in step.parameters.items():
        value.grad = gradients[name]
    step.optimizer.step()
    for name, value in step.parameters.items():
        assert torch.allclose(value, ahead.parameters[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_real_steps", [0, 3])
def test_adjoint_of_adam_in_float32_is_that_in_float64(num_real_steps):
    """At a run's first step the slope is eps / (|g| + eps)^2, far below the rounding of what it is a difference of."""
    adjoints = []
    for dtype in (torch.float32, torch.float64):
        generator = torch.Generator().manual_seed(3)
        value = torch.nn.Parameter(torch.zeros(100, dtype=dtype))
        optimizer = torch.optim.AdamW([value], betas=BETAS)
        for _ in range(num_real_steps):
            value.grad = torch.randn(100, generator=generator).to(dtype)
            optimizer.step()
        gradient = torch.randn(100, generator=generator).to(dtype)
        ahead = take_lookahead(
            {"x": value},
            {"x": gradient},
            InnerStepConfig(optimizer="adam", lr=1e-3),
            optimizer=optimizer,
            named_parameters={"x": value},
        )
        adjoints.append(ahead.adjoint({"x": torch.ones(100, dtype=dtype)})["x"].double())
    torch.testing.assert_close(adjoints[0], adjoints[1], rtol=1e-4, atol=1e-6 * float(adjoints[1].abs().max()))


def test_what_no_clip_has_ever_moved_has_no_slope():
    value = torch.nn.Parameter(torch.ones(3))
    gradient = torch.tensor([0.0, 1.0, -2.0])
    ahead = take_lookahead(
        {"x": value},
        {"x": gradient},
        InnerStepConfig(optimizer="adam", lr=1e-3),
        optimizer=torch.optim.AdamW([value]),
        named_parameters={"x": value},
    )
    adjoint = ahead.adjoint({"x": torch.ones(3)})["x"]
    assert adjoint[0] == 0 and (adjoint[1:] > 0).all() and ahead.parameters["x"][0] == 1


def test_relative_step_of_no_gradient_stays_where_it_is():
    step = build_step(ToyEncoder(), random_weight_net())
    gradients = {name: torch.zeros_like(value) for name, value in step.parameters.items()}
    ahead = take_lookahead(step.parameters, gradients, INNER_STEPS["relative"])
    assert all(torch.equal(ahead.parameters[name], value) for name, value in step.parameters.items())
    ones = {name: torch.ones_like(value) for name, value in gradients.items()}
    assert all(value.isfinite().all() for value in ahead.adjoint(ones).values())


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
