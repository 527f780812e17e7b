"""Batches of clips by their features: what `data/assemble.py` does with pixels, for a model that reads features.

A clip that the table has no features of becomes a row with `valid` False; features of another video end the run.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from mama_ray.data.assemble import text_of
from mama_ray.data.index_rows import TakesRows
from mama_ray.data.region_features.packing import pack_features
from mama_ray.data.region_features.table import FeatureTable, NoFeatures
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.sampling import row_rng
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureAssembler:
    """Assembles batches of the clips of one table (rows of the index) from a table of features.

    Attributes:
        features: URI of the folder that jobs/features.py wrote.
        num_regions: of the model; the first ones are taken.
    """

    table: TakesRows
    features: str
    num_regions: int
    tokenizer: Tokenizer
    caption_probabilities: Mapping[str, float] | None = None
    joins_captions: bool = False
    generated_apart: bool = False
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return frames (batch, clips, frames, packed) float32, token_ids, rows and valid of the given rows.

        With `epochs` the choice of caption is random as `ClipAssembler`'s is; features are the same in every epoch.
        """
        chosen = self.table.select(["clip_id", "sha256", "captions"]).take(pa.array(rows, pa.int64())).to_pylist()
        source = features_at(self.features)
        frames = np.zeros((len(rows), *source.shape.packed_shape(self.num_regions)), np.float32)
        valid, texts = np.ones(len(rows), bool), []
        for position, record in enumerate(chosen):
            rng = None if epochs is None else row_rng(self.seed, int(epochs[position]), int(rows[position]))
            drawn_by = {"probabilities": self.caption_probabilities, "apart": self.generated_apart}
            texts.append(text_of(record["captions"], rng, joins=self.joins_captions, **drawn_by))
            try:
                found = source.read(record["clip_id"], record["sha256"], num_regions=self.num_regions)
                frames[position] = pack_features(found)
            except NoFeatures as error:
                valid[position] = False
                logger.warning("%s", error)
        return {
            "frames": frames,
            "token_ids": self.tokenizer(texts),
            "rows": np.asarray(rows, np.int64),
            "valid": valid,
        }


@lru_cache(maxsize=2)
def features_at(uri: str) -> FeatureTable:
    """Open a table of features, once per process."""
    return FeatureTable(Place.of(uri))
