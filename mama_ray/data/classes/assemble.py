"""Batches of clips with the classes of each and of its text, which may be another clip's of like classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from mama_ray.data.batch import TARGET_PREFIX
from mama_ray.data.classes.names import ACTION, CLASS, OF_TEXT, OF_VIDEO
from mama_ray.data.classes.table import COLUMN_PREFIX
from mama_ray.data.questions.assemble import AssemblesClips
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError

_POSITIVES, _FLIPS = 0x706F73, 0x666C69  # keys of random numbers: a positive text, whether a clip is mirrored
_KEPT_SETS = 256

MultiHot = dict[str, np.ndarray]
"""Class sets by kind: (rows, classes) of uint8."""


def multi_hot(clips: pa.Table, sizes: Mapping[str, int]) -> MultiHot:
    """Return the class sets of a table's clips, of the kinds that make up relevance: all but actions, which are verb
    and noun at once."""
    found = {}
    for kind, size in sizes.items():
        if kind != ACTION:
            rows = clips[COLUMN_PREFIX + kind].to_pylist()
            found[kind] = np.zeros((len(rows), size), np.uint8)
            for row, numbers in zip(found[kind], rows, strict=True):
                row[numbers] = 1
    return found


class Sentences:
    """The different texts of a table's clips with the classes of the first clip that has each."""

    def __init__(self, clips: pa.Table, sizes: Mapping[str, int]) -> None:
        first_rows: dict[str, int] = {}
        for row, captions in enumerate(clips["captions"].to_pylist()):
            for caption in captions:
                first_rows.setdefault(caption["text"], row)
        self.texts = tuple(first_rows)
        self.classes = multi_hot(clips.take(pa.array(list(first_rows.values()), pa.int64())), sizes)
        self._sizes = {kind: sets.sum(1, dtype=np.float32) for kind, sets in self.classes.items()}
        self._floats = {kind: sets.astype(np.float32) for kind, sets in self.classes.items()}
        self.relevant_to = lru_cache(_KEPT_SETS)(self._relevant_to)

    def _relevant_to(self, sets: tuple[bytes, ...], above: float) -> np.ndarray:
        """Return the numbers of the texts whose relevance to a clip of these class sets is more than `above`."""
        relevance = np.zeros(len(self.texts), np.float32)
        for kind, content in zip(self._floats, sets, strict=True):
            own = np.frombuffer(content, np.uint8).astype(np.float32)
            shared = self._floats[kind] @ own
            relevance += shared / np.maximum(self._sizes[kind] + own.sum() - shared, 1)
        return np.flatnonzero(relevance / len(self._floats) > above)


@dataclass(frozen=True)
class ClassAssembler:
    """Adds to a batch of clips the classes of each clip and of its text, and the class of each kind to be learned.

    Attributes:
        clips: makes the clips' arrays.
        table: their table, with columns of classes.
        sizes: how many classes each kind has.
        sentences: where given, an epoch pairs a clip with one of these texts, drawn evenly of those whose relevance to
            it is more than `relevant_above` (arXiv 2212.04501's fine-tuning), in the place of its own.
        tokenizer: of these texts.
        flip: share of the clips that an epoch shows mirrored left to right.
    """

    clips: AssemblesClips
    table: pa.Table
    sizes: Mapping[str, int]
    tokenizer: Tokenizer
    sentences: Sentences | None = None
    relevant_above: float = 0.0
    flip: float = 0.0
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the clips' arrays with the targets of `names.py`; without epochs every text is the clip's own."""
        arrays = self.clips.assemble(rows, epochs)
        chosen = self.table.take(pa.array(rows, pa.int64()))
        of_video = multi_hot(chosen, self.sizes)
        of_text = of_video
        if self.sentences is not None and epochs is not None:
            drawn = self._draw(self.sentences, of_video, rows, epochs, chosen["clip_id"].to_pylist())
            arrays["token_ids"] = self.tokenizer([self.sentences.texts[number] for number in drawn])
            of_text = {kind: sets[drawn] for kind, sets in self.sentences.classes.items()}
        if self.flip and epochs is not None:
            is_mirrored = [self._rng(_FLIPS, *of).random() < self.flip for of in zip(epochs, rows, strict=True)]
            arrays["frames"][is_mirrored] = arrays["frames"][is_mirrored][..., ::-1, :]
        for side, sets_of_kinds in ((OF_VIDEO, of_video), (OF_TEXT, of_text)):
            arrays |= {TARGET_PREFIX + side + kind: sets for kind, sets in sets_of_kinds.items()}
        for kind in self.sizes:
            first = [numbers[0] if numbers else -1 for numbers in chosen[COLUMN_PREFIX + kind].to_pylist()]
            arrays[TARGET_PREFIX + CLASS + kind] = np.asarray(first, np.int64)
        return arrays

    def _draw(
        self,
        sentences: Sentences,
        of_video: MultiHot,
        rows: np.ndarray | Sequence[int],
        epochs: np.ndarray | Sequence[int],
        names: Sequence[str],
    ) -> np.ndarray:
        drawn = np.empty(len(names), np.int64)
        for place, name in enumerate(names):
            sets = tuple(of_kind[place].tobytes() for of_kind in of_video.values())
            relevant = sentences.relevant_to(sets, self.relevant_above)
            if not len(relevant):
                raise UserError(
                    "no text is relevant to a clip", got=f"clip {name}", wanted="a relevance of more than "
                    f"{self.relevant_above:g}", remedy="lower data.positive_relevance, or give the clip its classes",
                )  # fmt: skip
            rng = self._rng(_POSITIVES, epochs[place], rows[place])
            drawn[place] = relevant[int(rng.integers(len(relevant)))]
        return drawn

    def _rng(self, purpose: int, epoch: int, row: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, purpose, int(epoch), int(row)))))
