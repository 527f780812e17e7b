"""Videos and texts in, features out: a trained model with all that its use takes.

    encoder = mama_ray.load_encoder("runs/mine")
    videos = encoder.encode_videos(["a.mp4", "b.mp4"])
    similarity = videos.features @ encoder.encode_texts(["a cat jumps"]).T

Frames, resizing and texts are those of evaluation, by the same functions, so the features are, too.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tqdm.auto import tqdm

from mama_ray.config import decisive_values
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import count_captions, tell_counts
from mama_ray.data.video.settings import DecodeConfig, Resize
from mama_ray.encoder.decoding import FrameLoader, VideoError
from mama_ray.encoder.source import model_path
from mama_ray.errors import UserError, unknown_name
from mama_ray.models.dual_encoder import DualEncoderConfig
from mama_ray.models.feature_encoder import FeatureEncoder, Precision, require_device
from mama_ray.models.hub import prefix_of
from mama_ray.models.pretrained import from_pretrained
from mama_ray.models.run_config import (
    RUN_CONFIG,
    evaluation_transform,
    trained_frames,
    trained_sampling,
    training_config,
)
from mama_ray.models.weight_files import hash_weights

logger = logging.getLogger(__name__)

_MOST_PROCESSES = 8
_FEATURES_VERSION = 1  # raise it where the same file and weights come to give other features


@dataclass(frozen=True)
class EncodedVideos:
    """What `Encoder.encode_videos` found.

    Attributes:
        features: float32 (len(paths), dim), unit norm: a row for each file that could be encoded, no others.
        paths: the files of the rows, in the order in which they were given.
        errors: the files without a row, each with its reason.
    """

    features: np.ndarray
    paths: list[str]
    errors: list[VideoError]


class Encoder:
    """A dual encoder, ready for files and sentences; made by `load_encoder`.

    Attributes:
        source: what was loaded, as it was named.
        num_frames, transform: how a video becomes frames.
        context_length: tokens of a text; a longer one loses its end.
        features_id: stands for all that the features of a video depend on, beside the video.
    """

    def __init__(
        self,
        features: FeatureEncoder,
        frames: FrameLoader,
        *,
        tokenizer: Tokenizer,
        source: str,
        features_id: str,
    ) -> None:
        self._features, self._frames, self._tokenizer = features, frames, tokenizer
        self.source, self.context_length, self.features_id = source, tokenizer.context_length, features_id
        self.num_frames, self.transform = frames.num_frames, frames.transform

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._features.device

    @cached_property
    def dim(self) -> int:
        """Length of a feature."""
        return self._features.text_features([""], size=1).shape[1]

    def encode_videos(self, paths: Sequence[str | Path], *, progress: bool = True) -> EncodedVideos:
        """Encode local video files; one that cannot be used is told in `errors` and does not stop the others.

        Each file is decoded in a process that it may crash without harm, within the limits of the encoder's
        `DecodeConfig`. `progress` shows a bar.
        """
        names = _names(_many(paths, "paths"))
        kept, rows, errors = [], [], []
        with tqdm(total=len(names), desc="videos", unit="video", disable=not progress) as bar:
            for name, found in zip(names, self._encoded(names), strict=True):
                bar.update()
                if isinstance(found, VideoError):
                    errors.append(found)
                    bar.set_postfix(errors=len(errors), refresh=False)
                else:
                    kept.append(name)
                    rows.append(found)
        if errors:
            logger.warning("%d of %d videos could not be encoded; first: %s", len(errors), len(names), errors[0])
        return EncodedVideos(np.stack(rows) if rows else self._none(), kept, errors)

    def encode_each(self, videos: Sequence[str | Path | bytes]) -> list[np.ndarray | VideoError]:
        """Encode local files or bytes of videos, decoded as by `encode_videos`.

        Returns in order a feature, float32 (dim,), or why there is none.
        """
        return list(self._encoded([video if isinstance(video, bytes) else _names([video])[0] for video in videos]))

    def _encoded(self, videos: Sequence[str | bytes]) -> Iterator[np.ndarray | VideoError]:
        """Yield each video's feature, or why it has none, in order; a batch is encoded when it is full."""
        size = min(self._features.batch_size, len(videos))
        found: list[np.ndarray | VideoError] = []  # frames of at most one batch, and the errors between them
        num_frames = 0
        for one in self._frames.load(videos):
            found.append(one)
            num_frames += not isinstance(one, VideoError)
            if num_frames == size:
                yield from self._with_features(found, size)
                found, num_frames = [], 0
        yield from self._with_features(found, size)

    def _with_features(self, found: list[np.ndarray | VideoError], size: int) -> Iterator[np.ndarray | VideoError]:
        batch = [frames for frames in found if not isinstance(frames, VideoError)]
        features = iter(self._features.video_features(np.stack(batch), size=size) if batch else ())
        yield from (one if isinstance(one, VideoError) else next(features) for one in found)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode sentences, float32 (len(texts), dim), unit norm; equal sentences have equal features.

        A warning tells how many are longer than `context_length`, or hold what the tokenizer does not know.
        """
        sentences = _many(texts, "texts")
        wrong = [text for text in sentences if not isinstance(text, str) or not _is_unicode(text)]
        if wrong:
            raise UserError("texts to encode", got=ascii(wrong[0]), wanted="a list of strings of whole characters")
        if not sentences:
            return self._none()
        counts = count_captions(self._tokenizer, sentences)
        for told in tell_counts(counts, remedy="shorten them, or say it in several", things="texts"):
            logger.warning("%s", told)
        return self._features.text_features(sentences, size=min(self._features.batch_size, len(sentences)))

    def _none(self) -> np.ndarray:
        return np.zeros((0, self.dim), np.float32)


def load_encoder(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    batch_size: int = 32,
    num_frames: int | None = None,
    resize: Resize | None = None,
    tokenizer: str | Path | None = None,
    decode: DecodeConfig | None = None,
    num_processes: int | None = None,
) -> Encoder:
    """Load a run (its best checkpoint by validation), a checkpoint, a model folder, a URI of these, or a hub id.

    Args:
        source: also a folder of a dual encoder of Hugging Face, or a released file of weights; `hf:` before a folder
            or hub id takes CLIP's as transformers computes it, frame by frame, `timesformer:` and `joint:` as the
            untrained start of another video model; `embedded` is the small one that comes with the package.
        device: the GPU if there is one, else the CPU.
        precision: of the computation; features are float32. Evaluation computes in float32.
        batch_size: most videos, or texts, encoded at a time.
        num_frames: of a video; by default as in training, else what the weights were made for.
        resize: how frames become squares; by default as in training.
        tokenizer: folder of CLIP's tokenizer, where none lies beside the weights.
        decode: limits of the decoder, and which frames it gives; by default those of training.
        num_processes: that decode; by default one per core, eight at most.

    Raises UserError for what is no whole model.
    """
    _check_counts({"batch_size": batch_size, "num_frames": num_frames, "num_processes": num_processes})
    _check_names({"precision": (precision, Precision), "resize": (resize, Resize)})
    require_device(device)
    with model_path(source) as path:
        prefix = prefix_of(str(source))
        model = from_pretrained(f"{prefix}{path}", trained_only=True)
        words = _tokenizer(Path(tokenizer) if tokenizer else path, model.config, source)
        training = training_config(path / RUN_CONFIG)
        digest = hash_weights(path)
    transform = evaluation_transform(model.config, training, resize)
    frames = FrameLoader(
        num_frames=num_frames or trained_frames(training) or model.config.num_frames,
        transform=transform,
        decode=decode or DecodeConfig(sampling=trained_sampling(training) or "times"),
        num_processes=num_processes or min(_MOST_PROCESSES, os.cpu_count() or 1),
    )
    features_id = _features_id(digest, model.config, frames, precision)
    encoder = FeatureEncoder(model, words, batch_size=batch_size, device=device, precision=precision)
    return Encoder(encoder, frames, tokenizer=words, source=str(source), features_id=features_id)


def _tokenizer(path: Path, config: DualEncoderConfig, source: str | Path) -> Tokenizer:
    """Load the tokenizer for texts as long as the model takes; UserError where its ids cannot be the model's."""
    if path.is_file():
        raise UserError("no tokenizer beside the weights", got=str(path), remedy="name its folder: tokenizer=...")
    stored = Tokenizer.from_directory(path)
    if not stored.fits(config.vocab_size):
        raise UserError(
            f"the tokenizer in {path} is not that of {source}",
            got=f"{stored.vocab_size} token ids",
            wanted=config.vocab_size,
        )
    return Tokenizer.from_directory(path, min(config.context_length, stored.context_length))


