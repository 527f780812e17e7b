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
        first, what = error.errors()[0], f"{source} is not a valid model config"
        if first["type"] == "value_error":  # of values that do not go together: it names them itself
            raise UserError(f"{what}: {first['ctx']['error']}") from error
        got = f"{'.'.join(map(str, first['loc']))} = {first['input']!r:.200}"
        raise UserError(what, got=got, wanted=first["msg"]) from error
