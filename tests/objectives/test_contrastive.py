"""The angular-margin loss against golden values, formulas, autograd facts and a naive double loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mama_ray.objectives.contrastive import combine_losses, compute_contrastive_losses
from mama_ray.objectives.margin import apply_margin, subtract_margin
from mama_ray.objectives.settings import ContrastiveConfig

RULES = [(obtuse, close) for obtuse in ("acute_only", "always") for close in ("untouched", "close_too")]
MARGINS = (0.1, 0.2, 0.3, 0.4)


def unit_features(seed: int, batch: int = 6, dim: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    text = video + torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return F.normalize(video, dim=-1), F.normalize(text, dim=-1)


def pair_at(angle: float) -> tuple[Tensor, Tensor]:
    """A positive pair at `angle` and one orthogonal pair beside it."""
    video = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[math.cos(angle), math.sin(angle), 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return video, text


def losses_of(video: Tensor, text: Tensor, scale: float = 10.0, **rules) -> Tensor:
    log_scale = torch.tensor(math.log(scale), dtype=video.dtype)
    return compute_contrastive_losses(video, text, log_scale, ContrastiveConfig(**rules))


def naive_losses(video: Tensor, text: Tensor, scale: float, margin: float, obtuse: str, close: str) -> list[float]:
    """A double loop with arccos, straight from the definition."""
    size = len(video)

    def angle(i: int, j: int) -> float:
        return math.acos(max(-1.0, min(1.0, float(video[i] @ text[j]))))

    def cosine(i: int, j: int) -> float:
        value = angle(i, j)
        if i == j:
            return math.cos(value - margin) if obtuse == "always" or value <= math.pi / 2 else math.cos(value)
        return math.cos(value - margin) if close == "close_too" and value <= margin else math.cos(value)

    result = []
    for i in range(size):
        row = math.log(sum(math.exp(scale * cosine(i, j)) for j in range(size))) - scale * cosine(i, i)
        column = math.log(sum(math.exp(scale * cosine(j, i)) for j in range(size))) - scale * cosine(i, i)
        result.append((row + column) / 2)
    return result


GOLDEN = [
    (0.0, "acute_only", "untouched", (0.014101, 1.965585, 8.966584)),
    (0.2, "acute_only", "untouched", (0.005049, 1.258714, 8.966584)),
    (0.2, "always", "untouched", (0.005049, 1.258714, 6.987676)),
    (0.2, "always", "close_too", (0.005049, 1.296931, 7.029093)),
    (0.4, "acute_only", "untouched", (0.002581, 0.754718, 8.966584)),
    (0.4, "always", "untouched", (0.002581, 0.754718, 5.052363)),
    (0.4, "always", "close_too", (0.002581, 0.666774, 4.936464)),
]


@pytest.mark.parametrize(("margin", "obtuse", "close", "expected"), GOLDEN)
def test_golden_values(margin, obtuse, close, expected):
    similarity = torch.tensor([[0.80, 0.10, 0.30], [0.20, 0.60, 0.99], [0.40, 0.05, -0.20]], dtype=torch.float64)
    texts = torch.eye(3, dtype=torch.float64)  # against these the matrix itself is the similarity
    losses = losses_of(similarity, texts, margin=margin, obtuse_positives=obtuse, close_negatives=close)
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("obtuse", "close"), RULES)
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_losses_equal_a_naive_double_loop(margin, obtuse, close):
    video, text = unit_features(3)
    text[1] = F.normalize(video[2] + 0.05, dim=-1)  # a negative closer than any margin here
    losses = losses_of(video, text, margin=margin, obtuse_positives=obtuse, close_negatives=close)
    assert losses.tolist() == pytest.approx(naive_losses(video, text, 10.0, margin, obtuse, close), rel=1e-9)


@pytest.mark.parametrize("obtuse", ["acute_only", "always"])
def test_a_negative_margin_is_added_to_the_angle_of_the_positive_pair(obtuse):
    video, text = unit_features(3)
    losses = losses_of(video, text, margin=-0.2, obtuse_positives=obtuse)
    assert losses.tolist() == pytest.approx(naive_losses(video, text, 10.0, -0.2, obtuse, "untouched"), rel=1e-9)
    with pytest.raises(ValueError, match="close_negatives close_too has no meaning"):
        ContrastiveConfig(margin=-0.2, close_negatives="close_too")


@pytest.mark.parametrize(("obtuse", "close"), RULES)
def test_zero_margin_equals_info_nce(obtuse, close):
    video, text = (features.requires_grad_() for features in unit_features(0))
    losses = losses_of(video, text, margin=0.0, obtuse_positives=obtuse, close_negatives=close)
    logits, labels = 10.0 * video @ text.T, torch.arange(len(video))
    reference = (
        F.cross_entropy(logits, labels, reduction="none") + F.cross_entropy(logits.T, labels, reduction="none")
    ) / 2
    torch.testing.assert_close(losses, reference, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(losses.sum(), (video, text))
    theirs = torch.autograd.grad(reference.sum(), (video, text))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("angle", [0.05, 0.3, 0.8, 1.5, 2.0])
def test_gradient_norm_follows_the_formula(angle):
    margin, scale = 0.2, 10.0
    video, text = pair_at(angle)
    text.requires_grad_()
    # Only video 0's direction, against text 1 as the one negative: |grad| = s (1 - p) |sin(angle - margin)|.
    is_positive = torch.eye(2, dtype=torch.bool)
    cosine = apply_margin(video @ text.T, is_positive, margin=margin, acute_only=False, close_negatives=False)
    loss = F.cross_entropy(scale * cosine[:1], torch.tensor([0]))
    gradient = torch.autograd.grad(loss, text)[0][0]
    tangential = gradient - (gradient @ text[0]) * text[0]  # features live on the sphere
    probability = torch.softmax(scale * cosine[0], dim=0)[0]
    expected = scale * (1 - probability) * abs(math.sin(angle - margin))
    assert float(tangential.norm().detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


@pytest.mark.parametrize("margin", MARGINS)
def test_gradient_vanishes_at_the_margin_and_changes_sign_there(margin):
    def slope(angle: float) -> float:
        value = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
        cosine = subtract_margin(torch.cos(value), margin)
        return float(torch.autograd.grad(-cosine, value)[0])

    assert slope(margin - 0.001) < 0 < slope(margin + 0.001)
    grid = torch.linspace(0.01, math.pi / 2, 200).tolist()
    assert all((slope(angle) > 0) == (angle > margin) for angle in grid if abs(angle - margin) > 1e-3)


def hard_pair_slope(angle: float, margin: float) -> float:
    """Size of the loss's slope in the angle of a positive that a perfect negative beats."""
    value = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
    cosine = torch.stack([torch.cos(value), torch.tensor(1.0, dtype=torch.float64)])[None]
    is_positive = torch.tensor([[True, False]])
    adjusted = apply_margin(cosine, is_positive, margin=margin, acute_only=False, close_negatives=False)
    loss = F.cross_entropy(10.0 * adjusted, torch.tensor([0]))
    return abs(float(torch.autograd.grad(loss, value)[0]))


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("obtuse", ["acute_only", "always"])
def test_margin_shrinks_gradients_within_its_range_and_grows_them_beyond(margin, obtuse):
    def slope(angle: float, used: float) -> float:
        video, text = pair_at(angle)
        text.requires_grad_()
        loss = losses_of(video, text, scale=10.0, margin=used, obtuse_positives=obtuse)[0]
        gradient = torch.autograd.grad(loss, text)[0][0]
        return float((gradient - (gradient @ text[0]) * text[0]).norm().detach())

    end = (math.pi + margin) / 2 if obtuse == "always" else math.pi / 2
    for angle in torch.linspace(margin / 2 + 1e-6, end - 1e-3, 60).tolist():
        assert slope(angle, margin) <= slope(angle, 0.0) + 1e-9
    if obtuse == "always":  # a hard pair (p near 0): its gradient is s |sin(angle - margin)|
        assert hard_pair_slope(end + 0.2, margin) > hard_pair_slope(end + 0.2, 0.0)


