"""Configs that go by a name: the files of a folder in configs/."""

from pathlib import Path
from typing import TypeVar

from mama_ray.config import Config, load_config
from mama_ray.errors import unknown_name

_Config = TypeVar("_Config", bound=Config)


def load_named(config_class: type[_Config], kind: str, name: str) -> _Config:
    """Load `configs/<kind>/<name>.yaml`, or the file whose path `name` is; UserError lists the known names."""
    return load_config(config_class, find_named(kind, name))


def find_named(kind: str, name: str) -> Path:
    """Return the path of `configs/<kind>/<name>.yaml`, or the one that `name` is; UserError lists the known names."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    # Of the working directory first: a submitted job's is the copy of the repository that its user edited.
    folders = [Path("configs", kind), Path(__file__).resolve().parents[3] / "configs" / kind]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise unknown_name(kind, name, sorted({path.stem for folder in folders for path in folder.glob("*.yaml")}))
