"""Features of frames and texts in numpy, by a dual encoder and its tokenizer: what evaluation and `Encoder` share."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.pretrained import from_pretrained
from mama_ray.storage.places import Place, storage_errors

Precision = Literal["float32", "bfloat16", "float16"]


class FeatureEncoder:
    """Encodes in batches of one size.

    A matrix product of another size rounds otherwise; with one size equal captions get equal features and tie.
    """

    def __init__(
        self,
        model: DualEncoder,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model: DualEncoder = model.eval().to(self.device)
        self._tokenizer = tokenizer
        self._dtype = None if precision == "float32" else getattr(torch, precision)

    @classmethod
    def load(cls, uri: str, *, text_length: int | None, batch_size: int) -> "FeatureEncoder":
        """Load a model folder of any storage, in float32, onto the GPU where there is one."""
        with storage_errors(uri), Place.of(uri).local() as folder:
            tokenizer = Tokenizer.from_directory(folder, text_length)
            return cls(from_pretrained(folder, trained_only=True), tokenizer, batch_size=batch_size)

    def video_features(self, frames: np.ndarray, *, size: int | None = None) -> np.ndarray:
        """Return float32 (clips, dim) of uint8 (clips, frames, height, width, 3), at most a batch of them.

        `size` is that of the batch where it is not to be `batch_size`.
        """
        return self._encode(self._model.encode_video, frames, size or self.batch_size)

    def text_features(self, texts: list[str], *, size: int | None = None) -> np.ndarray:
        """Return float32 (texts, dim) of any number of texts, at least one."""
        size = size or self.batch_size
        parts = [self._tokenizer(texts[start : start + size]) for start in range(0, len(texts), size)]
        return np.concatenate([self._encode(self._model.encode_text, part, size) for part in parts])

    @torch.inference_mode()
    def _encode(self, encode: Callable[[Tensor], Tensor], inputs: np.ndarray, size: int) -> np.ndarray:
        """Encode inputs filled up to a whole batch."""
        padding = [(0, size - len(inputs))] + [(0, 0)] * (inputs.ndim - 1)
        whole = torch.from_numpy(np.pad(inputs, padding, mode="edge")).to(self.device)
        with self._autocast():
            return encode(whole)[: len(inputs)].float().cpu().numpy()

    def _autocast(self) -> AbstractContextManager:
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, dtype=self._dtype)
