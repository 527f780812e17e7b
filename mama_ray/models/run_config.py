"""What the settings of a training, `config.yaml` beside the weights, say of how a model is to be used."""

from pathlib import Path
from typing import Any, get_args

from mama_ray.config import ConfigError
from mama_ray.config.yaml_text import read_yaml
from mama_ray.data.video.settings import Resize, Sampling
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoderConfig

RUN_CONFIG = "config.yaml"
_MAX_FRAMES = 1 << 16


def training_config(path: Path) -> dict[str, Any]:
    """Return the training job's config that lies beside its weights, {} beside foreign ones."""
    if not path.is_file():
        return {}
    try:
        return read_yaml(path)  # no tags, no aliases: it may be anybody's
    except ConfigError as error:
        raise UserError(
            f"{error}; it lies beside the weights, as the settings of their training", remedy="mend or remove it"
        ) from error


def evaluation_resize(training: dict[str, Any], default: Resize = "squash") -> Resize:
    """Return the evaluation form of the training transform; `default` where nothing is said."""
    data = training.get("data")
    resize = data.get("resize", default) if isinstance(data, dict) else default
    return "squash" if resize == "squash" else "center_crop"


def trained_frames(training: dict[str, Any]) -> int | None:
    """Return how many frames of a clip the training showed, which may be others than the weights it began with take;
    None where nothing is said."""
    data = training.get("data")
    found = data.get("num_frames") if isinstance(data, dict) else None
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= _MAX_FRAMES:
        wanted = f"a number from 1 to {_MAX_FRAMES}"
        raise UserError(f"data.num_frames of {RUN_CONFIG}", got=f"{found!r:.60}", wanted=wanted, remedy="mend it")
    return found


def trained_sampling(training: dict[str, Any]) -> Sampling | None:
    """Return which frames of a clip the training showed, None where nothing is said."""
    data = training.get("data")
    decode = data.get("decode") if isinstance(data, dict) else None
    found = decode.get("sampling") if isinstance(decode, dict) else None
    if found is not None and found not in get_args(Sampling):
        told, wanted = f"data.decode.sampling of {RUN_CONFIG}", " or ".join(get_args(Sampling))
        raise UserError(told, got=f"{found!r:.60}", wanted=wanted, remedy="mend it")
    return found


def frame_transform(config: DualEncoderConfig, resize: Resize | None = None) -> TransformConfig:
    """Return how frames become what a model of this config takes: its size and filter, its own resize unless told."""
    return TransformConfig(
        image_size=config.image_size,
        resize=resize or own_resize(config),
        interpolation=getattr(config, "interpolation", "bicubic"),
    )


def own_resize(config: DualEncoderConfig) -> Resize:
    """Return the resize that a model's config names; CLIP-ViP's squash where it names none."""
    return getattr(config, "resize", "squash")


def evaluation_transform(
    config: DualEncoderConfig, training: dict[str, Any], resize: Resize | None = None
) -> TransformConfig:
    """Return the transform of evaluation: what is asked for, else as in training, else as the model's config says."""
    return frame_transform(config, resize or evaluation_resize(training, own_resize(config)))