@pytest.mark.parametrize("margin", MARGINS)
def test_losses_with_and_without_margin_meet_at_half_the_margin(margin):
    video, text = pair_at(margin / 2)
    torch.testing.assert_close(losses_of(video, text, margin=margin)[0], losses_of(video, text, margin=0.0)[0])
    for angle, is_lower in ((margin / 2 + 0.05, True), (margin / 2 - 0.04, False)):
        video, text = pair_at(angle)
        with_margin, without = losses_of(video, text, margin=margin)[0], losses_of(video, text, margin=0.0)[0]
        assert (with_margin < without) == is_lower


@pytest.mark.parametrize("margin", MARGINS)
def test_obtuse_positives_keep_the_plain_loss_under_acute_only(margin):
    video, text = pair_at(1.9)
    text.requires_grad_()
    with_margin, plain = losses_of(video, text, margin=margin)[0], losses_of(video, text, margin=0.0)[0]
    assert with_margin == plain
    assert torch.equal(torch.autograd.grad(with_margin, text)[0], torch.autograd.grad(plain, text)[0])


@pytest.mark.parametrize(("margin", "jump"), [(0.1, 9.98), (0.2, 19.87), (0.3, 29.55), (0.4, 38.94)])
def test_logit_drops_by_s_sin_margin_at_a_right_angle(margin, jump):
    cosine = torch.tensor([[1e-9], [-1e-9]], dtype=torch.float64)
    rule = dict(margin=margin, acute_only=True, close_negatives=False)
    below, above = apply_margin(cosine, torch.ones(2, 1, dtype=torch.bool), **rule)[:, 0] * 100.0
    assert float(below - above) == pytest.approx(jump, abs=0.005)


