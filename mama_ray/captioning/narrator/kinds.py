"""The kinds of narrators that can be taught: which one a preset or a folder is of."""

from pathlib import Path
from typing import get_args

from mama_ray.captioning.narrator import gated, llava
from mama_ray.captioning.narrator.kind import NarratorKind
from mama_ray.captioning.narrator.settings import GatedPreset
from mama_ray.errors import UserError
from mama_ray.models.weight_files import read_json

KINDS: dict[str, NarratorKind] = {llava.NAME: llava, gated.NAME: gated}
# By the model_type in config.json.
_KIND_OF_MODEL = {"llava": llava.NAME, "mama_ray_gated_narrator": gated.NAME}


def kind_of_preset(name: str) -> str:
    """Return the kind of a preset's narrators."""
    return gated.NAME if name in get_args(GatedPreset) else llava.NAME


def kind_of_folder(directory: Path) -> str:
    """Return the kind of the narrator in a folder; UserError for a model of another kind."""
    model_type = read_json(directory / "config.json").get("model_type")
    if model_type not in _KIND_OF_MODEL:
        raise UserError(
            f"{directory} holds another kind of model", got=model_type, wanted=" or ".join(map(repr, _KIND_OF_MODEL))
        )
    return _KIND_OF_MODEL[model_type]
