"""The meta gradient averaged over meta steps: its coefficients, its mean and its noise."""

import pytest
import torch

from mama_ray.weighting.meta_average import MetaAverage
from tests.weighting.toys import ToyEncoder, build_step, random_batch, random_weight_net, weight_gradients

DECAY, NUM_DRAWS, NUM_FIRST = 0.6, 200, 10


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_an_average_has_coefficients_that_fall_by_the_decay_and_sum_to_one(decay):
    average, seen = MetaAverage({"x": torch.zeros(3)}, decay), []
    for number in range(6):
        gradient = torch.randn(3, generator=torch.Generator().manual_seed(number))
        seen.append(gradient.clone())
        average.average_({"x": gradient})
        coefficients = torch.tensor([decay ** (number - age) for age in range(number + 1)])
        expected = (coefficients[:, None] * torch.stack(seen)).sum(0) / coefficients.sum()
        torch.testing.assert_close(gradient, expected)


def hypergradients(decay: float) -> torch.Tensor:
    """Those of many meta batches at the same parameters, by draw."""
    step = build_step(ToyEncoder(), random_weight_net(), gradient_decay=decay)
    batch, found = random_batch(1, 8), []
    for draw in range(NUM_DRAWS):
        gradients = weight_gradients(step, batch, random_batch(1000 + draw, 4))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(found)


def test_averaged_hypergradients_have_the_mean_of_single_ones_and_a_quarter_of_their_variance():
    single, averaged = hypergradients(0.0), hypergradients(DECAY)
    expected = single[0].clone()
    for draw in range(1, 4):  # the hypergradient is linear in the meta gradient
        coefficients = torch.tensor([DECAY ** (draw - age) for age in range(draw + 1)], dtype=single.dtype)
        expected = (coefficients[:, None] * single[: draw + 1]).sum(0) / coefficients.sum()
        torch.testing.assert_close(averaged[draw], expected)
    noise = single.std(0).norm() / NUM_DRAWS**0.5  # of a mean
    assert (averaged.mean(0) - single.mean(0)).norm() < 0.5 * noise
    assert single.mean(0).norm() > 5 * noise
    share = averaged[NUM_FIRST:].var(0).sum() / single[NUM_FIRST:].var(0).sum()
    assert 0.18 < share < 0.33  # (1 - 0.6) / (1 + 0.6) = 0.25
