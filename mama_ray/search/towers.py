"""Both towers of a model for queries and for the index: sentences and videos in, unit features out."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mama_ray.encoder.decoding import VideoError
from mama_ray.encoder.encoder import Encoder, load_encoder
from mama_ray.errors import UserError

logger = logging.getLogger(__name__)


class Towers:
    """A model as search uses it. Texts and videos may come from several threads.

    Attributes:
        model_hash: stands for all that a feature depends on beside the video or text: weights, frames, precision.
        source: the model as it was named.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.model_hash, self.source = encoder.features_id, encoder.source

    @classmethod
    def load(
        cls, uri: str, *, device: str | None = None, batch_size: int = 32, num_processes: int | None = None
    ) -> "Towers":
        """Load a run, a checkpoint, a model folder, a URI of these, or with `hf:` a dual encoder of Hugging Face.

        Raises UserError for what is no whole model. See `load_encoder` for the others.
        """
        return cls(load_encoder(uri, device=device, batch_size=batch_size, num_processes=num_processes))

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self._encoder.dim

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode sentences, float32 (len(texts), dim), unit norm. UserError for what is no text."""
        return self._encoder.encode_texts(texts)

    def embed_video(self, video: str | Path | bytes) -> np.ndarray:
        """Encode a file or its bytes, float32 (dim,), unit norm; decoded by a process that it may crash without harm.

        Raises UserError, with the reason, for a video that cannot be used.
        """
        (found,) = self.embed_videos([video])
        if isinstance(found, VideoError):
            raise UserError("the video cannot be used", got=found.reason)
        return found

    def embed_videos(self, videos: Sequence[str | Path | bytes]) -> list[np.ndarray | VideoError]:
        """Encode many, in order: a feature, float32 (dim,), or why there is none."""
        return self._encoder.encode_each(videos)
