"""A margin learned on the meta-set: its gradient against the second-order graph, its slopes against autograd."""

import pytest
import torch
import torch.nn.functional as F

from mama_ray.objectives.objective import MARGIN, ContrastiveObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.weighting.dials import Dial, without_margin
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import AnswerLoss, ToyEncoder, build_step, random_batch, random_weight_net

OBJECTIVES = {
    "softmax": ContrastiveConfig(margin=0.2),
    "chunks": ContrastiveConfig(margin=-0.1, chunk_size=3, obtuse_positives="always"),
    "sigmoid": ContrastiveConfig(loss="sigmoid", margin=0.1, direction_reduction="sum"),
    "two_scales": ContrastiveConfig(margin=0.1, generated_scale=3.0),
}


def losses_by_hand(config: ContrastiveConfig, outputs, batch, margins: torch.Tensor) -> torch.Tensor:
    """The losses from their definitions, by angles."""
    cosine = (outputs.video @ outputs.text.T).clamp(-1, 1)
    takes = cosine.diagonal() >= 0 if config.obtuse_positives == "acute_only" else torch.ones(len(cosine)).bool()
    cosine = (cosine.arccos() - torch.diag(torch.where(takes, margins, 0.0))).cos()
    log_scale = outputs.logit_scale.expand(len(cosine))
    if config.generated_scale is not None:
        fixed = torch.full_like(log_scale, config.generated_scale).log()
        log_scale = torch.where(batch.targets["is_generated"], fixed, log_scale)
    logits = ((log_scale[:, None] + log_scale[None, :]) / 2).exp() * cosine
    if config.loss == "sigmoid":
        signs = 2 * torch.eye(len(cosine)) - 1
        pairs = -F.logsigmoid(signs * (logits + outputs.logit_bias))
        both = pairs.sum(0) + pairs.sum(1)
    else:
        both = -logits.log_softmax(0).diagonal() - logits.log_softmax(1).diagonal()
    return both if config.direction_reduction == "sum" else both / 2


def model_for(config: ContrastiveConfig) -> FeatureModel:
    return FeatureModel(ToyEncoder(), logit_bias=-2.0 if config.loss == "sigmoid" else None)


def outputs_at(step, parameters, batch):
    return torch.func.functional_call(step.model, parameters, (batch,))


def randomise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_slopes_are_those_of_autograd(name):
    config, batch = OBJECTIVES[name], random_batch(1, 8)
    batch.valid[3] = False
    outputs = model_for(config)(batch)
    margins = torch.linspace(-0.3, 0.4, 8, dtype=torch.float64, requires_grad=True)
    batch.targets[MARGIN] = margins
    objective = ContrastiveObjective(config)
    losses = objective(outputs, batch)
    jacobian = torch.stack([torch.autograd.grad(loss, margins, retain_graph=True)[0] for loss in losses])
    torch.testing.assert_close(torch.diag(jacobian.diagonal()), jacobian)  # a margin is its sample's alone
    torch.testing.assert_close(objective.margin_slopes(outputs, batch), jacobian.diagonal(), rtol=1e-9, atol=1e-12)
    assert (jacobian.diagonal() != 0).sum() >= 4


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order", "central_difference", "finite_difference"])
@pytest.mark.parametrize("kind", ["scalar", "per_sample"])
def test_the_gradient_of_a_margin_equals_the_second_order_graph(kind, method, arrangement):
    check_against_the_graph("softmax", {"margin": kind, "hypergradient": method, "arrangement": arrangement})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_exact_for_every_loss_with_a_margin(name):
    check_against_the_graph(name, {"margin": "per_sample"})
    check_against_the_graph(name, {"margin": "scalar"}, num_micro_batches=3)


@pytest.mark.parametrize("kind", ["uniform", "focal"])
def test_a_margin_is_learned_whatever_the_weights_are(kind):
    check_against_the_graph("softmax", {"margin": "per_sample"}, config=WeightingConfig(kind=kind))


