"""Two temperatures, of human and of generated texts: by a double loop; equal ones are the plain loss."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mama_ray.objectives.contrastive import compute_contrastive_losses
from mama_ray.objectives.settings import ContrastiveConfig
from tests.objectives.test_contrastive import unit_features
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import (
    ToyEncoder,
    build_step,
    meta_loss_after_lookahead,
    random_batch,
    random_weight_net,
    weight_gradients,
)

HUMAN, GENERATED = 10.0, 4.0
BATCH = 6
IS_GENERATED = torch.tensor([False, True, True, False, True, False])
INVALID = torch.tensor([True, True, False, True, True, True])


def losses_of(values, scale: float = GENERATED, valid: Tensor | None = None, **rules) -> Tensor:
    config = ContrastiveConfig(generated_scale=scale, **rules)
    return compute_contrastive_losses(*values, config, valid=valid, is_generated=IS_GENERATED)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    video, text = unit_features(3, batch=BATCH)
    return video, text, torch.tensor(math.log(HUMAN), dtype=torch.float64)


def naive_losses(valid: Tensor) -> list[float]:
    """LaViLa's rule for each pair, straight from the definition."""
    video, text, _ = inputs()

    def logit(i: int, j: int) -> float:
        scales = {(0, 0): HUMAN, (1, 1): GENERATED}
        pair = (int(IS_GENERATED[i]), int(IS_GENERATED[j]))
        return scales.get(pair, math.sqrt(HUMAN * GENERATED)) * float(video[i] @ text[j])

    found = []
    for i in range(BATCH):
        known = [j for j in range(BATCH) if valid[j] or j == i]
        row = math.log(sum(math.exp(logit(i, j)) for j in known)) - logit(i, i)
        column = math.log(sum(math.exp(logit(j, i)) for j in known)) - logit(i, i)
        found.append(float(valid[i]) * (row + column) / 2)
    return found


@pytest.mark.parametrize("valid", [torch.ones(BATCH, dtype=torch.bool), INVALID], ids=["all valid", "some invalid"])
def test_losses_equal_a_naive_double_loop_whatever_the_chunk(valid):
    wanted = naive_losses(valid)
    for chunk_size in (0, 1, 4):
        assert losses_of(inputs(), valid=valid, chunk_size=chunk_size).tolist() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("rules", [{}, {"margin": 0.2, "close_negatives": "close_too"}, {"chunk_size": 4}])
def test_equal_temperatures_are_the_plain_loss(rules):
    values = tuple(value.requires_grad_() for value in inputs())
    ours = losses_of(values, HUMAN, INVALID, **rules)
    plain = compute_contrastive_losses(*values, ContrastiveConfig(**rules), valid=INVALID)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-13)
    gradients = [torch.autograd.grad(losses.square().sum(), values) for losses in (ours, plain)]
    for mine, theirs in list(zip(*gradients, strict=True))[:2]:  # the scale is another: that of human texts alone
        assert mine.any()
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("chunk_size", "num_micro_batches"), [(0, 3), (3, 1)])
def test_hypergradient_equals_the_second_order_graph(chunk_size, num_micro_batches):
    step = build_step(
        ToyEncoder(),
        random_weight_net(),
        objective=ContrastiveConfig(generated_scale=GENERATED, margin=0.2, chunk_size=chunk_size),
        num_micro_batches=num_micro_batches,
    )
    batch, meta_batch = random_batch(1, 8), random_batch(2, 5)
    meta_loss = meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True)
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    assert relative_error(weight_gradients(step, batch, meta_batch), list(reference)) < 1e-9


def test_another_loss_has_no_second_temperature():
    with pytest.raises(ValidationError, match="generated_scale is of loss softmax, not of sigmoid"):
        ContrastiveConfig(loss="sigmoid", generated_scale=10.0)
