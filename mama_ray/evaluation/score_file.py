"""Files of scores that any model gave to an annotated benchmark's clips: .npz of plain arrays, nothing pickled.

| family | arrays |
|---|---|
| multi_instance | similarity (clips, captions), or video_features and text_features of any dim |
| classification | action, or verb, noun and action (EK-100); class (the others): scores or logits (clips, classes) |
| multiple_choice | scores (questions, choices) |

Rows are in the order of the annotation files, or as an array clip_ids of texts says; EgoMCQ's are always in file order,
and clip_ids is none of its arrays. Features are divided by their length: their cosines count. An array of another name
is refused, since nothing would tell that it does not count.
"""

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
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

_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_DEFLATED = 1032  # bytes that deflate makes of one
# What zipfile and numpy raise over a damaged file, a header of theirs that cannot be parsed among it.
_FAULTS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError, OSError, EOFError,
    SyntaxError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError,
)  # fmt: skip


def read_score_file(content: bytes, source: str) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz; UserError for anything else, and for arrays of objects, which are pickles."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = file.infolist()
            doubled = [name for name, count in Counter(one.filename for one in members).items() if count > 1]
            if doubled:
                raise ValueError(f"{doubled[0]} twice")
            return {one.filename.removesuffix(".npy"): _read_member(file, one) for one in members}
    except _FAULTS as error:
        got = f"{source} ({str(error) or type(error).__name__})"
        raise UserError("no file of scores", got=got, wanted=".npz of plain arrays") from None


def _read_member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return the array of a member; ValueError where its header claims more or less than the member has."""
    name = member.filename
    if not name.endswith(".npy"):
        raise ValueError(f"{name}, wanted members NAME.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in another way than numpy's")
    if member.file_size > _MOST_DEFLATED * (member.compress_size + 1):
        raise ValueError(f"{name} claims {member.file_size:,} bytes and has {member.compress_size:,} packed ones")
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _READ_HEADER:
            raise ValueError(f"{name} is of version {version} of numpy's format")
        shape, is_fortran, dtype = _READ_HEADER[version](stream)
        claimed, real = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if dtype.hasobject:
            raise ValueError(f"{name} is of objects, which are pickles")
        if min(shape, default=0) < 0 or not dtype.itemsize or claimed != real:
            raise ValueError(f"{name} of shape {shape} claims {claimed:,} bytes and has {real:,}")
        values = np.frombuffer(stream.read(), dtype)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def measure_file(benchmark: AnnotatedBenchmark, targets: Targets, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the metrics in percent of a file's scores; UserError for arrays that are not the benchmark's."""
    missing = np.zeros(len(targets.clip_ids), bool)
    _refuse_unknown(targets, arrays)
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
    leaves_out = benchmark.leaves_out_absent
    return measure_classes(
        targets, {name: scores[place] for name, scores in given.items()}, missing, leaves_out_absent=leaves_out
    )


def _refuse_unknown(targets: Targets, arrays: Mapping[str, np.ndarray]) -> None:
    if isinstance(targets, ChoiceTargets):
        known = ("scores",)
    elif isinstance(targets, MultiInstanceTargets):
        known = (*(("similarity",) if "similarity" in arrays else ("video_features", "text_features")), CLIP_IDS)
    else:
        known = (*(("class",) if targets.parts is None else ("action", "verb", "noun")), CLIP_IDS)
    unknown = [name for name in arrays if name not in known]
    if unknown:
        remedy = "similarity and features are two ways, give one" if "similarity" in arrays else None
        got, wanted = ", ".join(unknown), " and ".join((", ".join(known[:-1]), known[-1])) if known[1:] else known[0]
        raise UserError("unknown arrays among the scores", got=got, wanted=wanted, remedy=remedy)


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
    videos, texts = _units(videos, "video_features"), _units(texts, "text_features")
    return similarity_of_features(videos[place], texts)


def _units(features: np.ndarray, name: str) -> np.ndarray:
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not ((lengths > 0) & np.isfinite(lengths)).all():
        got = f"{int((~((lengths > 0) & np.isfinite(lengths))).sum())} of them"
        raise UserError(f"{name} without a direction", got=got, wanted="features of a length above 0")
    return features / lengths


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
