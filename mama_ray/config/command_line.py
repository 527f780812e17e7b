"""The command line of every job: `[config.yaml] [--key value ...]`, keys dotted as in the file.

tyro prints `--help` and the shell completions. The values are read here and go the way of the file's: tyro's own parser
answers a mistake with a box on the terminal, which says nothing of ranges and cannot be the one last line of a job.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from mama_ray.config.fields import ConfigClass, config_class_of, default_of, find_field, set_path
from mama_ray.config.mistakes import ConfigError, MissingValueError, unknown_key
from mama_ray.config.schema import ConfigT, build_config, overlay
from mama_ray.config.yaml_text import parse_flow, read_yaml, resolve_scalar
from mama_ray.masking import holds_credentials, mask_secrets, repeats_the_environment


def parse_config(
    config_class: type[ConfigT],
    argv: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    description: str | None = None,
) -> ConfigT:
    """Read `[config.yaml] [--key value ...]`; the command line goes before the file, the file before the defaults.

    `argv` is without the program's name; None takes the process's. `--help` prints the fields with the file's values
    and raises SystemExit(0). Any mistake raises ConfigError.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    file = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    from_file = {} if file is None else read_yaml(file)
    if asked := [word for word in arguments if word in ("-h", "--help") or word.startswith("--tyro-")]:
        _print_help(config_class, from_file, asked[:1] + arguments[arguments.index(asked[0]) + 1 :], prog, description)
    given = _read_options(config_class, arguments)
    values = overlay(config_class, {}, from_file)
    changes: dict[str, Any] = {}
    for path, value in given.items():
        if not set_path(changes, path, value):
            raise ConfigError(f"--{path}", got="a value for its group as well", wanted="one of the two")

    def describe(path: str) -> str:
        if any(path == option or path.startswith((f"{option}.", f"{option}[")) for option in given):
            return f"--{path}"
        return path if file is None else f"{path} in {file}"

    return build_config(config_class, overlay(config_class, values, changes), describe=describe)


def _read_options(config_class: ConfigClass, arguments: Sequence[str]) -> dict[str, Any]:
    """Turn `--key value ...` into {dotted path: value}; each value is as the YAML file would hold it.

    No word may hold a secret: Ray's list of jobs and the machine's list of processes show command lines.
    """
    for before, word in pairwise(["command line", *arguments]):
        if holds_credentials(word) or repeats_the_environment(word):
            where = before if _is_option(before) else word.partition("=")[0] if _is_option(word) else "command line"
            remedy = "put them in the environment, a database's URL in the config file"
            raise ConfigError(f"{where}: credentials on the command line", got=word, remedy=remedy)
    options: dict[str, Any] = {}
    position = 0
    while position < len(arguments):
        option, equals, attached = arguments[position].partition("=")
        if not _is_option(option):
            raise ConfigError("command line", got=arguments[position], wanted="--key value", remedy=_misplaced(option))
        words = [attached] if equals else []
        position += 1
        while not equals and position < len(arguments) and not _is_option(arguments[position]):
            words.append(arguments[position])
            position += 1
        path, value = _read_option(config_class, option, words)
        if path in options:
            raise ConfigError(f"--{path} is given twice", remedy="give it once")
        options[path] = value
    return options


def _read_option(config_class: ConfigClass, option: str, words: list[str]) -> tuple[str, Any]:
    path = option.removeprefix("--").replace("-", "_")
    field = find_field(config_class, path)
    if field is None:
        # --no-x and --group.no-x, as tyro spells a switch that is turned off
        group, _, name = path.rpartition(".")
        switch = f"{group}.{name}".lstrip(".").replace("no_", "", 1) if "no_" in (name[:3], path[:3]) else ""
        field = find_field(config_class, switch) if switch else None
        if field is None or not _accepts(field.annotation, False):
            raise unknown_key(config_class, path, where=option)
        if words:
            raise ConfigError(option, got=" ".join(words), wanted="no value: it says false by itself")
        return switch, False
    inner = config_class_of(field.annotation)
    if inner is not None and words and (name := getattr(inner, "named_by", None)):
        return _read_option(config_class, f"{option}.{name}", words)
    if inner is not None and words not in (["null"], ["None"]):
        names = ", ".join(f"--{path}.{name}" for name in inner.model_fields)
        raise ConfigError(option, got=" ".join(words) or "no value", wanted=f"one of its settings: {names}")
    if not words and not _accepts(field.annotation, True):
        raise ConfigError(option, got="no value", wanted="--key value")
    if len(words) > 1 and (extra := next((word for word in words if word.endswith((".yaml", ".yml"))), None)):
        raise ConfigError(option, got=" ".join(words), wanted="one value", remedy=_misplaced(extra))
    return path, _read_value(option, field.annotation, words)


