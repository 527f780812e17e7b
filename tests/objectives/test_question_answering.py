"""The loss of an answer, against torch's own cross-entropy, and where no list holds the answer."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from mama_ray.objectives.question_answering import AnsweringObjective, QuestionOutputs, compute_answer_losses
from tests.weighting.toys import random_batch

LOGITS = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
ANSWERS = torch.tensor([3, -1, 0, 1, -1, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy_of_each_sample_and_0_where_no_list_holds_the_answer(smoothing):
    losses = compute_answer_losses(LOGITS, ANSWERS, smoothing)
    wanted = F.cross_entropy(LOGITS, ANSWERS, ignore_index=-1, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(losses, wanted, rtol=1e-12, atol=0)
    assert losses[1] == 0 and losses[4] == 0 and (losses[[0, 2, 3, 5]] > 0).all()
    assert AnsweringObjective(smoothing)(
        QuestionOutputs(*[LOGITS] * 5), type(random_batch(0, 6))(*[LOGITS] * 4, {"answer": ANSWERS})
    ).equal(losses)


def test_an_unlisted_answer_has_no_gradient_even_where_its_logits_are_infinite():
    logits = LOGITS.clone()
    logits[1, 0] = -torch.inf  # an option that is masked
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(compute_answer_losses(logits, ANSWERS).sum(), logits)
    assert not gradient[1].any() and not gradient[4].any() and gradient[[0, 2, 3, 5]].abs().sum(1).min() > 0


def test_half_precision_logits_are_compared_in_float32():
    logits = LOGITS.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute_answer_losses(logits, ANSWERS)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, compute_answer_losses(logits.float(), ANSWERS))


def test_forward_mode_gives_the_slope_of_each_loss():
    tangent = torch.randn_like(LOGITS)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(
            compute_answer_losses(forward_ad.make_dual(LOGITS, tangent), ANSWERS, 0.1)
        ).tangent.clone()
    step = 1e-6
    ahead, behind = (compute_answer_losses(LOGITS + sign * step * tangent, ANSWERS, 0.1) for sign in (1, -1))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
