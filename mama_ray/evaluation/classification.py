"""Metrics of recognition: accuracy among classes of which a clip has one, and average precision where it has several.

A class counts as found when it stands alone above all others: a tie is wrong, so scores that say nothing have 0. Of a
clip of `missing` nothing is found, whatever its scores are, and nothing is predicted.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from mama_ray.errors import UserError

Scores = Float[np.ndarray, "clips classes"]
Missing = Bool[np.ndarray, " clips"]


def top_k_accuracy(
    scores: Scores, targets: Int64[np.ndarray, " clips"], k: int, *, missing: Missing | None = None
) -> float:
    """Return in percent how often the right class is among the k with the highest scores."""
    return 100.0 * float(_is_found(scores, targets, k, missing).mean())


def mean_class_accuracy(
    scores: Scores,
    targets: Int64[np.ndarray, " clips"],
    *,
    counts_predicted_only: bool = False,
    missing: Missing | None = None,
) -> float:
    """Return the mean over the classes of the share of a class's clips that are right, in percent.

    Classes that no clip has are left out. `counts_predicted_only` counts those that were predicted all the same, as 0:
    the mean that LaViLa's release prints.
    """
    right = _is_found(scores, targets, 1, missing)
    classes, places = np.unique(targets, return_inverse=True)
    shares = np.bincount(places, weights=right) / np.bincount(places)
    predicted = scores.argmax(axis=1) if missing is None else scores[~missing].argmax(axis=1)
    count = len(np.union1d(classes, predicted)) if counts_predicted_only else len(classes)
    return 100.0 * float(shares.sum() / count)


def _is_found(
    scores: Scores, targets: Int64[np.ndarray, " clips"], k: int, missing: Missing | None
) -> Bool[np.ndarray, " clips"]:
    """Tell whether the right class, on the worst place among its equals, is one of the first k."""
    ranks = (scores >= np.take_along_axis(scores, targets[:, None], axis=1)).sum(axis=1)
    return (ranks <= k) if missing is None else (ranks <= k) & ~missing


def marginal_scores(
    action_scores: Float[np.ndarray, "clips actions"], parts: Int64[np.ndarray, " actions"], num_parts: int
) -> Float64[np.ndarray, "clips parts"]:
    """Return scores of verbs (or nouns): the sum over the actions that contain it of their probabilities.

    parts: the verb of each action. A verb without an action has 0. (LaViLa's release gives it those of action 0.)
    """
    found = np.zeros((num_parts, len(action_scores)))
    np.add.at(found, parts, action_scores.T.astype(np.float64))
    return found.T


def softmax(scores: Scores, temperature: float = 1.0) -> Float64[np.ndarray, "clips classes"]:
    """Return the probabilities of each clip's classes."""
    scaled = scores.astype(np.float64) / temperature
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def average_precisions(
    scores: Scores,
    labels: Bool[np.ndarray, "clips classes"],
    names: Sequence[str] | None = None,
    *,
    missing: Missing | None = None,
) -> Float64[np.ndarray, " classes"]:
    """Return the average precision of each class over the clips that are ranked by its score, from 0 to 1.

    Clips without a label rank behind all others, as Charades' own script has it; equal ones keep their order.
    So do clips of `missing`, which earn nothing: each is a positive of its classes with a precision of 0.
    UserError that names a class without a positive, of which there is none.
    """
    require_class_positives(labels, names)
    num_positives = labels.sum(axis=0)
    earning = labels if missing is None else labels & ~missing[:, None]
    ranked_scores = np.where(earning.any(axis=1, keepdims=True), scores, -np.inf)
    order = np.argsort(-ranked_scores, axis=0, kind="stable")
    ranked = np.take_along_axis(earning, order, axis=0)
    precisions = np.cumsum(ranked, axis=0) / np.arange(1, len(labels) + 1)[:, None]
    return np.where(ranked, precisions, 0.0).sum(axis=0) / num_positives


def require_class_positives(labels: Bool[np.ndarray, "clips classes"], names: Sequence[str] | None = None) -> None:
    """Raise UserError that names a class without a positive."""
    absent = np.flatnonzero(~labels.any(axis=0))
    if len(absent):
        shown = names[absent[0]] if names else str(absent[0])
        raise UserError(
            "classes without a positive", got=f"{len(absent)}, {shown}", wanted="a clip of each class",
            remedy="set absent_classes: left_out in a copy of the benchmark's file to score the other classes",
        )  # fmt: skip


def check_scores(scores: np.ndarray, *, num_clips: int, num_classes: int) -> None:
    """Raise UserError unless there is a finite score of each class for each clip: the functions here take it so."""
    if scores.shape != (num_clips, num_classes):
        raise UserError("scores", got=f"shape {scores.shape}", wanted=f"({num_clips}, {num_classes}), clips by classes")
    if not np.isfinite(scores).all():
        got = f"{int((~np.isfinite(scores)).sum())} of {scores.size}"
        raise UserError("scores that are no numbers", got=got, wanted="finite numbers")
