"""The base of every config class and the one validation that all values pass, from wherever they come."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mama_ray.config.fields import ConfigClass, config_class_of, default_of, find_field, set_path
from mama_ray.config.mistakes import ConfigError, explain, unknown_key
from mama_ray.config.yaml_text import dump_yaml, read_yaml
from mama_ray.masking import mask_secrets

_LARGEST_NUMBER = (1 << 63) - 1
_LONGEST_TEXT = 1 << 16  # a prompt with examples has some thousand characters


class Config(BaseModel):
    """Base of every config: frozen, unknown keys forbidden; the docstring under a field is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    named_by: ClassVar[str | None] = None
    """The field that a command line may name a group by: with `name` there `--engine gpt2` is `--engine.name gpt2`."""

    def changed_beside(self, switch: str) -> list[str]:
        """Return the fields, but for `switch`, whose value is not the default: what a switch that is off leaves idle.

        Not those that were set: a config that a job has recorded sets every field.
        """
        fields = {name: field for name, field in type(self).model_fields.items() if name != switch}
        return [name for name, field in fields.items() if getattr(self, name) != default_of(field)]


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(config_class: type[ConfigT], path: str | Path) -> ConfigT:
    """Read a YAML file into a config; ConfigError names the file, the dotted path, the value and what was wanted."""
    return build_config(config_class, read_yaml(path), describe=lambda key: f"{key} in {path}")


def with_overrides(config: ConfigT, overrides: Mapping[str, Any]) -> ConfigT:
    """Return the config with the values of `overrides`, a mapping of dotted path to value, validated like a file's."""
    changes: dict[str, Any] = {}
    for path, value in overrides.items():
        if find_field(type(config), path) is None:
            raise unknown_key(type(config), path)
        if not set_path(changes, path, value):
            raise ConfigError(f"override {path}", got="a value for its group as well", wanted="one of the two")
    values = overlay(type(config), config.model_dump(), changes)
    return build_config(type(config), values, describe=lambda key: f"override {key}" if key in overrides else key)


def config_to_yaml(config: Config) -> str:
    """Return the config as YAML that `load_config` reads back; secrets and credentials inside URIs are masked."""
    return dump_yaml(mask_secrets(_plain(config.model_dump())))


def build_config(
    config_class: type[ConfigT], values: Mapping[str, Any], *, describe: Callable[[str], str] = str
) -> ConfigT:
    """Validate nested plain values; what they leave out keeps its default, also inside a nested config.

    `describe` turns a dotted path into words that say where its value came from.
    """
    merged = _plain(overlay(config_class, {}, values))
    _require_usual(merged, "", describe)
    try:
        # Strictly, and as JSON: there a list may be a tuple and a whole number a float, while "4" is no number.
        return config_class.model_validate_json(json.dumps(merged), strict=True)
    except ValidationError as error:
        raise explain(config_class, error, merged, describe) from None


def _require_usual(value: Any, path: str, describe: Callable[[str], str]) -> None:
    """Raise ConfigError for whole numbers and texts that nothing behind a config can hold."""
    members: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        members = ((f"{path}.{name}" if path else name, member) for name, member in value.items())
    elif isinstance(value, list):
        members = ((f"{path}[{number}]", member) for number, member in enumerate(value))
    elif isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise ConfigError(describe(path), got=f"a whole number of {value.bit_length()} bits", wanted="64 bits at most")
    elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
        wanted = f"at most {_LONGEST_TEXT}"
        raise ConfigError(describe(path), got=f"text of {len(value)} characters", wanted=wanted)
    elif isinstance(value, str) and "\0" in value:
        raise ConfigError(describe(path), got=value, wanted="text without NUL characters")
    for name, member in members:
        _require_usual(member, name, describe)


def overlay(config_class: ConfigClass, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `given` over `base`: nested configs are merged (over their field's default), everything else is replaced."""
    merged = dict(base)
    for name, value in given.items():
        field = config_class.model_fields.get(name)
        inner = config_class_of(field.annotation) if field else None
        if field is not None and inner is not None and isinstance(value, Mapping):
            below = base.get(name, default_of(field))
            below = below.model_dump() if isinstance(below, BaseModel) else below
            value = overlay(inner, below if isinstance(below, Mapping) else {}, value)
        merged[name] = value
    return merged


def _plain(value: Any) -> Any:
    """Turn a dumped config into what JSON and YAML hold; refuses what neither can say."""
    if isinstance(value, Mapping):
        return {_plain_key(key): _plain(member) for key, member in value.items()}
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(member) for member in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, Path):
        return str(value)
    for kind in (bool, int, float, str):  # a subclass (an enum of strings, numpy's float64) becomes the plain kind
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise ConfigError(
        "config value",
        got=f"{value!r} ({type(value).__name__})",
        wanted="text, a number, true, false, null, a list or a mapping",
    )


def _plain_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise ConfigError("config key", got=repr(key), wanted="text", remedy="put it in quotes")
