"""The pairwise sigmoid loss: by hand, by a double loop, by transformers' SigLIP; its chunks and all its derivatives."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.objectives.sigmoid import compute_sigmoid_losses
from mama_ray.weighting.features import FeatureModel
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

SCALE, BIAS, BATCH = 4.0, -1.5, 7
CHUNK_SIZES = (1, 3, 6)
INVALID = torch.tensor([True, True, False, False, False, True, True])
RULES = [
    {"margin": margin, "obtuse_positives": obtuse, "close_negatives": close}
    for margin, obtuse, close in itertools.product(
        (0.3, 0.0, -0.2), ("acute_only", "always"), ("untouched", "close_too")
    )
    if margin >= 0 or close == "untouched"
]


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit features with an obtuse positive pair and a negative closer than any margin, log scale and bias."""
    video, text = unit_features(3, batch=BATCH)
    text[1] = F.normalize(video[2] + 0.05, dim=-1)
    text[4] = -text[4]
    return video, text, *(torch.tensor(value, dtype=torch.float64) for value in (math.log(SCALE), BIAS))


def leaves() -> tuple[Tensor, ...]:
    return tuple(value.requires_grad_() for value in inputs())


def directions() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(9)
    return tuple(torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in inputs())


def losses_of(values: tuple[Tensor, ...], chunk_size: int = 0, valid: Tensor | None = None, **rules) -> Tensor:
    config = ContrastiveConfig(loss="sigmoid", chunk_size=chunk_size, **rules)
    return compute_sigmoid_losses(*values, config, valid=valid)


def naive_losses(values: tuple[Tensor, ...], valid: Tensor, margin: float, obtuse: str, close: str) -> list[float]:
    """A double loop with arccos and the sigmoid itself, straight from the definition."""
    video, text, log_scale, bias = values

    def loss(i: int, j: int) -> float:
        angle = math.acos(max(-1.0, min(1.0, float(video[i] @ text[j]))))
        takes_margin = (
            (obtuse == "always" or angle <= math.pi / 2) if i == j else close == "close_too" and angle <= margin
        )
        logit = math.exp(log_scale) * math.cos(angle - margin if takes_margin else angle) + float(bias)
        probability = 1 / (1 + math.exp(-logit))
        return -math.log(probability if i == j else 1 - probability)

    others = [[j for j in range(len(video)) if j != i and valid[j]] for i in range(len(video))]
    return [
        float(valid[i]) * (loss(i, i) + sum((loss(i, j) + loss(j, i)) / 2 for j in others[i]))
        for i in range(len(video))
    ]


def gradients_of(values: tuple[Tensor, ...], chunk_size: int, valid: Tensor | None, **rules) -> tuple[Tensor, ...]:
    """Gradients of a sum in which every sample has a weight of its own, with their graph."""
    losses = losses_of(values, chunk_size, valid, **rules)
    weights = torch.arange(1.0, len(losses) + 1, dtype=losses.dtype)
    return torch.autograd.grad((weights * losses).sum(), values, create_graph=True)


def second_derivatives(chunk_size: int, valid: Tensor | None, **rules) -> tuple[Tensor, ...]:
    values = leaves()
    gradients = gradients_of(values, chunk_size, valid, **rules)
    inner = sum((gradient * way).sum() for gradient, way in zip(gradients, directions(), strict=True))
    return torch.autograd.grad(inner, values)


def test_two_orthogonal_pairs_have_the_losses_of_a_calculation_by_hand():
    """Positives have logit 10 - 10 = 0, negatives -10."""
    eye, values = torch.eye(2, dtype=torch.float64), (math.log(10.0), -10.0)
    losses = losses_of((eye, eye, *(torch.tensor(value, dtype=torch.float64) for value in values)))
    assert losses.tolist() == pytest.approx([math.log(2) + math.log1p(math.exp(-10))] * 2, rel=1e-12)


def test_a_skew_matrix_has_the_losses_of_a_calculation_by_hand():
    """Cosines [[0.6, 0.8], [0.8, -0.6]], scale 5, bias -1: logits [[2, 3], [3, -4]]."""
    video = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
    values = (video, text, torch.tensor(math.log(5.0)).double(), torch.tensor(-1.0).double())
    wanted = [0.1269280110 + 3.0485873516, 4.0181499279 + 3.0485873516]
    assert losses_of(values).tolist() == pytest.approx(wanted, rel=1e-6)
    assert losses_of(values, direction_reduction="sum").tolist() == pytest.approx(
        [2 * loss for loss in wanted], rel=1e-6
    )


@pytest.mark.parametrize("valid", [torch.ones(BATCH, dtype=torch.bool), INVALID], ids=["all valid", "some invalid"])
@pytest.mark.parametrize("chunk_size", [0, *CHUNK_SIZES])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
def test_losses_equal_a_naive_double_loop(rules, chunk_size, valid):
    wanted = naive_losses(inputs(), valid, *rules.values())
    assert losses_of(inputs(), chunk_size, valid, **rules).tolist() == pytest.approx(wanted, rel=1e-9)


