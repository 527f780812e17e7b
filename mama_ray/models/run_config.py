"""What the settings of a training, `config.yaml` beside the weights, say of how a model is to be used."""

from pathlib import Path
from typing import Any

from mama_ray.config import ConfigError
from mama_ray.config.yaml_text import read_yaml
from mama_ray.data.video.settings import Resize
from mama_ray.errors import UserError

RUN_CONFIG = "config.yaml"


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


def evaluation_resize(training: dict[str, Any]) -> Resize:
    """Return the evaluation form of the training transform; CLIP's squash where nothing is said."""
    data = training.get("data")
    resize = data.get("resize", "squash") if isinstance(data, dict) else "squash"
    return "squash" if resize == "squash" else "center_crop"
