"""Which model a user's --checkpoint means, how it was chosen, and the frames and text it takes under a benchmark."""

import hashlib
import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from mama_ray.data.region_features.table import SUMMARY_NAME
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import refuse_other_vocabulary
from mama_ray.data.video.settings import DecodeConfig, Resize, Sampling
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import BenchmarkConfig, CheckpointName
from mama_ray.models.asking import question_form_of
from mama_ray.models.dual_encoder import DualEncoderConfig
from mama_ray.models.heads.classes import ClassHeadFile, has_class_head, read_class_head
from mama_ray.models.hub import EMBEDDED_ENCODER, evaluated_model, prefix_of, require_hub_id, without_prefix
from mama_ray.models.pretrained import describe_model
from mama_ray.models.run_config import (
    RUN_CONFIG,
    evaluation_transform,
    trained_frames,
    trained_sampling,
    training_config,
)
from mama_ray.models.settings import QuestionForm
from mama_ray.models.vgt.feature_table import regions_read
from mama_ray.models.vgt.model import VgtConfig
from mama_ray.models.weight_files import hash_weights
from mama_ray.storage.manifest import verify_manifest
from mama_ray.storage.places import Place, absolute_uri, storage_errors
from mama_ray.storage.small_files import MAX_JSON_BYTES
from mama_ray.training.manifest import list_checkpoints, resolve_checkpoint

# In the words of protocols: results of before have the first one.
_SAMPLING: dict[Sampling, str] = {
    "times": "centres of equal segments",
    "numbers": "centres of equal segments, by frame number",
    "ends": "first to last frame in equal steps",
}
_CHECKPOINT = re.compile(r"(?P<run>.*)/checkpoints/step_(?P<step>\d{8})")


@dataclass(frozen=True)
class EvaluatedModel:
    """A model folder that was found whole; `home` is the URI beside which results belong."""

    uri: str
    home: str
    name: CheckpointName
    num_frames: int
    text_length: int
    transform: TransformConfig
    shards: str | None
    """What the run was trained on, where its config says so."""
    features: str | None = None
    """Table of features that the model reads instead of pixels, and how many regions of a frame."""
    num_regions: int = 0
    class_head: ClassHeadFile | None = None
    """The heads that tell classes, where it has some."""
    question_form: QuestionForm = "release"
    frames_by: Sampling = "times"

    def decoding(self, limits: DecodeConfig) -> DecodeConfig:
        """Return the settings of the decoder that show the model the frames it is to see."""
        return limits.model_copy(update={"sampling": self.frames_by})

    @property
    def sampling(self) -> str:
        """Which frames of a clip are seen, in words, as a protocol names them."""
        if self.features is None:
            return _SAMPLING[self.frames_by]
        with storage_errors(self.features):
            summary = (Place.of(self.features) / SUMMARY_NAME).read_bytes(MAX_JSON_BYTES)
        return f"features of the table {hashlib.sha256(summary).hexdigest()[:12]}"


def find_model(
    uri: str,
    benchmark: BenchmarkConfig,
    *,
    resize: Resize | None = None,
    sampling: Sampling | None = None,
    features: str | None = None,
) -> EvaluatedModel:
    """Resolve and verify a run, a checkpoint or a model folder; UserError when it does not fit the benchmark.

    resize, sampling: None is as in training. features: URI of the table of a model that reads features; None is that of
    its training.
    """
    named = _named(uri)
    with evaluated_model(named.uri) as local:
        config = describe_model(local, prefix=prefix_of(uri))
        tokenizer = Tokenizer.from_directory(local)
        refuse_other_vocabulary(tokenizer, config.vocab_size, model=uri)
        training = training_config(local / RUN_CONFIG)
        digest = hash_weights(local)
        class_head = read_class_head(local) if has_class_head(local) else None
    transform = evaluation_transform(config, training, resize)
    text_length = _text_length(benchmark, config, tokenizer.context_length)
    if benchmark.image_size not in (None, config.image_size):
        raise UserError(
            "the benchmark's frames do not fit the model",
            got=f"{benchmark.image_size} pixels",
            wanted=f"{config.image_size} pixels",
            remedy="copy the benchmark's file, set image_size there, and give its path as --benchmark",
        )
    name = CheckpointName(path=named.uri, sha256=digest, step=named.step, selection=named.selection)
    num_frames = benchmark.num_frames or trained_frames(training) or config.num_frames
    if features is None and isinstance(config, VgtConfig):
        features = _features_of(training)
    frames_by = sampling or trained_sampling(training) or "times"
    features = None if features is None else absolute_uri(features)
    num_regions = regions_read(features, config, option="features")
    found = (named.uri, named.home, name, num_frames, text_length, transform, training.get("shards"))
    return EvaluatedModel(*found, features, num_regions, class_head, question_form_of(config), frames_by)


def _features_of(training: dict) -> str | None:
    data = training.get("data")
    return data.get("features") if isinstance(data, dict) else None


class _Named(NamedTuple):
    """What a --checkpoint means: the folder, where results belong, and how it was chosen."""

    uri: str
    home: str
    step: int | None
    selection: str


def _named(uri: str) -> _Named:
    """Resolve a run, a checkpoint or model folder, whose manifest is verified, or what a prefix or the package has."""
    if uri == EMBEDDED_ENCODER:  # nothing is written into the package
        return _Named(uri, "runs/embedded-encoder", None, "the one that comes with the package")
    if prefix := prefix_of(uri):
        source = without_prefix(uri)
        if "://" in source or os.path.isdir(os.path.expanduser(source)):
            folder = Place.of(source).uri
            return _Named(f"{prefix}{folder}", folder, None, "given by its path")
        require_hub_id(source)
        return _Named(uri, f"runs/{source.replace('/', '--')}", None, "given by its hub id")
    place = Place.of(uri)
    folder = resolve_checkpoint(place)
    in_run = _CHECKPOINT.fullmatch(folder.uri)
    if in_run:
        problem = verify_manifest(folder)
        if problem:
            raise UserError("damaged checkpoint", got=problem, remedy="evaluate another one of the run")
    selection, step = _selection(place, folder, in_run)
    return _Named(folder.uri, in_run["run"] if in_run else folder.uri, step, selection)


def _text_length(benchmark: BenchmarkConfig, config: DualEncoderConfig, tokenizer_length: int) -> int:
    longest = min(config.context_length, tokenizer_length)
    if benchmark.text_length is not None and benchmark.text_length > config.context_length:
        raise UserError(
            "the benchmark's texts do not fit the model",
            got=f"{benchmark.text_length} tokens",
            wanted=f"at most {config.context_length} tokens",
            remedy="copy the benchmark's file, set text_length there, and give its path as --benchmark",
        )
    return benchmark.text_length or longest


def _selection(place: Place, folder: Place, in_run: re.Match | None) -> tuple[str, int | None]:
    """Return in words how the checkpoint was chosen, and its step. Only the validation split has a say."""
    if in_run is None:
        return "given by its path", None
    step = int(in_run["step"])
    if folder == place:
        return "given by its path", step
    is_scored = any(ref.selection is not None for ref in list_checkpoints(Place.of(in_run["run"])))
    return ("best of its run on the val split" if is_scored else "newest of its run"), step
