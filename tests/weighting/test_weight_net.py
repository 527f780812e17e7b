"""Weightings: detached inputs, normalisation, the baselines' shapes, the zero-sum case."""

import pytest
import torch

from mama_ray.weighting.settings import WeightingConfig
from mama_ray.weighting.weight_net import (
    SelfPaced,
    WeightNet,
    build_weighting,
    compute_sample_weights,
    effective_sample_size,
)

LOSSES = torch.tensor([0.1, 2.0, 0.7, 5.0, 1.3])


def test_weight_net_has_the_papers_size():
    assert sum(parameter.numel() for parameter in WeightNet(64).parameters()) == 193
    assert sum(parameter.numel() for parameter in WeightNet(100).parameters()) == 301


def test_weight_input_is_detached():
    losses = LOSSES.clone().requires_grad_()
    weights = compute_sample_weights(WeightNet(8), losses, "sum_global")
    assert weights.requires_grad  # through the net's parameters
    assert torch.autograd.grad(weights.square().sum(), losses, allow_unused=True)[0] is None


@pytest.mark.parametrize("normalisation", ["sum_global", "none"])
def test_uniform_weights_equal_the_mean_loss(normalisation):
    weights = compute_sample_weights(build_weighting(WeightingConfig(kind="uniform")), LOSSES, normalisation)
    assert float((weights * LOSSES).sum()) == pytest.approx(float(LOSSES.mean()))


def test_l2_normalisation_is_the_releases_real_step():
    net = WeightNet(8)
    raw = net(LOSSES)
    weights = compute_sample_weights(net, LOSSES, "l2")
    torch.testing.assert_close(weights, raw / raw.norm() / len(LOSSES))


@pytest.mark.parametrize("normalisation", ["sum_global", "none", "l2"])
def test_zero_weight_sum_is_handled(normalisation):
    class Nothing(torch.nn.Module):
        def forward(self, losses):
            return torch.zeros_like(losses)

    weights = compute_sample_weights(Nothing(), LOSSES, normalisation)
    torch.testing.assert_close(weights, torch.full_like(LOSSES, 1 / len(LOSSES)))


def test_padding_does_not_change_weights():
    """An unreadable clip carries no weight and leaves the others' weights as if it were not in the batch."""
    valid = torch.tensor([True, False, True, True, False])
    for config in (WeightingConfig(), WeightingConfig(kind="self_paced"), WeightingConfig(standardise=True)):
        weighting = build_weighting(config)
        weights = compute_sample_weights(weighting, LOSSES, "sum_global", valid=valid)
        torch.testing.assert_close(weights[valid], compute_sample_weights(weighting, LOSSES[valid], "sum_global"))
        assert (weights[~valid] == 0).all()


def test_focal_weights_rise_with_the_loss():
    weights = build_weighting(WeightingConfig(kind="focal", focal_gamma=2.0))(LOSSES)
    torch.testing.assert_close(weights, (1 - torch.exp(-LOSSES)) ** 2)


def test_self_paced_weights_start_with_the_easy_and_end_with_all():
    weighting = SelfPaced(0.4)
    assert weighting(LOSSES).tolist() == [1, 0, 1, 0, 0]
    weighting.set_progress(1.0)
    assert weighting(LOSSES).tolist() == [1, 1, 1, 1, 1]


def test_self_paced_weights_of_no_samples_are_none():
    weighting = build_weighting(WeightingConfig(kind="self_paced"))
    valid = torch.zeros(3, dtype=torch.bool)
    assert compute_sample_weights(weighting, torch.ones(3), "sum_global", valid=valid).tolist() == [0, 0, 0]


def test_effective_sample_size_counts_equal_weights():
    assert float(effective_sample_size(torch.tensor([0.25, 0.25, 0.25, 0.25]))) == pytest.approx(4.0)
    assert float(effective_sample_size(torch.tensor([1.0, 0.0, 0.0]))) == pytest.approx(1.0)


def test_standardised_input_ignores_shift_and_scale_of_the_losses():
    net = WeightNet(8, standardise=True)
    torch.testing.assert_close(net(LOSSES), net(3 * LOSSES + 7), rtol=1e-4, atol=1e-5)
