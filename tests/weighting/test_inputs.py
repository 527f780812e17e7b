"""A weight net that sees more than the loss: its inputs by hand, its hypergradient against the second-order graph."""

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.objectives.objective import ContrastiveObjective, NoContrast, TrainingObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting import inputs
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.inputs import AverageLoss, describe_inputs
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from mama_ray.weighting.step import WeightedStep
from mama_ray.weighting.weight_net import WeightNet, compute_sample_weights
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import (
    INPUTS,
    AnswerLoss,
    ToyEncoder,
    build_step,
    random_batch,
    random_weight_net,
    weight_gradients,
    with_columns,
)

DECAY = INPUTS.average_decay
TABLE = torch.tensor([[0.0, 2.0], [1.0, 0.0], [5.0, torch.nan], [2.0, 4.0]])


def inputs_by_hand(step, batch, earlier: torch.Tensor | None = None) -> torch.Tensor:
    """The table of INPUTS from the definitions; `earlier` are the averages before this visit."""
    outputs = step.model(batch)
    angles = (outputs.video @ outputs.text.T).clamp(-1, 1).arccos()
    cosine = angles.cos().diagonal()
    own = torch.where(cosine >= 0, 0.2, 0.0)
    logits = outputs.logit_scale.exp() * (angles - torch.diag(own)).cos()
    v2t, t2v = (-way.log_softmax(dim=1).diagonal() for way in (logits, logits.T))
    loss = (v2t + t2v) / 2
    average = loss if earlier is None else DECAY * earlier + (1 - DECAY) * loss
    return torch.stack([loss, v2t, t2v, cosine, average, *batch.weight_inputs.double().T], dim=1).detach()


def read_by_hand(table: torch.Tensor) -> torch.Tensor:
    """What the net reads of it: losses raw, cosine and quality standardised, topics one-hot with one for all others."""
    cosine, quality, topic = table[:, 3], table[:, 5], table[:, 6]
    known = quality[~quality.isnan()]
    standard = (cosine - cosine.mean()) / (cosine.std(correction=0) + 1e-6)
    quality = torch.where(quality.isnan(), 0.0, (quality - known.mean()) / (known.std(correction=0) + 1e-6))
    of_topic = [topic == value for value in range(3)]
    one_hot = torch.stack([*of_topic, ~torch.stack(of_topic).any(0)], dim=1).double()
    return torch.cat([table[:, :3], standard[:, None], table[:, 4:5], quality[:, None], one_hot], dim=1)


def test_the_table_is_that_of_the_definitions_and_averages_over_visits():
    step, batch = (
        build_step(ToyEncoder(), random_weight_net(config=INPUTS), weighting_config=INPUTS),
        random_batch(1, 8),
    )
    earlier = None
    for visit in range(3):
        batch = with_columns(random_batch(1, 8), visit)
        expected = inputs_by_hand(step, batch, earlier)
        found = step.compute_gradients(batch).inputs
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-6, atol=1e-6)
        earlier = expected[:, 4]
        with torch.no_grad():
            for parameter in step.parameters.values():
                parameter.add_(0.1)
    net = step.weighting
    by_hand = net.output(net.hidden(read_by_hand(found)).relu())[:, 0].sigmoid()
    torch.testing.assert_close(net(found), by_hand)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order", "central_difference", "finite_difference"])
@pytest.mark.parametrize("normalisation", ["sum_global", "none"])
def test_hypergradient_of_a_net_with_many_inputs_equals_the_second_order_graph(method, arrangement, normalisation):
    config = INPUTS.model_copy(update={"normalisation": normalisation})
    net = random_weight_net(config=config)
    step = build_step(
        ToyEncoder(), net, weighting_config=config, hypergradient=method, arrangement=arrangement
    )  # fmt: skip
    batch, meta_batch = with_columns(random_batch(1, 8)), random_batch(2, 4)
    losses = step._functional_losses(step.parameters, batch)
    raw = net.output(net.hidden(read_by_hand(inputs_by_hand(step, batch))).relu())[:, 0].sigmoid()
    weights = raw / (raw.sum() if normalisation == "sum_global" else len(batch))
    gradients = torch.autograd.grad((weights * losses).sum(), list(step.parameters.values()), create_graph=True)
    ahead = {
        name: value - step.meta.inner.lr * gradient
        for (name, value), gradient in zip(step.parameters.items(), gradients, strict=True)
    }
    meta_loss = step._functional_losses(ahead, meta_batch).mean()
    reference = torch.autograd.grad(meta_loss, list(net.parameters()))
    ours = weight_gradients(step, batch, meta_batch)
    tolerance = 1e-5 if "difference" in method else 1e-6
    assert relative_error(ours, list(reference)) < tolerance
    assert all(gradient.abs().max() > 0 for gradient in ours)


def test_no_gradient_reaches_the_model_through_an_input():
    batch = with_columns(random_batch(1, 8))
    result = build_step(ToyEncoder(), random_weight_net(config=INPUTS), weighting_config=INPUTS).compute_gradients(
        batch
    )
    assert not result.inputs.requires_grad
    step = build_step(ToyEncoder(), random_weight_net(config=INPUTS), weighting_config=INPUTS)
    losses = step._functional_losses(step.parameters, batch)
    expected = torch.autograd.grad((result.weights * losses).sum(), list(step.parameters.values()))
    step.compute_gradients(batch)
    assert relative_error([value.grad for value in step.parameters.values()], list(expected)) < 1e-12


