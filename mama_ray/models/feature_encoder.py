"""Features of frames and texts in numpy, by a dual encoder and its tokenizer: what evaluation and `Encoder` share."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import Classifier, load_classifier
from mama_ray.models.hub import evaluated_model, prefix_of
from mama_ray.models.pretrained import from_pretrained
from mama_ray.storage.places import storage_errors


@runtime_checkable
class ProjectingEncoder(Protocol):
    """A dual encoder that also gives its projections as they are, before they are brought to unit norm."""

    def project_video(self, frames: Any) -> Tensor:
        """Return (batch, dim), whose direction is that of `encode_video`."""

    def project_text(self, token_ids: Tensor) -> Tensor:
        """Return (texts, dim), whose direction is that of `encode_text`."""


Precision = Literal["float32", "bfloat16", "float16"]
_NORM_TOLERANCE = 0.01  # far above rounding


# None: the GPU where there is one.
Device = str | torch.device | None


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
        device: Device = None,
        precision: Precision = "float32",
        is_raw: bool = False,
    ) -> None:
        """is_raw: features are projections of any norm; UserError for a model that cannot give them."""
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model: DualEncoder = model.eval().to(self.device)
        self._tokenizer = tokenizer
        self._dtype = None if precision == "float32" else getattr(torch, precision)
        self._is_raw = is_raw
        self._encode_video, self._encode_text = self._model.encode_video, self._model.encode_text
        if is_raw:
            if not isinstance(model, ProjectingEncoder):
                got = f"a model of type {model.model_type}"
                wanted = "one that gives its projections before they are normalised"
                raise UserError(
                    "raw scores", got=got, wanted=wanted, remedy="set score: cosine in the benchmark's file"
                )
            self._encode_video, self._encode_text = model.project_video, model.project_text

    @classmethod
    def of_classifier(
        cls, classifier: Classifier, tokenizer: Tokenizer, *, batch_size: int, device: Device = None
    ) -> "FeatureEncoder":
        """Return an encoder whose features of a clip are the logits of its classes, all kinds side by side."""
        encoder = cls(classifier.encoder, tokenizer, batch_size=batch_size, device=device)
        classifier.head.to(encoder.device)
        encoder._encode_video, encoder._is_raw = classifier.logits, True
        return encoder

    @classmethod
    def load(
        cls, uri: str, *, text_length: int | None, batch_size: int, device: Device = None, is_raw: bool = False
    ) -> "FeatureEncoder":
        """Load a model folder of any storage, or what `hf:` names, in float32."""
        prefix = prefix_of(uri)
        with storage_errors(uri), evaluated_model(uri) as folder:
            tokenizer = Tokenizer.from_directory(folder, text_length)
            model = from_pretrained(f"{prefix}{folder}", trained_only=True)
            return cls(model, tokenizer, batch_size=batch_size, device=device, is_raw=is_raw)

    @classmethod
    def load_classifier(cls, uri: str, *, batch_size: int, device: Device = None) -> "FeatureEncoder":
        """Load a model folder with its heads, as `of_classifier` takes them."""
        with storage_errors(uri), evaluated_model(uri) as folder:
            classifier = load_classifier(folder, trained_only=True)
            tokenizer = Tokenizer.from_directory(folder)
            return cls.of_classifier(classifier, tokenizer, batch_size=batch_size, device=device)

    def video_features(self, frames: np.ndarray, *, size: int | None = None) -> np.ndarray:
        """Return float32 (clips, dim) of uint8 (clips, frames, height, width, 3), at most a batch of them.

        `size` is that of the batch where it is not to be `batch_size`.
        """
        return self._encode(self._encode_video, frames, size or self.batch_size)

    def text_features(self, texts: list[str], *, size: int | None = None) -> np.ndarray:
        """Return float32 (texts, dim) of any number of texts, at least one."""
        size = size or self.batch_size
        parts = [self._tokenizer(texts[start : start + size]) for start in range(0, len(texts), size)]
        return np.concatenate([self._encode(self._encode_text, part, size) for part in parts])

    @torch.inference_mode()
    def _encode(self, encode: Callable[[Tensor], Tensor], inputs: np.ndarray, size: int) -> np.ndarray:
        """Encode inputs filled up to a whole batch."""
        padding = [(0, size - len(inputs))] + [(0, 0)] * (inputs.ndim - 1)
        whole = torch.from_numpy(np.pad(inputs, padding, mode="edge")).to(self.device)
        with self._autocast():
            features = encode(whole)[: len(inputs)].float().cpu().numpy()
        if self._is_raw:
            _require_finite(features)
        else:
            _require_unit_norm(features)
        return features

    def _autocast(self) -> AbstractContextManager:
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, dtype=self._dtype)


def require_device(device: str | torch.device | None) -> None:
    """Raise UserError for a device that is none of this machine's; None is whichever there is."""
    if device is None:
        return
    try:
        torch.zeros(1, device=device).item()
    # torch says so in each of these ways: no such name, not built in, not there, no content (meta).
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        wanted = "cpu, or cuda where torch sees a GPU" if not torch.cuda.is_available() else "cpu or cuda"
        raise UserError("no such device here", got=device, wanted=wanted) from error


def _require_finite(features: np.ndarray) -> None:
    if not np.isfinite(features).all():
        raise UserError("the model gives features that are no numbers", wanted="weights whose features are finite")


def _require_unit_norm(features: np.ndarray) -> None:
    """Raise UserError where a feature is no direction: it would rank everywhere and nowhere, without a word."""
    norms = np.linalg.norm(features, axis=1)
    if not (np.abs(norms - 1) < _NORM_TOLERANCE).all():
        raise UserError(
            "the model gives features that are no unit vectors",
            got=f"norm {norms[~(np.abs(norms - 1) < _NORM_TOLERANCE)][0]}",
            wanted="weights whose features are finite",
            remedy="compute in float32 or bfloat16 where it was float16; else take another checkpoint",
        )