def _features_id(digest: str, config: DualEncoderConfig, frames: FrameLoader, precision: Precision) -> str:
    depends_on = {
        "version": _FEATURES_VERSION,
        "weights": digest,
        "config": config.model_dump(mode="json", exclude={"gradient_checkpointing"}),
        "num_frames": frames.num_frames,
        "transform": decisive_values(frames.transform),
        "decode": frames.decode.model_dump(mode="json"),
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _check_counts(counts: dict[str, Any]) -> None:
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(name, got=repr(value), wanted="a whole number of at least 1")


def _check_names(choices: dict[str, tuple[Any, Any]]) -> None:
    for name, (value, literal) in choices.items():
        if value is not None and value not in get_args(literal):
            raise unknown_name(name, value, get_args(literal))


def _names(paths: list) -> list[str]:
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise UserError("paths to encode", got=repr(path), wanted="a list of strings or Paths")
    return [str(os.fspath(path)) for path in paths]


def _is_unicode(text: str) -> bool:
    """Tell whether there is no half of a surrogate pair in it, as arguments that are no UTF-8 have them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _many(values: Iterable, what: str) -> list:
    """Return the values as a list; one string or path alone is a mistake that iterates over its letters."""
    if isinstance(values, (str, bytes, os.PathLike)):
        raise UserError(f"{what} to encode", got=values, wanted=f"a list, as in [{str(values)!r}]")
    if not isinstance(values, Iterable):
        raise UserError(f"{what} to encode", got=repr(values), wanted="a list")
    return list(values)
