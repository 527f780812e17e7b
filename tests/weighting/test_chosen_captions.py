"""Losses of a clip's own text and a generated one: by hand, and their learned shares against the second-order graph."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mama_ray.data.classes.names import HAS_GENERATED
from mama_ray.objectives.objective import MARGIN, SHARE, ContrastiveObjective, PairedFeatures
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from mama_ray.weighting.weight_net import compute_sample_weights
from tests.weighting.test_dials import losses_by_hand, model_for, outputs_at, randomise
from tests.weighting.test_hypergradient import relative_error
from tests.weighting.toys import (
    INPUTS,
    ToyEncoder,
    build_step,
    random_batch,
    random_weight_net,
    with_columns,
    with_generated,
)

OBJECTIVES = {
    "softmax": ContrastiveConfig(margin=0.2, generated_share="learned"),
    "chunks": ContrastiveConfig(margin=-0.1, chunk_size=3, obtuse_positives="always", generated_share="learned"),
    "sigmoid": ContrastiveConfig(loss="sigmoid", margin=0.1, direction_reduction="sum", generated_share="learned"),
}
METHODS = ["forward_mode", "second_order", "central_difference", "finite_difference"]
SIZE = 8


def both_by_hand(config: ContrastiveConfig, outputs, batch, margins: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of the clips among their own texts, and among the generated ones with own texts where these lack."""
    told = replace(batch, targets=batch.targets)
    own = losses_by_hand(config, outputs, told, margins)
    generated = losses_by_hand(config, outputs._replace(text=outputs.generated), told, margins)
    return own, torch.where(batch.targets[HAS_GENERATED], generated, own)


def paired(size: int = SIZE):
    return with_columns(with_generated(random_batch(1, size)))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_fixed_share_mixes_the_losses_of_two_galleries_of_texts(name, share):
    config, batch = OBJECTIVES[name].model_copy(update={"generated_share": share}), paired()
    outputs = model_for(config)(batch)
    assert isinstance(outputs, PairedFeatures)
    own, generated = both_by_hand(config, outputs, batch, torch.full((SIZE,), config.margin, dtype=torch.float64))
    wanted = (1 - share) * own + share * generated
    objective = ContrastiveObjective(config)
    torch.testing.assert_close(objective(outputs, batch), wanted)
    assert ((own - generated).abs() > 1e-3).sum() == 6  # two of eight have one text
    if config.direction_reduction == "mean":
        torch.testing.assert_close(sum(objective.directions(outputs, batch)) / 2, wanted)


def test_a_share_of_none_is_the_plain_loss_to_the_last_bit():
    gradients = []
    for share in (None, 0.0):
        config = ContrastiveConfig(margin=0.2, generated_share=share)
        step = build_step(ToyEncoder(), random_weight_net(), objective=config)
        batch = random_batch(1, SIZE) if share is None else with_generated(random_batch(1, SIZE))
        result = step.compute_gradients(batch, random_batch(2, 4))
        gradients.append([result.losses, *(value.grad.clone() for value in step.parameters.values())])
        gradients[-1] += [value.grad.clone() for value in step.weighting.parameters()]
        assert (result.shares is None) == (share is None)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_a_clip_that_cannot_be_read_has_no_loss_and_is_nobodys_negative():
    config, batch = ContrastiveConfig(generated_share=0.5), with_generated(random_batch(1, SIZE))
    batch.valid[[0, 3]] = False
    outputs = model_for(config)(batch)
    found = ContrastiveObjective(config)(outputs, batch)
    kept = batch.valid.nonzero()[:, 0]
    alone = with_generated(random_batch(1, SIZE)).select(kept)
    of_kept = ContrastiveObjective(config)(model_for(config)(alone), alone)
    assert not found[~batch.valid].any()
    torch.testing.assert_close(found[kept], of_kept)


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_a_share_equals_the_second_order_graph(method, arrangement):
    check_against_the_graph("softmax", {"hypergradient": method, "arrangement": arrangement})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_exact_for_every_loss_in_micro_batches_and_with_a_learned_margin(name):
    check_against_the_graph(name, {}, num_micro_batches=3)
    check_against_the_graph(name, {"margin": "per_sample"})
    check_against_the_graph(name, {"margin": "scalar", "arrangement": "faithful"})


