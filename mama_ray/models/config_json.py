"""The config.json of a model folder as the config of its class."""

from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from mama_ray.errors import UserError

_Config = TypeVar("_Config", bound=pydantic.BaseModel)


def validated(kind: type[_Config], content: Mapping[str, Any], *, source: str) -> _Config:
    """Return what a config.json holds as a config; UserError names the first field that is wrong."""
    try:
        return kind.model_validate(dict(content))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{source} is not a valid model config",
            got=f"{'.'.join(map(str, first['loc']))} = {first['input']!r:.200}",
            wanted=first["msg"],
        ) from error
