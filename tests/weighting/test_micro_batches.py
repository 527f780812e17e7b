"""Micro-batches of the training and the meta batch: the unsplit step to rounding, a micro-batch's activations."""

import pytest
import torch

from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.features import split_batch
from mama_ray.weighting.hypergradient import directional_derivatives
from tests.weighting.toys import ToyEncoder, build_step, random_batch, random_weight_net, weight_gradients

BATCH, META_BATCH = 11, 7


def outcome_of(num_micro_batches: int, arrangement: str, method: str) -> dict[str, torch.Tensor]:
    """Everything that a step gives: losses, weights, c_i along one direction, phi's and theta's gradients."""
    step = build_step(
        ToyEncoder(),
        random_weight_net(),
        objective=ContrastiveConfig(margin=0.2),
        num_micro_batches=num_micro_batches,
        arrangement=arrangement,
        hypergradient=method,
        weight_lr=0.5,
    )
    batch, meta_batch = random_batch(1, BATCH), random_batch(2, META_BATCH)
    batch.valid[4] = False
    generator = torch.Generator().manual_seed(0)
    direction = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in step.parameters.items()
    }
    derivatives = directional_derivatives(
        lambda values: step._functional_losses(values, batch), step.parameters, direction, method
    )
    phi = weight_gradients(step, batch, meta_batch)
    result = step.compute_gradients(batch, meta_batch, measure_lookahead=True)
    theta = [parameter.grad.flatten() for parameter in step.parameters.values()]
    return {
        "losses": result.losses,
        "weights": result.weights,
        "meta": torch.stack([result.scalars["meta/loss"], result.scalars["meta/loss_before_lookahead"]]),
        "derivatives": derivatives,
        "phi": torch.cat([gradient.flatten() for gradient in phi]),
        "theta": torch.cat(theta),
    }


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order", "finite_difference", "central_difference"])
@pytest.mark.parametrize("num_micro_batches", [3, 4, BATCH, BATCH + 5])
def test_micro_batches_equal_the_unsplit_step(arrangement, method, num_micro_batches):
    whole, split = (outcome_of(number, arrangement, method) for number in (1, num_micro_batches))
    rtol = 1e-5 if method.endswith("difference") else 1e-9
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=rtol, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
        assert value.abs().max() > 1e-4


class CountingEncoder(ToyEncoder):
    """Notes how many clips it sees at once with a graph, which is what activations are kept for."""

    def __init__(self):
        super().__init__()
        self.num_with_graph: list[int] = []

    def forward(self, frames, token_ids):
        if torch.is_grad_enabled():
            self.num_with_graph.append(len(frames))
        return super().forward(frames, token_ids)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize(("meta_size", "num_micro_batches"), [(4, 1), (40, 1), (7, 3), (40, 4), (2, 4)])
def test_no_graph_spans_more_clips_than_a_micro_batch(arrangement, meta_size, num_micro_batches):
    model = CountingEncoder()
    step = build_step(model, random_weight_net(), arrangement=arrangement, num_micro_batches=num_micro_batches)
    step.compute_gradients(random_batch(1, BATCH), random_batch(2, meta_size))
    assert max(model.num_with_graph) == -(-BATCH // num_micro_batches)
    assert sum(model.num_with_graph) >= BATCH + meta_size


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5, 9])
def test_split_batch_keeps_every_clip_in_order_and_evens_sizes_out(num_parts):
    parts = split_batch(random_batch(1, 5), num_parts)
    sizes = [len(part) for part in parts]
    assert torch.cat([part.rows for part in parts]).tolist() == list(range(5))
    assert len(parts) == min(num_parts, 5) and max(sizes) - min(sizes) <= 1
