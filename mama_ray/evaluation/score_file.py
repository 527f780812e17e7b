"""Files of scores that any model gave to an annotated benchmark's clips: .npz of plain arrays, nothing pickled.

| family | arrays |
|---|---|
| multi_instance | similarity (clips, captions), or video_features and text_features of any dim |
| classification | action, or verb, noun and action (EK-100); class (the others): scores or logits (clips, classes) |
| multiple_choice | scores (questions, choices) |

Rows are in the order of the annotation files, or as an array clip_ids of texts says; EgoMCQ's are always in file order.
"""

import io
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedBenchmark, ClassificationBenchmark
from mama_ray.evaluation.annotated_scores import (
    check_class_scores,
    measure_choices,
    measure_classes,
    measure_multi_instance,
)
from mama_ray.evaluation.classification import check_scores
from mama_ray.evaluation.multi_instance import similarity_of_features, similarity_of_matrix
from mama_ray.evaluation.targets import ChoiceTargets, ClassTargets, MultiInstanceTargets, Targets

CLIP_IDS = "clip_ids"


def read_score_file(content: bytes, source: str) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz; UserError for anything else, and for arrays of objects, which are pickles."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError("no file of scores", got=f"{source} ({error})", wanted=".npz of plain arrays") from None


def measure_file(benchmark: AnnotatedBenchmark, targets: Targets, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the metrics in percent of a file's scores; UserError for arrays that are not the benchmark's."""
    missing = np.zeros(len(targets.clip_ids), bool)
    if isinstance(targets, ChoiceTargets):
        scores = _array(arrays, "scores")
        check_scores(scores, num_clips=len(targets.texts), num_classes=targets.choices.shape[1])
        return measure_choices(targets, scores, missing)
    place = _order(targets.clip_ids, arrays.get(CLIP_IDS))
    if isinstance(targets, MultiInstanceTargets):
        return measure_multi_instance(targets, _similarity(targets, arrays, place), missing)
    assert isinstance(targets, ClassTargets) and isinstance(benchmark, ClassificationBenchmark)
    given = {name: _array(arrays, name) for name in arrays if name != CLIP_IDS}
    for scores in given.values():
        check_scores(scores, num_clips=len(missing), num_classes=scores.shape[-1] if scores.ndim else 0)
    check_class_scores(targets, given)
    leaves_out = benchmark.absent_classes == "left_out"
    return measure_classes(
        targets, {name: scores[place] for name, scores in given.items()}, missing, leaves_out_absent=leaves_out
    )


def _similarity(
    targets: MultiInstanceTargets, arrays: Mapping[str, np.ndarray], place: np.ndarray
) -> Callable[[str, slice], np.ndarray]:
    num_clips, num_texts = len(targets.clip_ids), len(targets.texts)
    if "similarity" in arrays:
        matrix = _array(arrays, "similarity")
        check_scores(matrix, num_clips=num_clips, num_classes=num_texts)
        return similarity_of_matrix(matrix if _is_in_order(place) else matrix[place])
    videos, texts = _array(arrays, "video_features"), _array(arrays, "text_features")
    dim = videos.shape[-1] if videos.ndim else 0
    check_scores(videos, num_clips=num_clips, num_classes=dim)
    check_scores(texts, num_clips=num_texts, num_classes=dim)
    return similarity_of_features(videos[place], texts)


def _array(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise UserError("an array of scores is missing", got=", ".join(arrays) or "none", wanted=name)
    found = arrays[name]
    if found.dtype.kind not in "fiu":
        raise UserError(f"{name} of the scores", got=f"values of type {found.dtype}", wanted="numbers")
    return found.astype(np.float64) if found.dtype.kind != "f" else found


def _order(clip_ids: tuple[str, ...], given: np.ndarray | None) -> np.ndarray:
    """Return which row of the file each clip has."""
    if given is None:
        return np.arange(len(clip_ids))
    rows = {str(name): row for row, name in enumerate(given.ravel().tolist())}
    missing = [name for name in clip_ids if name not in rows]
    if missing or len(rows) != given.size or len(rows) != len(clip_ids):
        got = f"{given.size} rows, {len(missing)} clips without one{f', {missing[0]}' if missing else ''}"
        wanted = f"each of {len(clip_ids)} once"
        raise UserError("clip_ids of the scores are not the benchmark's", got=got, wanted=wanted)
    return np.array([rows[name] for name in clip_ids])


def _is_in_order(place: np.ndarray) -> bool:
    return bool((place == np.arange(len(place))).all())
