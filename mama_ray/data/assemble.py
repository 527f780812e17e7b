"""From index rows to arrays: read the bytes, decode and transform the frames, choose and tokenise a caption.

A pure function of (seed, epoch, row), so a batch is the same whoever assembles it, on whatever try. A clip whose bytes
or video are bad becomes a row with `valid` False and a reason: one bad file must not end a run. A storage that fails is
no fact about a clip, and does.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mama_ray.data.captions import caption_for_evaluation, pick_caption, split_generated
from mama_ray.data.index_rows import TakesRows
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipAssembler:
    """Assembles batches of the clips of one table (rows of the index)."""

    folder: Place
    table: TakesRows
    tokenizer: Tokenizer
    num_frames: int
    transform: TransformConfig
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    caption_probabilities: Mapping[str, float] | None = None
    joins_captions: bool = False
    generated_apart: bool = False
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return frames (batch, frames, height, width, 3) uint8, token_ids, rows and valid of the given rows.

        With `epochs` (one per row) sampling, augmentation and the choice of caption are random, keyed by seed, epoch
        and row; without, everything is deterministic evaluation: segment centres and the first caption. With
        `joins_captions` the text is the paragraph of all captions in either case; with `generated_apart` an epoch's is
        none of the generated ones (`second_captions.py`). Raises UserError where the storage fails for good.
        """
        chosen = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        size = self.transform.image_size
        frames = np.zeros((len(rows), self.num_frames, size, size, 3), np.uint8)
        valid = np.ones(len(rows), bool)
        captions = []
        payloads = read_payloads(self.folder, chosen)
        for position, (record, payload) in enumerate(zip(chosen, payloads, strict=True)):
            rng = None if epochs is None else row_rng(self.seed, int(epochs[position]), int(rows[position]))
            drawn_by = {"probabilities": self.caption_probabilities, "apart": self.generated_apart}
            captions.append(text_of(record["captions"], rng, joins=self.joins_captions, **drawn_by))
            try:
                if isinstance(payload, ShardError):
                    raise payload
                frames[position] = load_clip_frames(
                    payload, num_frames=self.num_frames, transform=self.transform, rng=rng, decode=self.decode
                )
            except (DecodeError, ShardError) as error:
                valid[position] = False
                logger.warning("clip %s of %s cannot be used: %s", record["clip_id"], record["shard"], error)
        return {
            "frames": frames,
            "token_ids": self.tokenizer(captions),
            "rows": np.asarray(rows, np.int64),
            "valid": valid,
        }


def text_of(
    captions: list[dict],
    rng: np.random.Generator | None,
    *,
    joins: bool,
    probabilities: Mapping[str, float] | None,
    apart: bool = False,
) -> str:
    """Return the text of a clip: all captions as a paragraph (`joins`), a drawn one, or without `rng` the first; of a
    clip without captions, of which questions are asked all the same, the empty text."""
    if joins and captions:
        return str(caption_for_evaluation(captions, "paragraph"))
    caption = draw_caption(captions, rng, joins=joins, probabilities=probabilities, apart=apart)
    return "" if caption is None else caption["text"]


def draw_caption(
    captions: Sequence[Mapping[str, str]],
    rng: np.random.Generator | None,
    *,
    joins: bool,
    probabilities: Mapping[str, float] | None,
    apart: bool = False,
) -> Mapping[str, str] | None:
    """Return the caption that is a clip's text, of a paragraph (`joins`) the first; None of a clip without captions.

    apart: a generated one is drawn only of a clip that has no other.
    """
    if not captions:
        return None
    if rng is None or joins:
        return captions[0]
    if apart:
        captions = split_generated(captions)[0]
    return pick_caption(captions, probabilities=probabilities, rng=rng)
