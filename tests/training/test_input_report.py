"""What is told of a weight net with several inputs: its curves, its sensitivities, the mean weights of categories."""

import pytest
import torch

from mama_ray.training.diagnosis import StepWindow, weight_curve
from mama_ray.training.input_report import input_curves, mean_weights, sensitivities
from mama_ray.training.loop import StepRecord
from mama_ray.weighting.inputs import describe_inputs
from mama_ray.weighting.settings import WeightingConfig
from mama_ray.weighting.weight_net import WeightNet

CONFIG = WeightingConfig(inputs=("loss", "quality", "topic"), categories={"topic": ("how to", "b")})
TABLE = torch.stack([torch.linspace(0, 5, 60), torch.linspace(1, -1, 60) ** 3, torch.arange(60) % 4.0], dim=1)


def net_of(reads: dict[int, float]) -> WeightNet:
    """A net whose weight is sigmoid of a sum of these multiples of what it reads: loss, quality, three topics."""
    net = WeightNet(2, inputs=describe_inputs(CONFIG))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for column, factor in reads.items():
            net.hidden.weight[0, column], net.hidden.weight[1, column] = factor, -factor
        net.output.weight.copy_(torch.tensor([[1.0, -1.0]]))
    return net


def test_a_net_is_sensitive_to_what_it_reads_alone():
    found = sensitivities(net_of({1: 0.5}), TABLE)
    assert found["inputs/loss/sensitivity"] == found["inputs/topic/sensitivity"] == 0
    low, high = torch.tensor([-0.5, 0.5]).sigmoid()  # one deviation to either side, over the mean weight
    assert found["inputs/quality/sensitivity"] == pytest.approx(float(high - low) / 2 / 0.5, rel=0.01)
    of_topic = sensitivities(net_of({3: 2.0}), TABLE)
    assert of_topic["inputs/topic/sensitivity"] > 0.5 > of_topic["inputs/quality/sensitivity"] == 0


def test_a_curve_is_the_mean_weight_were_the_input_the_same_for_all():
    net = net_of({0: 0.4, 2: 1.0})
    curves = input_curves(net, TABLE)
    values, weights = curves["inputs/loss/curve_value"], curves["inputs/loss/curve_weight"]
    for value, weight in list(zip(values, weights, strict=True))[::7]:
        moved = TABLE.clone()
        moved[:, 0] = value
        assert weight == pytest.approx(float((net(moved).mean() / net(TABLE).mean()).detach()), rel=1e-5)
    assert weights[-1] > weights[0]
    assert max(curves["inputs/quality/curve_weight"]) == pytest.approx(min(curves["inputs/quality/curve_weight"]))
    assert "inputs/topic/curve_value" not in curves
    named = weight_curve(net, TABLE[:, 0], TABLE)
    assert named["weights/curve_loss"] == values and "inputs/loss/curve_value" not in named
    assert weight_curve(net, TABLE[:, 0]) == {}


def test_a_column_that_is_known_of_no_clip_has_no_curve_and_no_say():
    table = TABLE.clone()
    table[:, 1] = torch.nan
    net = net_of({1: 1.0})
    assert "inputs/quality/curve_value" not in input_curves(net, table)
    assert sensitivities(net, table)["inputs/quality/sensitivity"] < 0.3


def test_mean_weights_are_those_of_usable_clips_by_value():
    table = TABLE[:5].clone()
    table[4, 2] = torch.nan
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0, 5.0])
    found = mean_weights(describe_inputs(CONFIG), table, weights)
    assert found == {"inputs/topic/weight/how_to": 1.0, "inputs/topic/weight/b": 2.0, "inputs/topic/weight/other": 4.0}


def test_a_window_tells_of_inputs_where_there_are_any():
    net, window = net_of({3: 2.0}), StepWindow()
    weights = net(TABLE).detach()
    weights = weights / weights.sum()
    valid = torch.ones(60, dtype=torch.bool)
    for step in range(2):
        window.add(StepRecord(step, torch.arange(60), TABLE[:, 0], weights, {}, None, valid, TABLE))
    found = window.of_inputs(net)
    assert found["inputs/topic/weight/b"] > 1.3 > 1 > found["inputs/topic/weight/other"]
    assert found["inputs/topic/sensitivity"] > 0.5
    assert window.of_inputs(WeightNet(4)) == {} or WeightNet(4).inputs == ()
    assert StepWindow().of_inputs(net) == {}
