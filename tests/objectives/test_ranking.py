"""The ranking losses: by a double loop, as each other's special case, in chunks, and with all their derivatives."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.autograd import forward_ad

from mama_ray.data.classes.names import OF_TEXT, OF_VIDEO
from mama_ray.objectives.ranking import compute_ranking_losses
from mama_ray.objectives.relevance import PairClasses, pair_classes, relevance_between
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

LOSSES = ("max_margin", "adaptive_max_margin", "multi_similarity")
BATCH = 7
INVALID = torch.tensor([True, True, False, True, False, True, True])
VERBS, NOUNS = (0, 1, 1, 0, 2, 1, 0), ((0,), (0, 1), (2,), (0, 1), (3, 1), (1,), (0,))
TEXT_VERBS, TEXT_NOUNS = (0, 1, 0, 2, 2, 1, 0), ((0,), (0, 1), (2, 0), (1,), (3, 1), (1, 2), (0, 1))


def sets_of(verbs, nouns) -> tuple[Tensor, Tensor]:
    multi_hot = torch.zeros(len(nouns), 4, dtype=torch.uint8)
    for row, of_row in zip(multi_hot, nouns, strict=True):
        row[list(of_row)] = 1
    return torch.eye(3, dtype=torch.uint8)[list(verbs)], multi_hot


CLASSES = PairClasses(sets_of(VERBS, NOUNS), sets_of(TEXT_VERBS, TEXT_NOUNS))


def features() -> tuple[Tensor, Tensor]:
    video, text = unit_features(5, batch=BATCH)
    text[2] = -text[2]
    return video, text


def losses_of(values, loss: str, valid: Tensor | None = None, classes=CLASSES, **rules) -> Tensor:
    return compute_ranking_losses(*values, ContrastiveConfig(loss=loss, **rules), classes=classes, valid=valid)


def naive_relevance(i: int, j: int) -> float:
    """Of video i and text j, from the definition."""
    nouns, theirs = set(NOUNS[i]), set(TEXT_NOUNS[j])
    return ((VERBS[i] == TEXT_VERBS[j]) + len(nouns & theirs) / len(nouns | theirs)) / 2


def naive_loss(loss: str, own: float, other: float, lead: float) -> float:
    if loss == "max_margin":
        return max(0.0, 0.2 - lead)
    if loss == "adaptive_max_margin":
        return max(0.0, own * 0.4 - lead)
    difference = own - other
    if difference > 1.1 / 240:
        return max(0.0, difference * 0.6 - lead)
    if difference < -1.1 / 240:
        return max(0.0, lead - difference * 0.6)
    return max(0.0, abs(difference * 0.6 - lead) - 0.1)


def naive_losses(loss: str, valid: Tensor) -> list[float]:
    video, text = features()
    found = []
    for i in range(BATCH):
        total, others = 0.0, [j for j in range(BATCH) if j != i and valid[j]]
        for j in others:
            own, positive = naive_relevance(i, i), float(video[i] @ text[i])
            total += naive_loss(loss, own, naive_relevance(i, j), positive - float(video[i] @ text[j]))
            total += naive_loss(loss, own, naive_relevance(j, i), positive - float(video[j] @ text[i]))
        found.append(float(valid[i]) * total / (2 * len(others)))
    return found


def test_relevance_is_the_mean_of_the_shares_of_verbs_and_nouns():
    found = relevance_between(CLASSES.videos, CLASSES.texts, torch.float64)
    wanted = [[naive_relevance(i, j) for j in range(BATCH)] for i in range(BATCH)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("valid", [torch.ones(BATCH, dtype=torch.bool), INVALID], ids=["all valid", "some invalid"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_equal_a_naive_double_loop_whatever_the_chunk(loss, valid):
    wanted = naive_losses(loss, valid)
    assert sum(value > 0 for value in wanted) > 3
    for chunk_size in (0, 1, 3, 6):
        assert losses_of(features(), loss, valid, chunk_size=chunk_size).tolist() == pytest.approx(wanted, rel=1e-9)
    assert losses_of(features(), loss, valid, direction_reduction="sum").tolist() == pytest.approx(
        [2 * value for value in wanted], rel=1e-9
    )


def test_the_mean_over_samples_is_the_published_mean_over_pairs():
    """The published layout: the diagonal against rows and columns, with the diagonal's own terms left out."""
    video, text = features()
    x, is_other = video @ text.T, ~torch.eye(BATCH, dtype=torch.bool)
    rows, columns = (0.2 - x.diag()[:, None] + x).relu(), (0.2 - x.diag()[:, None] + x.T).relu()
    published = torch.cat([rows[is_other], columns[is_other]]).mean()
    torch.testing.assert_close(losses_of((video, text), "max_margin").mean(), published, rtol=1e-12, atol=0)