@pytest.mark.parametrize("config", [WeightingConfig(kind="uniform"), WeightingConfig(kind="focal"), INPUTS])
def test_a_share_is_learned_whatever_the_weights_are_made_of(config):
    check_against_the_graph("softmax", {}, config=config)


def check_against_the_graph(
    name: str, meta: dict[str, str], *, num_micro_batches: int = 1, config: WeightingConfig | None = None
) -> None:
    """theta' by its definition, with weights, margins and shares as functions of their nets, through a graph of second
    order; the meta loss is of own texts alone, and without a margin where that is learned."""
    objective = OBJECTIVES[name]
    net = random_weight_net(config=config) if config is None or config.kind == "learned" else None
    step = build_step(
        model_for(objective), net, objective=objective, weighting_config=config, num_micro_batches=num_micro_batches,
        **meta,
    )  # fmt: skip
    assert step.dials is not None and step.is_meta_step(0)
    for dial in step.dials.module.values():
        randomise(dial)
    if objective.direction_reduction == "sum":  # larger losses, which are not to saturate it
        torch.nn.init.normal_(step.dials.module[SHARE].hidden.weight, std=0.03)
    batch, meta_batch = paired(), random_batch(2, 4)
    batch.valid[5] = True
    outputs = outputs_at(step, step.parameters, batch)
    fixed = torch.full((SIZE,), objective.margin, dtype=torch.float64)
    learns_margin = MARGIN in step.dials.module
    plain = both_by_hand(objective, outputs, batch, 0 * fixed if learns_margin else fixed)
    margins = step.dials.module[MARGIN](plain[0]) if learns_margin else fixed
    shares = step.dials.module[SHARE](share_inputs(plain, batch, config)) * batch.targets[HAS_GENERATED]
    assert shares.std() > 0.05 and (shares >= 0).all() and (shares <= 1).all()
    own, generated = both_by_hand(objective, outputs, batch, margins)
    losses = (1 - shares) * own + shares * generated
    inputs = None
    if config is not None and config.sees_more:
        again = build_step(model_for(objective), net, objective=objective, weighting_config=config, **meta)
        again.dials.module.load_state_dict(step.dials.module.state_dict())
        inputs = again.compute_gradients(batch).inputs
    weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global", inputs=inputs)
    gradients = torch.autograd.grad((weights * losses).sum(), list(step.parameters.values()), create_graph=True)
    ahead = {
        key: value - step.meta.inner.lr * gradient
        for (key, value), gradient in zip(step.parameters.items(), gradients, strict=True)
    }
    of_meta = fixed[:4] * (0 if learns_margin else 1)
    meta_loss = losses_by_hand(objective, outputs_at(step, ahead, meta_batch), meta_batch, of_meta).mean()
    learned = [*step.dials.module.parameters(), *step.weighting.parameters()]
    reference = torch.autograd.grad(meta_loss, learned)
    result = step.compute_gradients(batch, meta_batch)
    torch.testing.assert_close(result.scalars["meta/loss"], meta_loss.detach())
    torch.testing.assert_close(result.losses, losses.detach())
    tolerance = {"central_difference": 1e-5, "finite_difference": 1e-4}.get(meta.get("hypergradient", ""), 1e-6)
    start = 0
    for part in (*(list(dial.parameters()) for dial in step.dials.module.values()), list(step.weighting.parameters())):
        if part:
            wanted = list(reference[start : start + len(part)])
            assert relative_error([value.grad for value in part], wanted) < tolerance
        start += len(part)
    assert result.scalars["meta/generated_share_gradient_norm"] > 0


