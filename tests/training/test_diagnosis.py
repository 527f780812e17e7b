"""The learned curve of weight against loss."""

import pytest
import torch

from mama_ray.training.diagnosis import weight_curve
from mama_ray.weighting.weight_net import Uniform, WeightNet

LOSSES = torch.linspace(0.0, 5.0, 101)


@pytest.mark.parametrize("standardise", [False, True])
def test_the_curve_passes_through_the_weights_of_the_batch(standardise):
    net = WeightNet(16, standardise=standardise)
    curve = weight_curve(net, LOSSES)
    weights = net(LOSSES) / net(LOSSES).mean()
    places = [round(loss * 20) for loss in curve["weights/curve_loss"]]
    found = torch.tensor(curve["weights/curve_weight"])
    # Every loss of the curve lies within half a step of one of the batch.
    torch.testing.assert_close(found, weights[places].detach(), atol=0.02, rtol=0.02)
    assert found.std() > 1e-3


def test_a_weighting_that_learns_nothing_has_no_curve():
    assert weight_curve(Uniform(), LOSSES) == {}
    assert weight_curve(WeightNet(4), None) == {}
