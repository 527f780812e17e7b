"""EgoMCQ: a text and five clips, the best of which is chosen; accuracy by type, named by what the types mean.

Public code pairs the types [1, 2] with ["Intra-video", "Inter-video"], so its names are swapped: type 1 offers clips of
different videos. What it would print is kept under `legacy_`.
"""

import numpy as np
from jaxtyping import Float, Int64

from mama_ray.data.benchmarks.egomcq import INTER, INTRA
from mama_ray.errors import UserError

_NAMES = {INTER: "inter", INTRA: "intra"}
_LEGACY = {INTER: "Intra-video", INTRA: "Inter-video"}


def choice_metrics(
    scores: Float[np.ndarray, "questions choices"],
    answers: Int64[np.ndarray, " questions"],
    types: Int64[np.ndarray, " questions"],
) -> dict[str, float]:
    """Return the accuracy in percent of each type that occurs: accuracy_inter and _intra, and both under the names that
    public code prints.

    The first of equal choices is the chosen one, as argmax has it; a choice of score -inf is never chosen, and where
    all are the answer is wrong.
    """
    if np.isnan(scores).any():
        raise UserError("scores of choices", got="NaN", wanted="numbers")
    right = (scores.argmax(axis=1) == answers) & np.isfinite(scores.max(axis=1))
    metrics = {}
    for kind in (INTER, INTRA):
        chosen = types == kind
        if chosen.any():
            accuracy = 100.0 * float(right[chosen].mean())
            metrics |= {f"accuracy_{_NAMES[kind]}": accuracy, f"legacy_{_LEGACY[kind]}": accuracy}
    return metrics
