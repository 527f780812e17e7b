"""The subtractive angular margin: the positive's angle is reduced by `margin` before it enters the softmax.

The optimum of a positive pair is then the angle `margin`, not 0, so an imperfect pair is not driven to cosine 1
(MAMA, arXiv 2407.03788). The sign is the opposite of ArcFace's, whose additive margin is a negative one here.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Below this value of 1 - cos^2 the sine is held constant: its slope is infinite at cosine +-1.
_MIN_SINE_SQUARED = {torch.float32: 1e-7, torch.float64: 1e-15}


def subtract_margin(cosine: Float[Tensor, "*shape"], margin: float | Tensor) -> Float[Tensor, "*shape"]:
    """Return cos(angle - margin) for angle = arccos(cosine), without ever calling arccos.

    Uses cos(a - m) = cos a cos m + sin a sin m with sin a = sqrt(max(1 - cos^2 a, eps)); values and gradients are
    finite everywhere, also for cosines that rounding put just outside [-1, 1]. `margin` in radians, one, or one of each
    query; float32 or float64.
    """
    cosine, sine = _cosine_and_sine(cosine)
    if isinstance(margin, Tensor):
        return cosine * margin.cos() + sine * margin.sin()
    return cosine * math.cos(margin) + sine * math.sin(margin)


def margin_slope(cosine: Float[Tensor, " local"], margins: Float[Tensor, " local"], *, acute_only: bool) -> Tensor:
    """Return d/d margin of the positives' cosines with their margins taken off; 0 where a positive keeps its own."""
    takes_margin = cosine >= 0.0 if acute_only else torch.ones_like(cosine, dtype=torch.bool)
    inside, sine = _cosine_and_sine(cosine)
    return torch.where(takes_margin, sine * margins.cos() - inside * margins.sin(), torch.zeros_like(cosine))


def _cosine_and_sine(cosine: Tensor) -> tuple[Tensor, Tensor]:
    cosine = cosine.clamp(-1.0, 1.0)
    sine_squared = 1.0 - cosine * cosine
    floor = _MIN_SINE_SQUARED[cosine.dtype]
    # Both branches of `where` are finite, so neither can put a NaN into the gradient of the other.
    return cosine, torch.where(sine_squared > floor, sine_squared, torch.full_like(sine_squared, floor)).sqrt()


def apply_margin(
    cosine: Float[Tensor, "local global"],
    is_positive: Bool[Tensor, "local global"],
    *,
    margin: float | Float[Tensor, "local 1"],
    acute_only: bool,
    close_negatives: bool,
) -> Float[Tensor, "local global"]:
    """Return the cosines with the margin taken off the positives, and off very close negatives if asked.

    acute_only: a positive beyond pi/2 keeps its plain cosine (the paper's rule); else every positive gets the margin.
    A margin of each query is never compared with negatives.
    close_negatives: a negative at an angle of at most `margin` is treated as a positive (the MAMA release's rule).
    """
    is_one_of_each = isinstance(margin, Tensor)
    if not is_one_of_each and margin == 0.0:
        return cosine
    takes_margin = is_positive & (cosine >= 0.0) if acute_only else is_positive
    if close_negatives:
        assert not is_one_of_each
        takes_margin = takes_margin | (~is_positive & (cosine >= math.cos(margin)))
    return torch.where(takes_margin, subtract_margin(cosine, margin), cosine)