def _read_value(option: str, annotation: Any, words: list[str]) -> Any:
    """Read the words after an option in the first form that the field's type accepts; unfit ones fail in validation."""
    if not words:
        return True
    resolved = [resolve_scalar(word) for word in words]
    if len(words) == 1:
        forms = [*([None] if words[0] == "None" else []), resolved[0], words[0], resolved, words]
        if words[0].startswith(("[", "{")) and not _accepts(annotation, words[0]):
            try:
                forms.insert(0, parse_flow(words[0], source=option))
            except ConfigError:
                if not (_accepts(annotation, words) and _is_balanced(words[0])):
                    raise  # else it is a pattern such as [0-5].*, whose brackets are no list's
    else:
        forms = [resolved, words]
        if len(words) % 2 == 0:  # name value name value ..., for a mapping
            forms.append(dict(zip(words[::2], resolved[1::2], strict=True)))
        if _accepts(annotation, {}):  # so that an error names the value inside the mapping
            forms.reverse()
    return next((form for form in forms if _accepts(annotation, form)), forms[0])


def _is_balanced(text: str) -> bool:
    return all(text.count(opening) == text.count(closing) for opening, closing in ("[]", "{}"))


def _accepts(annotation: Any, value: Any) -> bool:
    """Tell whether a value is of a field's type; ranges are left to the validation of the whole."""
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def _is_option(word: str) -> bool:
    """Tell an option from a value: values may be negative numbers."""
    return word.startswith("-") and len(word) > 1 and isinstance(resolve_scalar(word), str)


def _misplaced(word: str) -> str | None:
    if word.endswith((".yaml", ".yml")):
        return "there is one config file and it comes first"
    return None


def _print_help(
    config_class: type[ConfigT],
    from_file: Mapping[str, Any],
    words: list[str],
    prog: str | None,
    description: str | None,
) -> NoReturn:
    """Let tyro print the help or a shell completion, with the file's values as the defaults; raises SystemExit(0)."""
    import tyro  # slow to import, and needed for nothing else

    from_file = mask_secrets(from_file)  # they are printed as the defaults
    try:
        default = build_config(config_class, from_file, describe=lambda path: f"{path} in the config file")
    except MissingValueError:
        default = _with_gaps(config_class, overlay(config_class, {}, from_file))
    tyro.cli(
        config_class,
        prog=f"{prog or Path(sys.argv[0]).name} [config.yaml]",
        description=description,
        args=words,
        default=default,
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
    raise SystemExit(0)


def _with_gaps(config_class: ConfigClass, values: Mapping[str, Any]) -> Any:
    """Build a config for the help page alone, whose required fields may be missing; any other mistake is an error."""
    import tyro

    known: dict[str, Any] = {}
    for name, field in config_class.model_fields.items():
        inner = config_class_of(field.annotation)
        if inner is not None and isinstance(values.get(name, {}), Mapping):
            known[name] = (
                _with_gaps(inner, values.get(name, {})) if name in values or field.is_required() else default_of(field)
            )
        elif name in values:
            annotation: Any = field.annotation
            known[name] = TypeAdapter(annotation).validate_json(json.dumps(values[name]), strict=True)
        else:
            known[name] = tyro.MISSING if field.is_required() else default_of(field)
    return config_class.model_construct(**known)
