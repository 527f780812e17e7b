"""The learned curve of weight against loss; windows of steps of which nothing may be written or saved."""

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.training.diagnosis import StepWindow, weight_curve
from mama_ray.training.loop import StepRecord
from mama_ray.weighting.weight_net import Uniform, WeightNet, compute_sample_weights

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


def window_of(*steps: tuple[float, int], **norms: float) -> StepWindow:
    """A window of steps from 7 on, each with its loss and its number of usable clips; `norms` are those of the last."""
    window = StepWindow()
    for number, (loss, num_valid) in enumerate(steps):
        scalars = {"train/loss": torch.tensor(loss), "data/num_valid": torch.tensor(num_valid)}
        scalars |= {"train/gradient_norm": torch.tensor(1.0)}
        if number == len(steps) - 1:
            scalars |= {name.replace("__", "/"): torch.tensor(value) for name, value in norms.items()}
        is_valid = torch.ones(4, dtype=torch.bool)
        window.add(StepRecord(7 + number, torch.arange(4), torch.zeros(4), torch.zeros(4), scalars, None, is_valid))
    return window


def warnings_of(net: WeightNet | Uniform, losses: torch.Tensor, *, normalisation: str = "sum_global") -> dict[str, str]:
    """What is said of steps whose weights a weighting gives, the last two clips of each being unusable."""
    window = StepWindow(is_learned=isinstance(net, WeightNet))
    valid = torch.arange(len(losses)) < len(losses) - 2
    for number in range(3):
        weights = compute_sample_weights(net, losses, normalisation, valid=valid).detach()
        scalars = {"train/loss": losses.mean(), "data/num_invalid": torch.tensor(2)}
        window.add(StepRecord(number, torch.arange(4), losses * valid, weights, scalars, None, valid[:4]))
    return window.warnings(window.means())


def constant_net(kind: str) -> WeightNet:
    """A net that gives every loss the same weight: near 1, near 0, or by hidden units that no loss wakes."""
    net = WeightNet(8)
    with torch.no_grad():
        if kind == "dead":
            net.hidden.weight.fill_(-1.0)
            net.hidden.bias.fill_(-0.1)
        else:
            net.output.bias.fill_({"full": 30.0, "empty": -200.0}[kind])
    return net


@pytest.mark.parametrize("normalisation", ["sum_global", "none"])
@pytest.mark.parametrize("kind", ["full", "empty", "dead"])
def test_weights_that_are_all_alike_are_told(kind, normalisation):
    told = warnings_of(constant_net(kind), LOSSES, normalisation=normalisation)
    assert list(told) == ["alike"] and "saturated or dead" in told["alike"]


def test_alike_weights_are_nothing_to_tell_of_alike_losses_nor_of_a_weighting_that_learns_nothing():
    assert warnings_of(constant_net("dead"), 3.0 + 0.1 * LOSSES) == {}
    assert warnings_of(constant_net("dead"), 0.01 * LOSSES) == {}
    assert warnings_of(Uniform(), LOSSES) == {}
    net = WeightNet(8)
    with torch.no_grad():
        net.hidden.weight.fill_(1.0)
        net.output.weight.fill_(-0.1)
    assert warnings_of(net, LOSSES) == {}


def test_one_step_with_weights_that_differ_is_enough():
    window = StepWindow(is_learned=True)
    for number, weights in enumerate((torch.ones(101), LOSSES + 1.0)):
        window.add(StepRecord(number, torch.arange(4), LOSSES, weights, {}, None, torch.ones(4, dtype=torch.bool)))
    assert window.means() == {"weights/alike": 0.0}


def test_a_step_without_a_valid_clip_is_named():
    window_of((1.0, 4), (1.0, 1)).require_sound()
    StepWindow().require_sound()
    with pytest.raises(UserError, match="no clip of a whole batch can be used: got none at step 8"):
        window_of((1.0, 1), (0.0, 0), (1.0, 4)).require_sound()


def test_a_loss_that_is_no_number_is_told_with_advice_that_helps():
    with pytest.raises(UserError, match="train/loss at step 8: got nan") as refused:
        window_of((1.0, 4), (float("nan"), 4)).require_sound()
    assert "under another --run" in str(refused.value) and "lower optim.clip_norm" in str(refused.value)


@pytest.mark.parametrize("name", ["train__gradient_norm", "meta__hypergradient_norm", "meta__margin_gradient_norm"])
def test_a_gradient_that_is_no_number_is_told_before_a_loss_shows_it(name):
    window_of((1.0, 4), (1.0, 4), **{name: 2.0}).require_sound()
    with pytest.raises(UserError, match=f"{name.replace('__', '/')} at step 8: got nan"):
        window_of((1.0, 4), (1.0, 4), **{name: float("nan")}).require_sound()