def check_against_the_graph(
    name: str, meta: dict[str, str], *, num_micro_batches: int = 1, config: WeightingConfig | None = None
) -> None:
    objective, net = OBJECTIVES[name], random_weight_net() if config is None else None
    step = build_step(
        model_for(objective), net, objective=objective, weighting_config=config, num_micro_batches=num_micro_batches,
        **meta,
    )  # fmt: skip
    assert step.dials is not None and step.is_meta_step(0)
    dial = step.dials.module[MARGIN]
    randomise(dial)
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    outputs = outputs_at(step, step.parameters, batch)
    plain = losses_by_hand(objective, outputs, batch, torch.zeros(8, dtype=torch.float64))
    margins = dial(plain)
    assert margins.abs().max() < 0.5 and (meta["margin"] == "scalar" or margins.std() > 1e-3)
    losses = losses_by_hand(objective, outputs, batch, margins)
    weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
    gradients = torch.autograd.grad((weights * losses).sum(), list(step.parameters.values()), create_graph=True)
    ahead = {
        key: value - step.meta.inner.lr * gradient
        for (key, value), gradient in zip(step.parameters.items(), gradients, strict=True)
    }
    of_meta = outputs_at(step, ahead, meta_batch)
    meta_loss = losses_by_hand(objective, of_meta, meta_batch, torch.zeros(4, dtype=torch.float64)).mean()
    learned = [*dial.parameters(), *step.weighting.parameters()]
    reference = torch.autograd.grad(meta_loss, learned)
    result = step.compute_gradients(batch, meta_batch)
    torch.testing.assert_close(result.scalars["meta/loss"], meta_loss.detach())
    torch.testing.assert_close(result.losses, losses.detach())
    tolerance = {"central_difference": 1e-5, "finite_difference": 1e-4}.get(meta.get("hypergradient", ""), 1e-6)
    for part, wanted in ((list(dial.parameters()), reference), (list(step.weighting.parameters()), ())):
        wanted = reference[: len(part)] if wanted else reference[len(learned) - len(part) :]
        if part:
            assert relative_error([value.grad for value in part], list(wanted)) < tolerance
    assert result.scalars["meta/margin_gradient_norm"] > 0


def test_a_scalar_margin_that_has_not_moved_is_the_fixed_one():
    gradients = []
    for meta in ({}, {"margin": "scalar"}):
        step = build_step(ToyEncoder(), random_weight_net(), objective=ContrastiveConfig(margin=0.2), **meta)
        step.compute_gradients(random_batch(1, 8))
        gradients.append([value.grad.clone() for value in step.parameters.values()])
    assert relative_error(*gradients) < 1e-6  # a float32 number in the one, a float64 one in the other


def test_a_margin_moves_down_the_meta_loss_and_stays_within_its_limit():
    for kind in ("scalar", "per_sample"):
        step = build_step(
            ToyEncoder(), weighting_config=WeightingConfig(kind="uniform"), margin=kind, margin_lr=0.05,
            margin_limit=0.3, objective=ContrastiveConfig(margin=0.05),
        )  # fmt: skip
        batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
        found = [step.compute_gradients(batch, meta_batch).scalars for _ in range(25)]
        assert found[-1]["meta/loss"] < found[0]["meta/loss"]
        margins = [float(scalars["meta/margin"]) for scalars in found]
        assert margins[0] == pytest.approx(0.05, abs=1e-6) and 0.01 < abs(margins[-1] - 0.05) < 0.35


def test_the_faithful_step_has_the_margin_of_after_the_meta_step():
    step = build_step(
        ToyEncoder(), random_weight_net(), margin="scalar", margin_lr=0.5, arrangement="faithful"
    )  # fmt: skip
    batch = random_batch(1, 8)
    result = step.compute_gradients(batch, random_batch(2, 4))
    outputs = outputs_at(step, step.parameters, batch)
    after = step.dials.module[MARGIN](result.losses).detach()
    assert (after - 0.2).abs().max() > 1e-2
    losses = losses_by_hand(OBJECTIVES["softmax"], outputs, batch, after)
    wanted = torch.autograd.grad((result.weights * losses).sum(), list(step.parameters.values()))
    assert relative_error([value.grad for value in step.parameters.values()], list(wanted)) < 1e-9


def test_a_margin_goes_with_a_task():
    step = build_step(ToyEncoder(), random_weight_net(), margin="scalar", task=AnswerLoss(), eta=2.0)
    scalars = step.compute_gradients(random_batch(1, 8), random_batch(2, 4)).scalars
    assert scalars["meta/margin_gradient_norm"] > 0 and scalars["meta/hypergradient_norm"] > 0


def test_a_small_net_of_the_loss_starts_where_it_is_told():
    for kind in ("scalar", "per_sample"):
        values = Dial(kind, low=-0.5, high=0.5, start=0.2)(torch.linspace(0, 5, 6))
        torch.testing.assert_close(values, torch.full((6,), 0.2))
    assert without_margin(ContrastiveConfig(margin=0.2)).config.margin == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective": {"loss": "max_margin"}}, "got objective.loss max_margin"),
        ({"objective": {"margin": 0.1, "close_negatives": "close_too"}}, "wanted untouched"),
        ({"objective": {"margin": 0.6}}, "wanted less than meta.margin_limit = 0.5"),
        ({"weighting": {"learner": "joint"}}, "wanted meta"),
        ({"task": {"kind": "question_answering", "contrast": False}}, "got task.contrast false"),
        (
            {"task": {"kind": "question_answering"}, "weighting": {"weighted_term": "each"}},
            "got weighting.weighted_term each",
        ),
    ],
)
def test_a_margin_that_cannot_be_learned_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        TrainJob.model_validate(settings | {"meta": {"margin": "scalar"}})


def test_a_run_with_a_learned_margin_needs_a_meta_set():
    assert TrainJob(weighting=WeightingConfig(kind="uniform"), meta=MetaConfig(margin="scalar")).is_meta_learned
    assert not TrainJob(weighting=WeightingConfig(kind="uniform")).is_meta_learned