def test_unusable_clips_change_no_weight_and_no_average():
    config = INPUTS
    batch = with_columns(random_batch(1, 8))
    batch.valid[[2, 5]] = False
    step = build_step(ToyEncoder(), random_weight_net(config=config), weighting_config=config)
    result = step.compute_gradients(batch)
    assert not result.weights[~batch.valid].any()
    torch.testing.assert_close(result.weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    kept = step.average_loss.state_dict()["average_loss"]
    assert kept[[2, 5]].isnan().all() and not kept[[0, 1, 3, 4, 6, 7]].isnan().any() and kept[8:].isnan().all()
    alone = compute_sample_weights(step.weighting, result.losses[batch.valid], "sum_global",
                                   inputs=result.inputs[batch.valid])  # fmt: skip
    torch.testing.assert_close(result.weights[batch.valid], alone.detach())


def test_the_last_visit_of_a_sample_counts_where_a_batch_has_it_twice():
    average = AverageLoss(4, 0.5)
    everyone = torch.ones(3, dtype=torch.bool)
    assert average.visit_(torch.tensor([2, 0, 2]), torch.tensor([4.0, 1.0, 8.0]), everyone).tolist() == [8.0, 1.0, 8.0]
    assert average.visit_(torch.tensor([2, 2, 2]), torch.tensor([4.0, 6.0, 0.0]), everyone).tolist() == [4.0] * 3
    assert average.visit_(torch.tensor([0, 1, 1]), torch.tensor([3.0, 6.0, 7.0]), everyone).tolist() == [2.0, 7.0, 7.0]
    assert average.state_dict()["average_loss"].tolist()[:3] == [2.0, 7.0, 4.0]
    with pytest.raises(ValueError, match="row 4 of a batch, where average_loss has 4 samples"):
        average.visit_(torch.tensor([4]), torch.ones(1), torch.ones(1, dtype=torch.bool))


def test_more_clips_than_an_average_may_have_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(inputs, "MAX_AVERAGED", 3)
    with pytest.raises(UserError, match="4 bytes per clip.*4 clips.*at most 3.*leave average_loss out"):
        AverageLoss(4, 0.5)


def test_standardised_columns_ignore_shift_and_scale_and_a_constant_says_nothing():
    config = WeightingConfig(inputs=("a", "b"))
    net = WeightNet(8, inputs=describe_inputs(config))
    moved = TABLE * torch.tensor([3.0, 0.5]) + 7
    torch.testing.assert_close(net(TABLE), net(moved), rtol=1e-4, atol=1e-5)
    flat = torch.full((4, 2), 5.0)
    assert net(flat).std() == 0 and net(flat).isfinite().all()
    unknown = torch.full((4, 2), torch.nan)
    assert net(unknown).isfinite().all()


def test_a_net_of_the_loss_alone_is_the_one_of_before():
    assert describe_inputs(WeightingConfig()) == ()
    step = build_step(ToyEncoder(), weighting_config=WeightingConfig())
    assert step.compute_gradients(random_batch(1, 8)).inputs is None and step.average_loss is None
    assert step.weighting.state_dict()["hidden.weight"].shape == (64, 1)


def test_directions_of_every_loss_sum_to_it():
    for loss in ("softmax", "sigmoid", "max_margin", "adaptive_max_margin", "multi_similarity"):
        for chunk_size in (0, 3):
            config = ContrastiveConfig(loss=loss, chunk_size=chunk_size, direction_reduction="sum")
            objective = ContrastiveObjective(config)
            batch = random_batch(1, 8)
            outputs = FeatureModel(ToyEncoder(), logit_bias=-2.0)(batch)
            torch.testing.assert_close(sum(objective.directions(outputs, batch)), objective(outputs, batch))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inputs": ()}, "at least one name"),
        ({"inputs": ("loss", "loss")}, "each once"),
        ({"inputs": ("cosine",), "kind": "focal"}, "wanted learned"),
        ({"inputs": ("loss", "cosine"), "weighted_term": "each"}, "wanted sum"),
        ({"inputs": ("loss", "topic")}, "topic is a category: give its values"),
        ({"categories": {"topic": ("a",)}}, "topic is none of the inputs loss"),
        ({"inputs": ("topic",), "categories": {"topic": ()}}, "at least one value"),
        ({"inputs": ("topic",), "categories": {"topic": tuple(map(str, range(300)))}}, "at most 256"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        WeightingConfig(**changes)


def test_a_direction_of_no_contrast_and_missing_columns_are_refused():
    config = WeightingConfig(inputs=("loss_video_to_text",))
    with pytest.raises(UserError, match="asks for a direction of the contrast"):
        WeightedStep(
            FeatureModel(ToyEncoder()), random_weight_net(config=config), weighting_config=config, meta=MetaConfig(),
            objective=TrainingObjective(NoContrast(), AnswerLoss()),
        )  # fmt: skip
    step = build_step(ToyEncoder(), random_weight_net(config=INPUTS), weighting_config=INPUTS)
    with pytest.raises(ValueError, match="got none, wanted columns quality, topic"):
        step.compute_gradients(random_batch(1, 8))
