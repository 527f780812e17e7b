"""Weights on the sum of contrast and task, or on the terms apart: what each multiplies, and its hypergradient."""

import pytest
import torch

from mama_ray.weighting.features import encode_functionally, unwrap
from mama_ray.weighting.settings import InnerStepConfig, WeightingConfig
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.test_task_loss import ETA
from tests.weighting.toys import (
    AnswerLoss,
    ToyEncoder,
    build_step,
    random_batch,
    random_weight_net,
    weight_gradients,
)

INNER_LR = 0.01  # small, so that the lookahead's logit scale stays within its bounds
TERMS = ("sum", "each", "contrastive", "task")


def step_of(term: str, **options):
    config, options = WeightingConfig(weighted_term=term), {"inner": InnerStepConfig(lr=INNER_LR)} | options
    return build_step(ToyEncoder(), random_weight_net(), weighting_config=config, task=AnswerLoss(), eta=ETA, **options)


def weighted_loss(step, term: str, parameters, batch) -> torch.Tensor:
    """The weighted loss of the batch, written out."""
    outputs = encode_functionally(unwrap(step.model), parameters, batch, num_micro_batches=1, autocast=step.autocast)
    contrastive, task = step.objective.terms(outputs, batch)

    def weigh(losses):
        return compute_sample_weights(step.weighting, losses.detach(), "sum_global", valid=batch.valid)

    mean = batch.valid.double() / batch.valid.sum()
    if term == "sum":
        return (weigh(contrastive + task) * (contrastive + task)).sum()
    of_contrastive = mean if term == "task" else weigh(contrastive)
    of_task = mean if term == "contrastive" else weigh(task)
    return (of_contrastive * contrastive + of_task * task).sum()


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_hypergradient_and_gradient_of_each_choice_equal_the_second_order_graph(term, num_micro_batches):
    step = step_of(term, num_micro_batches=num_micro_batches)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    batch.valid[3] = False
    values = list(step.parameters.values())
    gradients = torch.autograd.grad(weighted_loss(step, term, step.parameters, batch), values, create_graph=True)
    ahead = {name: v - INNER_LR * g for (name, v), g in zip(step.parameters.items(), gradients, strict=True)}
    outputs = encode_functionally(unwrap(step.model), ahead, meta_batch, num_micro_batches=1, autocast=step.autocast)
    low, high = unwrap(step.model).model.logit_scale_bounds
    assert low < ahead["model.logit_scale"] < high
    phi = torch.autograd.grad(step.objective(outputs, meta_batch).mean(), list(step.weighting.parameters()))
    assert relative_error(weight_gradients(step, batch, meta_batch), list(phi)) < 1e-9
    assert relative_error([value.grad for value in values], [gradient.detach() for gradient in gradients]) < 1e-9


@pytest.mark.parametrize("term", TERMS)
def test_a_result_tells_each_clips_sum_and_the_weight_that_it_has_in_effect(term):
    step, batch = step_of(term), random_batch(1, 8)
    batch.valid[3] = False
    result = step.compute_gradients(batch, random_batch(2, 4))
    plain = step_of("sum").compute_gradients(batch)
    torch.testing.assert_close(result.losses, plain.losses, rtol=1e-12, atol=0)
    scalars = result.scalars
    torch.testing.assert_close((result.weights * result.losses).sum(), scalars["train/loss"])
    torch.testing.assert_close(
        scalars["train/contrastive_loss"] + scalars["train/task_loss"], scalars["train/unweighted_loss"]
    )
    assert result.weights[3] == 0 and scalars["data/num_invalid"] == 1


@pytest.mark.parametrize("term", TERMS)
def test_uniform_weights_make_all_choices_the_mean_of_the_sum(term):
    config = WeightingConfig(kind="uniform", weighted_term=term)
    step = build_step(ToyEncoder(), weighting_config=config, task=AnswerLoss(), eta=ETA)
    result = step.compute_gradients(random_batch(1, 8))
    torch.testing.assert_close(result.scalars["train/loss"], result.losses.mean())


def test_eta_0_is_the_step_without_a_task_bit_for_bit():
    for options in ({}, {"arrangement": "faithful", "num_micro_batches": 3}):
        found = []
        for more in ({}, {"task": AnswerLoss(), "eta": 0.0}):
            step = build_step(ToyEncoder(), random_weight_net(), weight_lr=0.5, **options, **more)
            optimizer = torch.optim.AdamW(step.parameters.values(), lr=0.01)
            for number in range(3):
                result = step.compute_gradients(random_batch(number, 8), random_batch(100 + number, 4), step=number)
                optimizer.step()
            found.append([*step.parameters.values(), *step.weighting.parameters(), result.losses, result.weights])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
