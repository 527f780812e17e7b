"""A clip's generated caption beside its own text, for a loss that has a part of both (objective.generated_share)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mama_ray.data.batch import GENERATED_IDS, TARGET_PREFIX
from mama_ray.data.captions import split_generated
from mama_ray.data.classes.names import HAS_GENERATED
from mama_ray.data.index_rows import TakesRows
from mama_ray.data.questions.assemble import AssemblesClips
from mama_ray.data.tokenizer import Tokenizer

_SECOND = 0x67656E  # key of random numbers: which of several generated captions


@dataclass(frozen=True)
class SecondCaptions:
    """Adds to the batches of an epoch a generated caption of each clip that has one beside its own text.

    Attributes:
        clips: makes the clips' arrays, with texts that are drawn apart from generated ones.
        table: their table.
    """

    clips: AssemblesClips
    table: TakesRows
    tokenizer: Tokenizer
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the clips' arrays; with epochs also generated_ids, of a clip without one those of its own text, and
        which clips have one. Of several one is drawn evenly, by seed, epoch and row."""
        arrays = self.clips.assemble(rows, epochs)
        if epochs is None:
            return arrays
        captions = self.table.select(["captions"]).take(pa.array(rows, pa.int64()))["captions"].to_pylist()
        found: dict[int, str] = {}
        for place, (own, epoch, row) in enumerate(zip(captions, epochs, rows, strict=True)):
            generated = split_generated(own)[1]
            if generated:
                rng = np.random.default_rng((self.seed, _SECOND, int(epoch), int(row)))
                found[place] = generated[int(rng.integers(len(generated)))]["text"]
        ids, has_generated = arrays["token_ids"].copy(), np.zeros(len(captions), bool)
        if found:
            places = list(found)
            ids[places], has_generated[places] = self.tokenizer(list(found.values())), True
        return arrays | {GENERATED_IDS: ids, TARGET_PREFIX + HAS_GENERATED: has_generated}
