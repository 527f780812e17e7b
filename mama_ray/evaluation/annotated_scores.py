"""From features, outputs of heads or scores of others to the metrics of an annotated benchmark.

A missing clip is wrong: as a query it has 0, in a gallery it is last and earns nothing where it is right, no class of
it is the right one, and neither is a choice among it and others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mama_ray.errors import UserError
from mama_ray.evaluation.classification import (
    average_precisions,
    marginal_scores,
    mean_class_accuracy,
    require_class_positives,
    softmax,
    top_k_accuracy,
)
from mama_ray.evaluation.multi_instance import mean_metrics, require_query_positives, score_both_ways
from mama_ray.evaluation.multiple_choice import choice_metrics
from mama_ray.evaluation.targets import ChoiceTargets, ClassTargets, MultiInstanceTargets, Targets

_UNKNOWN = 30.0  # below the least logit: no probability, and finite

Pool = Literal["mean", "max"]
Missing = Bool[np.ndarray, " clips"]
ClassScores = Mapping[str, Float[np.ndarray, "clips classes"]]
"""Scores by head: action, or verb, noun and action, of EK-100; class of the others."""


def pool_views(scores: Float[np.ndarray, "clips views classes"], pool: Pool) -> Float[np.ndarray, "clips classes"]:
    """Return the scores of clips from those of their views."""
    return scores.max(axis=1) if pool == "max" else scores.mean(axis=1)


def zero_shot_scores(
    targets: ClassTargets,
    video_features: Float[np.ndarray, "clips views dim"],
    text_features: Float[np.ndarray, "texts dim"],
    pool: Pool,
) -> dict[str, np.ndarray]:
    """Return cosines of clips and classes; a class is the direction of the mean of its texts' features."""
    sums = np.zeros((len(targets.class_names), text_features.shape[1]))
    np.add.at(sums, targets.text_classes, text_features.astype(np.float64))
    classes = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    # In float32: 9,668 clips by 3,806 actions take 140 MiB.
    scores = np.empty((len(video_features), len(classes)), np.float32)
    for row, views in enumerate(video_features):
        scores[row] = pool_views(views.astype(np.float64)[None] @ classes.T, pool)[0]
    return {"action" if targets.parts else "class": scores}


