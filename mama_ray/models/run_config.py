"""What the settings of a training, `config.yaml` beside the weights, say of how a model is to be used."""

from pathlib import Path
from typing import Any

import yaml

from mama_ray.data.video.settings import Resize
from mama_ray.errors import UserError

RUN_CONFIG = "config.yaml"


def training_config(path: Path) -> dict[str, Any]:
    """Return the training job's config that lies beside its weights, {} beside foreign ones."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date that is none
        raise UserError(f"{path} is no YAML", got=str(error), wanted="the settings of a training") from error
    return content if isinstance(content, dict) else {}


def evaluation_resize(training: dict[str, Any]) -> Resize:
    """Return the evaluation form of the training transform; CLIP's squash where nothing is said."""
    data = training.get("data")
    resize = data.get("resize", "squash") if isinstance(data, dict) else "squash"
    return "squash" if resize == "squash" else "center_crop"
