"""What is said about a config that is not valid: dotted path, value, what was wanted, the nearest known name."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from mama_ray.config.fields import ConfigClass, deepest_group, leaf_paths
from mama_ray.errors import UserError, nearest_names, unknown_name
from mama_ray.masking import mask_secrets

_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a group of settings",
    "none_required": "null",
    "greater_than": "a value > {gt}",
    "greater_than_equal": "a value >= {ge}",
    "less_than": "a value < {lt}",
    "less_than_equal": "a value <= {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
}


class ConfigError(UserError):
    """A config file, a command line or an override that says something the config class does not allow."""


class MissingValueError(ConfigError):
    """Nothing is wrong but that values without a default are not given."""


def explain(
    config_class: ConfigClass, error: ValidationError, values: Mapping[str, Any], describe: Callable[[str], str]
) -> ConfigError:
    """Turn pydantic's report into one ConfigError: the first mistake in full, the others by their path.

    `values` is what was validated, `describe` says where the value of a dotted path came from.
    """
    mistakes: dict[str, list[Mapping[str, Any]]] = {}
    for mistake in error.errors(include_url=False):
        mistakes.setdefault(_dotted_path(mistake, values), []).append(mistake)
    # A misspelt name explains the missing one, so it comes first.
    paths = sorted(mistakes, key=lambda path: mistakes[path][0]["type"] != "extra_forbidden")
    first, others = paths[0], paths[1:]
    text = str(_explain_one(config_class, first, mistakes[first], describe))
    if others:
        text += f" (and {len(others)} more: {', '.join(path or 'the whole' for path in others[:5])})"
    lacks_only = all(mistake["type"] == "missing" for group in mistakes.values() for mistake in group)
    return MissingValueError(text) if lacks_only else ConfigError(text)


def unknown_key(config_class: ConfigClass, path: str, *, where: str | None = None) -> ConfigError:
    """Return the error for a dotted path that names no field: the known names beside it, the nearest ones first."""
    parent, group = deepest_group(config_class, path)
    known = list(group.model_fields)
    near = nearest_names(path.removeprefix(parent), known)
    if not near:  # a name that stands in another group: `lr` for `optim.lr`
        wanted_name = path.rsplit(".", 1)[-1].replace("-", "_")
        near = [leaf for leaf in leaf_paths(config_class) if leaf.rsplit(".", 1)[-1] == wanted_name]
        parent = "" if near else parent
    report = unknown_name("config key", where or path, [f"{parent}{name}" for name in [*near, *known]])
    text = str(report).partition("; did you mean")[0]
    return ConfigError(f"{text}; did you mean {parent}{near[0]}?" if near else text)


def _explain_one(
    config_class: ConfigClass, path: str, mistakes: list[Mapping[str, Any]], describe: Callable[[str], str]
) -> ConfigError:
    mistake = mistakes[0]
    kind, value = mistake["type"], mistake.get("input")
    if kind == "extra_forbidden" and "." in str(mistake["loc"][-1]):
        first, _, rest = str(mistake["loc"][-1]).partition(".")
        return ConfigError(
            f"config key {describe(path)}", wanted="nested names in a file", remedy=f"write {first}: {{{rest}: ...}}"
        )
    if kind == "extra_forbidden":
        return unknown_key(config_class, path, where=describe(path))
    if kind == "missing" and isinstance(mistake["loc"][-1], int):
        return ConfigError(
            describe(path), got=show_value(value, path), wanted=f"at least {mistake['loc'][-1] + 1} values"
        )
    if kind == "missing":
        return ConfigError(
            f"{describe(path)} is missing", remedy=f"it has no default: give --{path} or set it in the config file"
        )
    if kind in ("value_error", "assertion_error"):
        message = str(mistake.get("ctx", {}).get("error", mistake["msg"]))
        return ConfigError(f"{describe(path)}: {message}" if path else message)
    wanted = list(dict.fromkeys(_wanted(each) for each in mistakes))
    return ConfigError(describe(path), got=show_value(value, path), wanted=" or ".join(wanted), remedy=_remedy(mistake))


def _wanted(mistake: Mapping[str, Any]) -> str:
    template = _WANTED.get(mistake["type"])
    if template is None:
        return mistake["msg"].removeprefix("Input should be ")
    return template.format(**mistake.get("ctx", {}))


def _remedy(mistake: Mapping[str, Any]) -> str | None:
    value = mistake.get("input")
    if mistake["type"] == "literal_error" and isinstance(value, str):
        near = nearest_names(value, mistake["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))
        return f"did you mean {near[0]}?" if near else None
    if mistake["type"] == "string_type" and isinstance(value, (bool, int, float)):
        return "put it in quotes in a YAML file"
    return None


def show_value(value: Any, path: str) -> str:
    """Write a value for an error message: text in quotes, secrets masked."""
    return json.dumps(mask_secrets(value, path.rsplit(".", 1)[-1]), ensure_ascii=False, default=str)


def _dotted_path(mistake: Mapping[str, Any], values: Any) -> str:
    """Return the part of pydantic's location that exists in the values; the rest names members of a union."""
    path = ""
    for part in mistake["loc"]:
        is_absent = mistake["type"] == "missing" and part == mistake["loc"][-1] and isinstance(part, str)
        if isinstance(values, Mapping) and (part in values or is_absent):
            path, values = f"{path}.{part}" if path else str(part), values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            path, values = f"{path}[{part}]", values[part]
        else:
            break
    return path
