"""From index rows to what a narrator learns from: what it is shown of each clip and the labels of one of its captions.

A pure function of (seed, epoch, row). A clip whose bytes or video are bad has `valid` False and black pixels: one bad
file must not end a run. A storage that fails is no fact about a clip, and does.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from mama_ray.captioning.narrator.kind import Labels, Show
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.data.captions import choose_caption
from mama_ray.data.reading import read_payloads
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.sampling import row_rng
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridShow:
    """Shows a clip as one square picture of key frames; nothing is random."""

    grid: ClipGridConfig
    side: int
    decode: DecodeConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the picture."""
        return (self.side, self.side, 3)

    def __call__(self, payload: bytes, rng: np.random.Generator | None) -> UInt8[np.ndarray, "side side 3"]:
        """Return the picture. Raises DecodeError for a video that cannot be used."""
        return make_clip_grid(payload, self.grid, side=self.side, decode=self.decode).pixels


@dataclass(frozen=True)
class FrameShow:
    """Shows a clip as square frames, one of each equal part: at random moments and in one random crop in training."""

    num_frames: int
    transform: TransformConfig
    decode: DecodeConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the frames."""
        side = self.transform.image_size
        return (self.num_frames, side, side, 3)

    def __call__(self, payload: bytes, rng: np.random.Generator | None) -> UInt8[np.ndarray, "frames side side 3"]:
        """Return the frames, without `rng` as engines are shown them. Raises DecodeError as above."""
        how = self.transform if rng is not None else self.transform.model_copy(update={"resize": "center_crop"})
        return load_clip_frames(payload, num_frames=self.num_frames, transform=how, rng=rng, decode=self.decode)


@dataclass(frozen=True)
class SampleAssembler:
    """Assembles what is shown, and labels, of the clips of one table (rows of the index)."""

    folder: Place
    table: pa.Table
    to_labels: Labels
    show: Show
    caption_probabilities: Mapping[str, float] | None = None
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return pictures (batch, *shape of what is shown) uint8, labels (batch, tokens), rows and valid of the rows.

        With `epochs` (one per row) caption and moments are drawn, keyed by seed, epoch and row; without, as in
        validation, the caption is the one that epoch 0 draws and the clip is shown as outside training.
        """
        chosen = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        pictures = np.zeros((len(rows), *self.show.shape), np.uint8)
        valid = np.ones(len(rows), bool)
        captions = []
        keys = zip(rows, np.zeros(len(rows)) if epochs is None else epochs, strict=True)
        payloads = read_payloads(self.folder, chosen)
        for position, ((row, epoch), payload) in enumerate(zip(keys, payloads, strict=True)):
            rng = row_rng(self.seed, int(epoch), int(row))
            record = chosen[position]
            captions.append(choose_caption(record["captions"], probabilities=self.caption_probabilities, rng=rng))
            try:
                if isinstance(payload, ShardError):
                    raise payload
                pictures[position] = self.show(payload, None if epochs is None else rng)
            except (DecodeError, ShardError) as error:
                valid[position] = False
                logger.warning("clip %s cannot be used: %s", record["clip_id"], error)
        return {
            "pictures": pictures,
            "labels": self.to_labels(captions),
            "rows": np.asarray(rows, np.int64),
            "valid": valid,
        }