def head_scores(
    targets: ClassTargets,
    outputs: Mapping[str, Float[np.ndarray, "clips views classes"]],
    *,
    actions: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Return the scores of trained heads from their logits by name, whose mean over the views is taken as in LaViLa's
    release, whatever is done with cosines: the one place where heads are plugged in.

    One head of EK-100 is `action`, from which verbs and nouns follow; three are verb, noun and action. Where there are
    no verbs, `action` is the class as well. actions: names "verb:noun" of the head's actions, which may be others than
    the benchmark's: one that the head does not know has the lowest score. UserError for heads of other names or sizes.
    """
    found = {name: pool_views(logits, "mean") for name, logits in outputs.items()}
    if targets.parts is None and "class" not in found and "action" in found:
        found = {"class": found["action"]}
    elif targets.parts is not None and actions and "action" in found:
        found["action"] = _by_name(found["action"], actions, targets.class_names)
    check_class_scores(targets, found)
    return found


def _by_name(scores: np.ndarray, given: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return the columns in the order of the wanted names."""
    if len(given) != scores.shape[1]:
        raise UserError("names of the head's actions", got=len(given), wanted=scores.shape[1])
    places = {name: place for place, name in enumerate(given)}
    known = [place for place, name in enumerate(wanted) if name in places]
    if not known:
        raise UserError("the head knows none of the benchmark's actions", got=given[0], wanted=wanted[0])
    whole = np.repeat(scores.min(axis=1, keepdims=True) - _UNKNOWN, len(wanted), axis=1)
    whole[:, known] = scores[:, [places[wanted[place]] for place in known]]
    return whole


def _sizes(targets: ClassTargets) -> dict[str, int]:
    if targets.parts is None:
        return {"class": len(targets.class_names)}
    parts = targets.parts
    return {"action": len(targets.class_names), "verb": parts.num_verbs, "noun": parts.num_nouns}


def _require_heads(found: Mapping[str, int], sizes: Mapping[str, int]) -> None:
    first = next(iter(sizes))
    odd = {name: size for name, size in found.items() if sizes.get(name) != size}
    if odd or first not in found:
        got = ", ".join(f"{name} of {size}" for name, size in found.items()) or "none"
        wanted = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise UserError("scores of classes do not fit the benchmark", got=got, wanted=f"{wanted} (the first at least)")


def check_class_scores(targets: ClassTargets, scores: ClassScores) -> None:
    """Raise UserError where scores are of other heads or sizes than the benchmark's."""
    _require_heads({name: one.shape[1] for name, one in scores.items()}, _sizes(targets))


def require_measurable(targets: Targets, *, leaves_out_absent: bool) -> None:
    """Raise UserError where the annotations alone leave a metric without a number, before a clip is embedded."""
    if isinstance(targets, MultiInstanceTargets):
        require_query_positives(targets.videos, targets.captions)
    elif isinstance(targets, ClassTargets) and targets.is_multi_label and not leaves_out_absent:
        require_class_positives(targets.labels, targets.class_names)


def measure_multi_instance(
    targets: MultiInstanceTargets, similarity_of: Callable[[str, slice], np.ndarray], missing: Missing
) -> dict[str, float]:
    """Return mAP, nDCG and strict_mAP in percent, both ways and their mean."""
    return mean_metrics(score_both_ways(similarity_of, targets.videos, targets.captions, is_missing=missing))


def measure_classes(
    targets: ClassTargets,
    scores: ClassScores,
    missing: Missing,
    *,
    temperature: float = 1.0,
    leaves_out_absent: bool = False,
) -> dict[str, float]:
    """Return the metrics in percent. temperature: of the softmax where a metric takes one."""
    if targets.parts is not None:
        return _measure_actions(targets, scores, missing, temperature)
    if targets.is_multi_label:
        return _measure_labels(targets, scores["class"], missing, temperature, leaves_out_absent)
    masks = dict(targets.lists or {}) or {"all": np.ones(len(missing), bool)}
    by_list = {
        name: _accuracies(scores["class"][mask], targets.classes[mask], missing[mask]) for name, mask in masks.items()
    }
    names = next(iter(by_list.values()))
    metrics = {name: sum(own[name] for own in by_list.values()) / len(by_list) for name in names}
    if len(by_list) > 1:
        metrics |= {f"{part}/{name}": value for part, own in by_list.items() for name, value in own.items()}
    return metrics


def _accuracies(scores: np.ndarray, classes: np.ndarray, missing: Missing) -> dict[str, float]:
    with_predicted = mean_class_accuracy(scores, classes, counts_predicted_only=True, missing=missing)
    return {
        "mean_class_accuracy": mean_class_accuracy(scores, classes, missing=missing),
        "mean_class_accuracy_with_predicted": with_predicted,
        "top1": top_k_accuracy(scores, classes, 1, missing=missing),
        "top5": top_k_accuracy(scores, classes, 5, missing=missing),
    }


def _measure_labels(
    targets: ClassTargets, scores: np.ndarray, missing: Missing, temperature: float, leaves_out_absent: bool
) -> dict[str, float]:
    """Two metrics, since over a video's classes the same scores rank the videos otherwise."""
    kept = np.flatnonzero(targets.labels.any(axis=0)) if leaves_out_absent else np.arange(len(targets.class_names))
    names = [targets.class_names[number] for number in kept]

    def mean_average_precision(found: np.ndarray) -> float:
        precisions = average_precisions(found[:, kept], targets.labels[:, kept], names, missing=missing)
        return 100.0 * float(precisions.mean())

    softened = softmax(scores, temperature)
    return {"mAP_raw": mean_average_precision(scores), "mAP_softmax": mean_average_precision(softened)}


def _measure_actions(
    targets: ClassTargets, scores: ClassScores, missing: Missing, temperature: float
) -> dict[str, float]:
    parts = targets.parts
    assert parts is not None
    probabilities = softmax(scores["action"], temperature)
    found = {
        "action": scores["action"],
        "verb": scores.get("verb", marginal_scores(probabilities, parts.verb_of, parts.num_verbs)),
        "noun": scores.get("noun", marginal_scores(probabilities, parts.noun_of, parts.num_nouns)),
    }
    right = {"action": targets.classes, "verb": parts.verbs, "noun": parts.nouns}
    metrics = {
        f"{name}_top{k}": top_k_accuracy(found[name], right[name], k, missing=missing)
        for name in right for k in (1, 5)
    }  # fmt: skip
    subsets = {
        "verb_top1_tail": ("verb", parts.tail_verbs), "noun_top1_tail": ("noun", parts.tail_nouns),
        "verb_top1_unseen": ("verb", parts.unseen), "noun_top1_unseen": ("noun", parts.unseen),
        "action_top1_unseen": ("action", parts.unseen),
    }  # fmt: skip
    return metrics | {
        name: top_k_accuracy(found[kind][mask], right[kind][mask], 1, missing=missing[mask])
        for name, (kind, mask) in subsets.items() if mask.any()
    }  # fmt: skip


def measure_choices(
    targets: ChoiceTargets, scores: Float[np.ndarray, "questions choices"], missing: Missing
) -> dict[str, float]:
    """Return accuracy_inter and accuracy_intra, and both under the names that public code prints.

    A question that offers a missing clip is wrong, whichever of the five it is: with one less the others are easier.
    """
    offers_missing = missing[targets.choices].any(axis=1, keepdims=True)
    known = np.where(offers_missing, -np.inf, scores)
    return choice_metrics(known, targets.answers, targets.types)


def choice_scores(
    targets: ChoiceTargets,
    video_features: Float[np.ndarray, "clips dim"],
    text_features: Float[np.ndarray, "texts dim"],
) -> Float[np.ndarray, "questions choices"]:
    """Return the products of each question's text and the clips that it offers."""
    offered = video_features[targets.choices]
    return np.einsum("qcd,qd->qc", offered.astype(np.float64), text_features.astype(np.float64))
