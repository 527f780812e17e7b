"""Questions about the fields of a config class: what a dotted path names, which fields are configs themselves, and
which may change between two starts of one job."""

from collections.abc import Iterator
from enum import Enum
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ConfigClass = type[BaseModel]


class _Mark(Enum):
    MAY_CHANGE = "may change"
    LOCATION = "location"
    ADDED_LATER = "added later"


_Value = TypeVar("_Value")
MayChange = Annotated[_Value, _Mark.MAY_CHANGE]
"""The type of a field that decides nothing about what its job makes: `log_every: MayChange[int] = 10`. A job that was
begun goes on with another value of it; every other field must be as it was."""


Location = Annotated[_Value, _Mark.LOCATION]
"""The type of a field that says where something lies: `shards: Location[str]`. A run that was begun goes on with
another place, if that holds the same."""


AddedLater = Annotated[_Value, _Mark.ADDED_LATER]
"""The type of a field that earlier versions have not had: `max_frames: AddedLater[int] = 100`. With its default a job
is the one that it was before, so what an earlier version made is found again."""


def names_of_locations(config_class: ConfigClass, prefix: str = "") -> frozenset[str]:
    """Return the dotted names of the fields that are declared as Location, those of nested configs among them."""
    names = set()
    for name, field in config_class.model_fields.items():
        inner = config_class_of(field.annotation)
        if _Mark.LOCATION in field.metadata:
            names.add(f"{prefix}{name}")
        elif inner is not None:
            names |= names_of_locations(inner, f"{prefix}{name}.")
    return frozenset(names)


def names_that_may_change(config_class: ConfigClass) -> frozenset[str]:
    """Return the names of the fields that are declared as MayChange."""
    return frozenset(name for name, field in config_class.model_fields.items() if _Mark.MAY_CHANGE in field.metadata)


def decisive_values(config: BaseModel) -> dict[str, Any]:
    """Return the values of all other fields, as JSON has them: two starts that agree in these make the same.

    Fields that were added later are left out where they have their default.
    """
    values = config.model_dump(mode="json", exclude=set(names_that_may_change(type(config))))
    return _without_later_defaults(config, values)


def _without_later_defaults(config: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in values.items():
        field, member = type(config).model_fields[name], getattr(config, name)
        if _Mark.ADDED_LATER in field.metadata and member == default_of(field):
            continue
        kept[name] = _without_later_defaults(member, value) if isinstance(member, BaseModel) else value
    return kept


def config_class_of(annotation: Any) -> ConfigClass | None:
    """Return the config class that a field holds, also where it may be None; None for a field of any other kind."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is Annotated:
        return config_class_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        classes = [found for member in get_args(annotation) if (found := config_class_of(member)) is not None]
        return classes[0] if len(classes) == 1 else None
    return None


def default_of(field: FieldInfo) -> Any:
    """Return a field's default, pydantic's own marker where it has none."""
    return field.get_default(call_default_factory=True, validated_data={})


def find_field(config_class: ConfigClass, path: str) -> FieldInfo | None:
    """Return the field that a dotted path names, None where there is none."""
    inner: ConfigClass | None = config_class
    field = None
    for name in path.split("."):
        field = inner.model_fields.get(name) if inner is not None else None
        if field is None:
            return None
        inner = config_class_of(field.annotation)
    return field


def deepest_group(config_class: ConfigClass, path: str) -> tuple[str, ConfigClass]:
    """Return prefix ("optim.", or "") and class of the deepest config along a path whose last name may be wrong."""
    prefix = ""
    for name in path.split(".")[:-1]:
        field = config_class.model_fields.get(name)
        inner = config_class_of(field.annotation) if field else None
        if inner is None:
            break
        prefix, config_class = f"{prefix}{name}.", inner
    return prefix, config_class


def leaf_paths(config_class: ConfigClass, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every field that is not itself a config."""
    for name, field in config_class.model_fields.items():
        inner = config_class_of(field.annotation)
        if inner is None:
            yield f"{prefix}{name}"
        else:
            yield from leaf_paths(inner, f"{prefix}{name}.")


def set_path(values: dict[str, Any], path: str, value: Any) -> bool:
    """Put a value into nested dicts at a dotted path; False where one of its groups already holds a plain value."""
    *parents, last = path.split(".")
    for name in parents:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            return False
    values[last] = value
    return True