def test_multi_similarity_with_relevance_of_own_texts_alone_is_max_margin_at_its_margin():
    eye = (torch.eye(BATCH, dtype=torch.uint8),)
    alone = PairClasses(eye, eye)
    for margin in (0.6, 0.3):
        ours = losses_of(features(), "multi_similarity", INVALID, alone, ranking_margin=margin)
        wanted = losses_of(features(), "max_margin", INVALID, ranking_margin=margin)
        assert torch.equal(ours, wanted) and wanted.any()
    adaptive = losses_of(features(), "adaptive_max_margin", None, alone)
    assert torch.equal(adaptive, losses_of(features(), "max_margin", ranking_margin=0.4))


def test_samples_of_one_clip_are_not_compared():
    video, text = features()
    numbers, config = torch.tensor([0, 0, 1, 2, 3, 4, 5]), ContrastiveConfig(loss="max_margin")
    found = compute_ranking_losses(video, text, config, clips=numbers)
    without = compute_ranking_losses(video[1:], text[1:], config)
    torch.testing.assert_close(found[1], without[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_tangents_equal_the_gradients_along_the_direction_and_chunks_change_nothing(loss):
    generator = torch.Generator().manual_seed(9)
    ways = tuple(torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in features())
    values = tuple(value.requires_grad_() for value in features())
    for valid in (None, INVALID):
        wanted = []
        for own in losses_of(values, loss, valid):
            gradients = torch.autograd.grad(own, values, retain_graph=True)
            wanted.append(sum((gradient * way).sum() for gradient, way in zip(gradients, ways, strict=True)))
        for chunk_size in (0, 3):
            with forward_ad.dual_level():
                duals = tuple(map(forward_ad.make_dual, features(), ways))
                tangent = forward_ad.unpack_dual(losses_of(duals, loss, valid, chunk_size=chunk_size)).tangent
                torch.testing.assert_close(tangent.detach(), torch.stack(wanted), rtol=1e-11, atol=1e-12)
            whole, chunked = (
                torch.autograd.grad(losses_of(values, loss, valid, chunk_size=size).sum(), values)
                for size in (0, chunk_size)
            )
            torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("arrangement", "num_micro_batches"), [("shared", 1), ("faithful", 3)])
@pytest.mark.parametrize("loss", LOSSES)
def test_learned_weights_act_on_them_and_the_hypergradient_is_that_of_the_second_order_graph(
    loss, arrangement, num_micro_batches
):
    step = build_step(
        ToyEncoder(),
        random_weight_net(),
        objective=ContrastiveConfig(loss=loss, chunk_size=3),
        arrangement=arrangement,
        num_micro_batches=num_micro_batches,
    )
    batch, meta_batch = random_batch(1, 8), random_batch(2, 5)
    meta_loss = meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True)
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    ours = weight_gradients(step, batch, meta_batch)
    assert relative_error(ours, list(reference)) < 1e-9
    assert all(gradient.abs().max() > 0 for gradient in ours)
    result = step.compute_gradients(batch, meta_batch)
    assert result.weights.std() > 1e-3 * result.weights.mean()


def test_targets_give_the_class_sets_of_each_side():
    batch = random_batch(3, 4)
    assert {OF_VIDEO + "verb", OF_TEXT + "noun"} <= batch.targets.keys()
    classes = pair_classes(batch.targets)
    assert [len(side) for side in classes] == [2, 2]
    assert classes.videos[1] is batch.targets[OF_VIDEO + "verb"]  # noun comes first


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "max_margin", "margin": 0.2},
        {"loss": "multi_similarity", "close_negatives": "close_too"},
        {"loss": "softmax", "ranking_margin": 0.2},
    ],
)
def test_an_angular_margin_is_refused_where_a_pair_leads_by_a_cosine(wrong):
    with pytest.raises(ValidationError, match="ranking_margin"):
        ContrastiveConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"relevance_slack": 0.2}, {"equal_relevance": 0.1}])
def test_options_of_multi_similarity_are_refused_of_other_losses(wrong):
    (name,) = wrong
    for loss in ("softmax", "adaptive_max_margin"):
        with pytest.raises(ValidationError, match=f"{name} is of loss multi_similarity, not of {loss}"):
            ContrastiveConfig(loss=loss, **wrong)
    assert getattr(ContrastiveConfig(loss="multi_similarity", **wrong), name) == wrong[name]
