"""Writes docs/config.md: every setting of every job, from the docstrings of the fields. `make docs` runs it.

The jobs' classes are found in jobs/*.py, so nothing here knows where they lie.
"""

import ast
import importlib
import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "config.md"

# What configs/ holds beside the jobs' own files.
_OTHER_FILES = {
    "configs/benchmark/NAME.yaml": "mama_ray.evaluation.benchmarks:Benchmark",
    "configs/prompt/NAME.yaml": "mama_ray.captioning.prompts:PromptConfig",
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
_HEAD = """\
# Settings

Written by `make docs` from the docstrings of the fields: change those, not this page. `tests/test_docs.py` holds it
true.

Every job takes `[config.yaml] [--key value ...]`. A key is dotted on the command line (`--optim.lr 1e-4`) and nested in
the file (`optim: {lr: 1e-4}`). The command line goes before the file, the file before the defaults. A group of settings
has a section of its own, to which its link leads. `null` is nothing at all.
"""


def render() -> str:
    """Return the page."""
    roots = {**job_classes(), **{title: _load(place) for title, place in _OTHER_FILES.items()}}
    sections: dict[type[BaseModel], str] = {}
    for title, annotation in roots.items():
        for config_class in _classes_in(annotation):
            for found in _all_classes(config_class):
                sections.setdefault(found, title)
    names = [found.__name__ for found in sections]
    assert len(set(names)) == len(names), "two config classes of one name: their sections could not be told apart"
    index = [f"* `{title}`: {_links(annotation)}" for title, annotation in roots.items()]
    texts = [_section(found, _uses(found, sections)) for found in sections]
    return "\n".join([_HEAD, *index, "", *texts])


def job_classes() -> dict[str, Any]:
    """Return the config class of each program in jobs/ by its path: the one name ending in Job that it imports."""
    found = {}
    for program in sorted((ROOT / "jobs").glob("*.py")):
        imported = {
            (node.module, alias.name)
            for node in ast.walk(ast.parse(program.read_text()))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name.endswith("Job")
        }
        ((module, name),) = imported
        found[f"jobs/{program.name}"] = _load(f"{module}:{name}")
    return found


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _classes_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the config classes that a field's type names, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for member in get_args(annotation) for found in _classes_in(member)]


def _all_classes(config_class: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield config_class
    for field in config_class.model_fields.values():
        for inner in _classes_in(field.annotation):
            yield from _all_classes(inner)


def _links(annotation: Any) -> str:
    return ", ".join(f"[{found.__name__}](#{found.__name__.lower()})" for found in _classes_in(annotation))


def _uses(config_class: type[BaseModel], sections: dict[type[BaseModel], str]) -> list[str]:
    """Return the fields of other sections that hold this one."""
    return [
        f"`{name}` of [{owner.__name__}](#{owner.__name__.lower()})"
        for owner in sections
        for name, field in owner.model_fields.items()
        if config_class in _classes_in(field.annotation)
    ]


def _section(config_class: type[BaseModel], uses: list[str]) -> str:
    lines = [f"## {config_class.__name__}", "", _cell(config_class.__doc__ or "")]
    if uses:
        lines += ["", f"Held by {', '.join(uses)}."]
    lines += ["", "| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in config_class.model_fields.items():
        assert field.description, f"{config_class.__name__}.{name} has no docstring"
        lines.append(f"| `{name}` | {_values(field)} | {_default(field)} | {_cell(field.description)} |")
    return "\n".join([*lines, ""])


def _values(field: FieldInfo) -> str:
    if _classes_in(field.annotation):
        can_be_null = NoneType in get_args(field.annotation)
        return _links(field.annotation) + (" or `null`" if can_be_null else "")
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in _SIGNS.items()
        if getattr(limit, name, None) is not None
    ]
    return _cell(", ".join([_type(field.annotation), *limits]))


def _type(annotation: Any) -> str:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(members[0])
    if origin is Literal:
        return " / ".join(f"`{member}`" for member in members)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(member) for member in members))
    if origin in (list, tuple, set, frozenset):
        inner = [_type(member) for member in members if member is not Ellipsis]
        return f"list of {', '.join(inner)}" if origin is list or Ellipsis in members else f"({', '.join(inner)})"
    if origin is not None and len(members) == 2:
        return f"mapping of {_type(members[0])} to {_type(members[1])}"
    if annotation is NoneType:
        return "`null`"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " / ".join(f"`{member.value}`" for member in annotation)
    words = {str: "text", float: "number", int: "whole number", bool: "`true` / `false`", Path: "path", Any: "anything"}
    return words.get(annotation, str(annotation).replace("typing.", ""))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        changed = {
            name: _plain(getattr(value, name))
            for name, inner in type(value).model_fields.items()
            if getattr(value, name) != inner.get_default(call_default_factory=True, validated_data={})
        }
        return f"`{_json(changed)}`" if changed else ""
    return f"`{_json(_plain(value))}`"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(member) for member in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return str(value) if isinstance(value, Path) else value


def _json(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(render())
