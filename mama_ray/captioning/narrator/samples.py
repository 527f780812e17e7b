"""From index rows to what a narrator learns from: the picture of each clip and the labels of one of its captions.

A pure function of (seed, epoch, row). A clip whose bytes or video are bad has `valid` False and a black picture: one
bad file must not end a run. A storage that fails is no fact about a clip, and does.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mama_ray.captioning.narrator.loss import CaptionLabels
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.data.captions import choose_caption
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureAssembler:
    """Assembles pictures and labels of the clips of one table (rows of the index)."""

    folder: Place
    table: pa.Table
    to_labels: CaptionLabels
    grid: ClipGridConfig
    side: int
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    caption_probabilities: Mapping[str, float] | None = None
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return pictures (batch, side, side, 3) uint8, labels (batch, tokens), rows and valid of the given rows.

        With `epochs` (one per row) the caption is drawn, keyed by seed, epoch and row; without, as in validation, it
        is the one that epoch 0 draws.
        """
        chosen = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        pictures = np.zeros((len(rows), self.side, self.side, 3), np.uint8)
        valid = np.ones(len(rows), bool)
        for position, payload in enumerate(read_payloads(self.folder, chosen)):
            try:
                if isinstance(payload, ShardError):
                    raise payload
                pictures[position] = make_clip_grid(payload, self.grid, side=self.side, decode=self.decode).pixels
            except (DecodeError, ShardError) as error:
                valid[position] = False
                logger.warning("clip %s cannot be used: %s", chosen[position]["clip_id"], error)
        captions = [
            choose_caption(
                record["captions"],
                probabilities=self.caption_probabilities,
                rng=row_rng(self.seed, int(epoch), int(row)),
            )
            for record, row, epoch in zip(chosen, rows, np.zeros(len(rows)) if epochs is None else epochs, strict=True)
        ]
        return {
            "pictures": pictures,
            "labels": self.to_labels(captions),
            "rows": np.asarray(rows, np.int64),
            "valid": valid,
        }
