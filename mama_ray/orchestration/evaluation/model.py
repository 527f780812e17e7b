"""Which model a user's --checkpoint means, how it was chosen, and the frames and text it takes under a benchmark."""

import re
from dataclasses import dataclass

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.settings import Resize
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import BenchmarkConfig, CheckpointName
from mama_ray.models.dual_encoder import DualEncoderConfig
from mama_ray.models.pretrained import describe_model
from mama_ray.models.run_config import RUN_CONFIG, evaluation_resize, training_config
from mama_ray.models.weight_files import hash_weights
from mama_ray.storage.places import Place
from mama_ray.training.manifest import list_checkpoints, resolve_checkpoint, verify_manifest

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


def find_model(uri: str, benchmark: BenchmarkConfig, *, resize: Resize | None = None) -> EvaluatedModel:
    """Resolve and verify a run, a checkpoint or a model folder; UserError when it does not fit the benchmark."""
    place = Place.of(uri)
    folder = resolve_checkpoint(place)
    in_run = _CHECKPOINT.fullmatch(folder.uri)
    if in_run:
        problem = verify_manifest(folder)
        if problem:
            raise UserError("damaged checkpoint", got=problem, remedy="evaluate another one of the run")
    with folder.local() as local:
        config = describe_model(local)
        context_length = Tokenizer.from_directory(local).context_length
        training = training_config(local / RUN_CONFIG)
        digest = hash_weights(local)
    transform = TransformConfig(image_size=config.image_size, resize=resize or evaluation_resize(training))
    text_length = _text_length(benchmark, config, context_length)
    if benchmark.image_size not in (None, config.image_size):
        raise UserError(
            "the benchmark's frames do not fit the model",
            got=f"{benchmark.image_size} pixels",
            wanted=f"{config.image_size} pixels",
            remedy="copy the benchmark's file, set image_size there, and give its path as --benchmark",
        )
    selection, step = _selection(place, folder, in_run)
    name = CheckpointName(path=folder.uri, sha256=digest, step=step, selection=selection)
    home = in_run["run"] if in_run else folder.uri
    num_frames = benchmark.num_frames or config.num_frames
    return EvaluatedModel(folder.uri, home, name, num_frames, text_length, transform, training.get("shards"))


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