def test_a_right_angle_still_takes_the_margin():
    adjusted = apply_margin(
        torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), margin=0.2, acute_only=True, close_negatives=False
    )
    assert float(adjusted) == pytest.approx(math.sin(0.2))


def test_margin_identity_holds_over_all_angles():
    angle = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    shifted = subtract_margin(torch.cos(angle), 0.3)
    torch.testing.assert_close(shifted, torch.cos(angle - 0.3), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0 + 1e-6, -1.0 - 1e-6])
def test_gradients_are_finite_at_cosine_one(cosine, dtype):
    video = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype, requires_grad=True)
    text = torch.tensor([[cosine, 0.0], [0.0, 1.0]], dtype=dtype, requires_grad=True)
    for obtuse, close in RULES:
        losses = losses_of(video, text, scale=99.5, margin=0.2, obtuse_positives=obtuse, close_negatives=close)
        gradients = torch.autograd.grad(losses.sum(), (video, text))
        assert losses.dtype == torch.float32
        assert all(torch.isfinite(tensor).all() for tensor in (losses, *gradients))


def test_losses_under_autocast_equal_those_without():
    video, text = (features.float() for features in unit_features(7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(video, text, margin=0.2)
    assert torch.equal(losses, losses_of(video, text, margin=0.2))


def test_permuting_the_batch_permutes_the_losses():
    video, text = unit_features(1)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    torch.testing.assert_close(
        losses_of(video[order], text[order], margin=0.2), losses_of(video, text, margin=0.2)[order]
    )


def test_swapping_inputs_swaps_directions():
    video, text = unit_features(2)
    assert torch.equal(losses_of(video, text, margin=0.2), losses_of(text, video, margin=0.2))
    both = losses_of(video, text, margin=0.2, direction_reduction="sum")
    torch.testing.assert_close(both, 2 * losses_of(video, text, margin=0.2))


def test_default_rules_shift_acute_positives_and_no_negative():
    video, text = unit_features(3)
    text[1] = F.normalize(video[2] + 0.05, dim=-1)
    text[4] = -text[4]
    explicit = losses_of(video, text, margin=0.2, obtuse_positives="acute_only", close_negatives="untouched")
    assert torch.equal(losses_of(video, text, margin=0.2), explicit)
    for others in ({"obtuse_positives": "always"}, {"close_negatives": "close_too"}):
        assert not torch.equal(losses_of(video, text, margin=0.2, **others), explicit)


def test_margin_from_config_changes_the_loss():
    video, text = unit_features(4)
    assert (losses_of(video, text, margin=0.2) != losses_of(video, text, margin=0.0)).all()


def test_invalid_clips_have_no_loss_and_are_no_negatives():
    video, text = unit_features(5)
    valid = torch.tensor([True, True, False, True, True, False])
    log_scale = torch.tensor(math.log(10.0), dtype=torch.float64)
    masked = compute_contrastive_losses(video, text, log_scale, ContrastiveConfig(margin=0.2), valid=valid)
    torch.testing.assert_close(masked[valid], losses_of(video[valid], text[valid], margin=0.2))
    assert (masked[~valid] == 0).all()


def test_positives_come_from_ids_not_strings():
    video, text = unit_features(6)
    text[1] = text[0]  # the same sentence for two clips: still two samples with a positive each
    for margin in (0.0, 0.2):
        expected = naive_losses(video, text, 10.0, margin, "acute_only", "untouched")
        assert losses_of(video, text, margin=margin).tolist() == pytest.approx(expected)


def test_task_loss_is_added_before_any_weight():
    contrastive, task = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25])
    assert combine_losses(contrastive, task, eta=4.0).tolist() == [3.0, 3.0]
    assert combine_losses(contrastive, None, eta=4.0) is contrastive