def test_mean_equals_the_loss_of_transformers_siglip():
    from transformers import SiglipConfig, SiglipModel

    size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision, text = size | {"image_size": 4, "patch_size": 2}, size | {"vocab_size": 12, "max_position_embeddings": 4}
    torch.manual_seed(0)
    theirs = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).double().eval()
    with torch.no_grad():
        theirs.logit_bias.fill_(-1.5)
        theirs.logit_scale.fill_(1.2)
        found = theirs(torch.randint(0, 12, (5, 4)), torch.randn(5, 3, 4, 4).double(), return_loss=True)
    scale, bias = theirs.logit_scale.detach().view(()), theirs.logit_bias.detach().view(())
    ours = losses_of((found.image_embeds, found.text_embeds, scale, bias))
    torch.testing.assert_close(ours.mean(), found.loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("valid", [None, INVALID], ids=["all valid", "some invalid"])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
class TestDerivatives:
    def test_gradients_equal_central_differences_and_do_not_depend_on_the_chunk(self, rules, valid):
        gradients, step = gradients_of(leaves(), 0, valid, **rules), 1e-6
        weights = torch.arange(1.0, BATCH + 1, dtype=torch.float64)
        ways = directions()
        forth, back = (
            losses_of(tuple(v + sign * step * w for v, w in zip(inputs(), ways, strict=True)), 0, valid, **rules)
            for sign in (1, -1)
        )
        along = sum((gradient * way).sum() for gradient, way in zip(gradients, ways, strict=True))
        assert float(along.detach()) == pytest.approx(float((weights * (forth - back)).sum() / (2 * step)), rel=1e-6)
        for chunk_size in CHUNK_SIZES:
            theirs = gradients_of(leaves(), chunk_size, valid, **rules)
            torch.testing.assert_close(theirs, gradients, rtol=1e-12, atol=1e-12)

    def test_forward_mode_tangents_equal_the_jacobian_times_the_direction(self, rules, valid):
        def jacobian_product() -> Tensor:
            rows, values = [], leaves()
            for loss in losses_of(values, 0, valid, **rules):
                gradients = torch.autograd.grad(loss, values, retain_graph=True)
                rows.append(sum((g * way).sum() for g, way in zip(gradients, directions(), strict=True)))
            return torch.stack(rows)

        wanted = jacobian_product()
        for chunk_size, records in itertools.product((0, *CHUNK_SIZES), (False, True)):
            with torch.set_grad_enabled(records), forward_ad.dual_level():
                duals = tuple(map(forward_ad.make_dual, leaves() if records else inputs(), directions()))
                tangent = forward_ad.unpack_dual(losses_of(duals, chunk_size, valid, **rules)).tangent
                torch.testing.assert_close(tangent.detach(), wanted, rtol=1e-11, atol=1e-12)

    def test_gradients_of_gradients_equal_their_central_differences_and_do_not_depend_on_the_chunk(self, rules, valid):
        whole, step = second_derivatives(0, valid, **rules), 1e-6
        moved = []
        for sign in (1, -1):
            values = [v + sign * step * w for v, w in zip(inputs(), directions(), strict=True)]
            values = tuple(value.detach().requires_grad_() for value in values)
            moved.append([g.detach() for g in gradients_of(values, 0, valid, **rules)])
        for ours, ahead, behind in zip(whole, *moved, strict=True):  # a Hessian is symmetric
            torch.testing.assert_close(ours, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
        for chunk_size in CHUNK_SIZES:
            theirs = second_derivatives(chunk_size, valid, **rules)
            torch.testing.assert_close(theirs, whole, rtol=1e-12, atol=1e-12)


def test_logits_far_out_have_finite_losses_and_gradients():
    video = torch.eye(3)
    for text, scale in ((video, 12.0), (-video, 12.0), (video, -12.0)):
        values = (video.clone(), text.clone(), torch.tensor(scale), torch.tensor(-1e4))
        values = tuple(value.requires_grad_() for value in values)
        losses = losses_of(values)
        assert losses.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(losses.sum(), values))


@pytest.mark.parametrize("arrangement", ["shared", "faithful"])
@pytest.mark.parametrize("method", ["forward_mode", "second_order"])
@pytest.mark.parametrize(("margin", "chunk_size", "num_micro_batches"), [(0.0, 0, 1), (0.2, 3, 1), (0.2, 0, 3)])
def test_hypergradient_equals_the_second_order_graph(method, arrangement, margin, chunk_size, num_micro_batches):
    step = build_step(
        FeatureModel(ToyEncoder(), logit_bias=-3.0),
        random_weight_net(),
        objective=ContrastiveConfig(loss="sigmoid", margin=margin, chunk_size=chunk_size),
        hypergradient=method,
        arrangement=arrangement,
        num_micro_batches=num_micro_batches,
    )
    batch, meta_batch = random_batch(1, 8), random_batch(2, 4)
    meta_loss = meta_loss_after_lookahead(step, batch, meta_batch, differentiable=True)
    reference = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
    ours = weight_gradients(step, batch, meta_batch)
    assert relative_error(ours, list(reference)) < 1e-9
    assert all(gradient.abs().max() > 0 for gradient in ours)
    assert step.parameters["logit_bias"].grad.abs() > 0


def test_a_bias_of_the_backbone_itself_is_taken_and_none_is_added():
    model = ToyEncoder()
    model.logit_bias = torch.nn.Parameter(torch.full((1,), -2.0, dtype=torch.float64))  # of SigLIP's shape
    wrapped = FeatureModel(model, logit_bias=-10.0)
    assert dict(wrapped.named_parameters()).keys() == {f"model.{name}" for name, _ in model.named_parameters()}
    assert wrapped(random_batch(1, 3)).logit_bias == -2.0
    step = build_step(wrapped, objective=ContrastiveConfig(loss="sigmoid"))
    step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
    assert model.logit_bias.grad.shape == (1,) and model.logit_bias.grad.abs() > 0


def test_a_bias_that_softmax_does_not_read_changes_nothing_and_has_no_gradient():
    gradients = []
    for model in (FeatureModel(ToyEncoder(), logit_bias=-5.0), FeatureModel(ToyEncoder())):
        step = build_step(model, random_weight_net())
        step.compute_gradients(random_batch(1, 8), random_batch(2, 4))
        gradients.append({name: value.grad for name, value in step.parameters.items()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1].get(name, torch.zeros_like(gradient))), name