def share_inputs(plain: tuple[Tensor, Tensor], batch, config: WeightingConfig | None) -> Tensor:
    """What the share's net reads: both losses, and columns of the batch that the weight net reads, standardised or as
    categories."""
    table = torch.stack(plain, dim=1)
    if config is None or not config.columns:
        return table
    quality, topic = batch.weight_inputs.double().T
    known = quality[~quality.isnan()]
    quality = ((quality - known.mean()) / (known.std(correction=0) + 1e-6)).nan_to_num(nan=0.0)
    of_topic = torch.stack([topic == value for value in range(3)], dim=1)
    one_hot = torch.cat([of_topic, ~of_topic.any(1, keepdim=True)], dim=1).double()
    return torch.cat([table, quality[:, None], one_hot], dim=1)


def test_shares_start_at_a_half_and_move_down_the_meta_loss():
    step = build_step(
        ToyEncoder(), weighting_config=WeightingConfig(kind="uniform"), lr=0.1,
        objective=ContrastiveConfig(generated_share="learned"),
    )  # fmt: skip
    batch, meta_batch = with_generated(random_batch(1, SIZE)), random_batch(2, 4)
    found = [step.compute_gradients(batch, meta_batch) for _ in range(30)]
    first, last = found[0], found[-1]
    has_generated = batch.targets[HAS_GENERATED]
    torch.testing.assert_close(
        first.shares[has_generated], torch.full((6,), 0.5, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert first.shares[~has_generated].isnan().all()
    assert last.scalars["meta/loss"] < first.scalars["meta/loss"]
    assert last.scalars["meta/generated_share_spread"] > 0.05
    torch.testing.assert_close(last.scalars["meta/generated_share"], last.shares[has_generated].mean())


def test_a_batch_without_any_generated_caption_teaches_no_share():
    step = build_step(ToyEncoder(), random_weight_net(), objective=ContrastiveConfig(generated_share="learned"))
    batch = random_batch(1, SIZE)
    bare = replace(
        batch, generated_ids=batch.token_ids, targets=batch.targets | {HAS_GENERATED: torch.zeros(SIZE).bool()}
    )
    result = step.compute_gradients(bare, random_batch(2, 4))
    assert result.shares.isnan().all() and "meta/generated_share" not in result.scalars
    assert result.scalars["meta/generated_share_gradient_norm"] == 0
    plain = build_step(ToyEncoder(), random_weight_net(), objective=ContrastiveConfig())
    torch.testing.assert_close(plain.compute_gradients(batch, random_batch(2, 4)).losses, result.losses)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective": {"loss": "max_margin", "generated_share": 0.5}}, "got loss max_margin"),
        ({"objective": {"generated_scale": 14.0, "generated_share": 0.5}}, "with one scale: got generated_scale 14"),
        ({"objective": {"generated_share": 1.5}}, "less than or equal to 1"),
        ({"data": {"captions": {"human": 1.0}}}, "of which data.captions would draw one"),
        ({"data": {"shares": {"human": 1.0}}}, "of which data.shares would draw one"),
        ({"data": {"positive_relevance": 0.1}}, "of which data.positive_relevance would draw one"),
        ({"data": {"caption_mode": "paragraph"}}, "got data.caption_mode paragraph"),
        ({"task": {"kind": "classification"}}, "got task.kind classification"),
        ({"weighting": {"learner": "joint"}}, "wanted meta"),
    ],
)
def test_what_has_no_two_texts_is_refused(settings, told):
    given = {"objective": {"generated_share": "learned"}} | settings
    with pytest.raises(ValueError, match=told):
        TrainJob.model_validate(given)


def test_a_run_with_learned_shares_needs_a_meta_set():
    uniform = WeightingConfig(kind="uniform")
    for share, needs in (("learned", True), (0.5, False), (None, False)):
        job = TrainJob(weighting=uniform, meta=MetaConfig(), objective=ContrastiveConfig(generated_share=share))
        assert job.is_meta_learned == needs
