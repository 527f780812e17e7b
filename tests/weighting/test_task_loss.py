"""A task loss beside the contrastive one: the sum is what weights see, and its hypergradient is exact."""

import pytest
import torch

from mama_ray.objectives.contrastive import compute_contrastive_losses
from mama_ray.objectives.objective import Features, join_outputs, split_outputs
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.features import FeatureModel, encode_functionally, unwrap
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import (
    AnswerLoss,
    HeadLoss,
    HeadModel,
    ToyEncoder,
    build_step,
    meta_loss_after_lookahead,
    random_batch,
    random_weight_net,
    weight_gradients,
)

ETA, MARGIN = 3.0, 0.2


def step_of(**options):
    contrastive = ContrastiveConfig(margin=MARGIN)
    return build_step(ToyEncoder(), random_weight_net(), objective=contrastive, task=AnswerLoss(), eta=ETA, **options)


def summed_losses(step, parameters, batch) -> torch.Tensor:
    """The sum, written out: nothing of the objectives' classes."""
    model = unwrap(step.model)
    encoded = encode_functionally(model, parameters, batch, num_micro_batches=1, autocast=step.autocast)
    video, text, scale = encoded.video, encoded.text, encoded.logit_scale
    contrastive = compute_contrastive_losses(video, text, scale, ContrastiveConfig(margin=MARGIN), valid=batch.valid)
    logits = scale.exp() * (video + text) @ AnswerLoss().answers.T
    answers = logits.logsumexp(1) - logits[torch.arange(len(batch)), batch.targets["answer"]]
    return contrastive + ETA * answers * batch.valid


def second_order_reference(step, batch, meta_batch) -> list[torch.Tensor]:
    losses = summed_losses(step, step.parameters, batch)
    weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global", valid=batch.valid)
    gradients = torch.autograd.grad((weights * losses).sum(), list(step.parameters.values()), create_graph=True)
    ahead = {
        name: value - step.meta.inner.lr * gradient
        for (name, value), gradient in zip(step.parameters.items(), gradients, strict=True)
    }
    meta_loss = summed_losses(step, ahead, meta_batch).mean()
    return list(torch.autograd.grad(meta_loss, list(step.weighting.parameters())))


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_hypergradient_of_the_sum_equals_the_second_order_graph(method, arrangement, num_micro_batches):
    step = step_of(hypergradient=method, arrangement=arrangement, num_micro_batches=num_micro_batches)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    batch.valid[3] = False
    reference = second_order_reference(step, batch, meta_batch)
    assert relative_error(weight_gradients(step, batch, meta_batch), reference) < 1e-9
    alone = weight_gradients(build_step(ToyEncoder(), random_weight_net()), batch, meta_batch)
    assert relative_error(alone, reference) > 0.1  # the task has a say


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_step_sees_the_sum_and_leaves_its_gradient(num_micro_batches):
    step = step_of(num_micro_batches=num_micro_batches)
    batch = random_batch(1, 8)
    batch.valid[3] = False
    result = step.compute_gradients(batch)
    losses = summed_losses(step, step.parameters, batch)
    torch.testing.assert_close(result.losses, losses.detach(), rtol=1e-12, atol=0)
    assert result.losses[3] == 0
    wanted = torch.autograd.grad((result.weights * losses).sum(), list(step.parameters.values()))
    for parameter, gradient in zip(step.parameters.values(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_hypergradient_through_a_head_equals_the_second_order_graph(method, arrangement, num_micro_batches):
    options = {"hypergradient": method, "arrangement": arrangement, "num_micro_batches": num_micro_batches}
    step = build_step(HeadModel(), random_weight_net(), task=HeadLoss(), eta=0.7, **options)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    meta_loss = meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True)
    reference = list(torch.autograd.grad(meta_loss, list(step.weighting.parameters())))
    assert relative_error(weight_gradients(step, batch, meta_batch), reference) < 1e-9
    alone = weight_gradients(build_step(HeadModel(), random_weight_net(), eta=0.0), batch, meta_batch)
    assert relative_error(alone, reference) > 0.1


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_a_weight_multiplies_the_sum_in_the_gradient_of_a_head(num_micro_batches):
    step = build_step(HeadModel(), random_weight_net(), task=HeadLoss(), num_micro_batches=num_micro_batches)
    batch = random_batch(1, 8)
    result = step.compute_gradients(batch)
    losses = step._functional_losses(step.parameters, batch)
    wanted = torch.autograd.grad((result.weights * losses).sum(), list(step.parameters.values()))
    for name, gradient in zip(step.parameters, wanted, strict=True):
        torch.testing.assert_close(step.parameters[name].grad, gradient, rtol=1e-9, atol=1e-12, msg=name)
        assert gradient.abs().max() > 0, name


def test_a_head_that_the_objective_does_not_read_has_no_gradient_and_changes_nothing():
    gradients = []
    for model in (HeadModel(), FeatureModel(ToyEncoder())):
        step = build_step(model, random_weight_net())
        step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
        gradients.append({name: value.grad for name, value in step.parameters.items()})
    with_head, without = gradients
    for name, gradient in with_head.items():
        assert torch.equal(gradient, without.get(name, torch.zeros_like(gradient))), name


def test_split_gradients_of_outputs_join_to_the_whole_and_a_shared_one_goes_back_once():
    outputs = Features(torch.randn(5, 2), torch.randn(5, 2), torch.tensor(3.0), torch.tensor(-2.0))
    parts = split_outputs(outputs, [2, 2, 1])
    assert [len(part.video) for part in parts] == [2, 2, 1]
    assert [part.logit_scale.item() for part in parts] == [0.0, 0.0, 3.0]
    assert [part.logit_bias.item() for part in parts] == [0.0, 0.0, -2.0]
    joined = join_outputs(parts)
    assert torch.equal(joined.video, outputs.video) and torch.equal(joined.text, outputs.text)
