"""How relevant a text is to a clip, by the classes of both: EPIC-KITCHENS-100's graded relevance, for a loss.

rel = mean over kinds (verb, noun) of |A n B| / |A u B|, A and B the class sets of clip and text; a kind of which
neither has a class counts 0. Verbs are sets of one, so their share is 1 or 0.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mama_ray.data.classes.names import OF_TEXT, OF_VIDEO

ClassSets = tuple[Tensor, ...]
"""The class sets of some clips or texts: of each kind (batch, classes), 1 for a class that is in the set."""


class PairClasses(NamedTuple):
    """The class sets of this rank's clips, and of the texts that they are paired with."""

    videos: ClassSets
    texts: ClassSets


def pair_classes(targets: Mapping[str, Tensor]) -> PairClasses:
    """Return the class sets among a batch's targets; the kinds in the order of their names."""
    kinds = sorted(name.removeprefix(OF_VIDEO) for name in targets if name.startswith(OF_VIDEO))
    assert kinds, "a loss by relevance needs the classes of each sample among its targets"
    return PairClasses(
        tuple(targets[OF_VIDEO + kind] for kind in kinds), tuple(targets[OF_TEXT + kind] for kind in kinds)
    )


def relevance_between(
    rows: Sequence[Tensor], columns: Sequence[Tensor], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "rows columns"]:
    """Return the relevance of everything in `rows` to everything in `columns`."""
    kinds = []
    for own, others in zip(rows, columns, strict=True):
        own, others = own.to(dtype), others.to(dtype)
        shared = own @ others.T
        kinds.append(shared / (own.sum(1)[:, None] + others.sum(1)[None, :] - shared).clamp(min=1))
    return torch.stack(kinds).mean(0)


def relevance_of_pairs(classes: PairClasses, dtype: torch.dtype = torch.float32) -> Float[Tensor, " batch"]:
    """Return the relevance of each clip's own text to it."""
    kinds = []
    for video, text in zip(*classes, strict=True):
        video, text = video.to(dtype), text.to(dtype)
        shared = (video * text).sum(1)
        kinds.append(shared / (video.sum(1) + text.sum(1) - shared).clamp(min=1))
    return torch.stack(kinds).mean(0)
