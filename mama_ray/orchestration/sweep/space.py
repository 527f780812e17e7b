"""What a sweep searches: dotted config keys and their domains, checked against a config before a trial runs.

A domain is one line of YAML: `{uniform: [-0.2, 0.2]}`, `{log_uniform: [1e-4, 1e-2]}`, `{int: [1, 4]}` (both ends are
among the values) or `{choice: [uniform, learned]}`.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from mama_ray.config import Config, ConfigError, with_overrides
from mama_ray.config.fields import config_class_of, find_field
from mama_ray.config.mistakes import unknown_key

DomainKind = Literal["uniform", "log_uniform", "int", "choice"]
Scalar = bool | int | float | str | None
SearchSpace = dict[str, dict[DomainKind, list[Scalar]]]
_ConfigT = TypeVar("_ConfigT", bound=Config)


def build_distributions(search_space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every key; ConfigError names a domain that is none."""
    return {key: _distribution(key, domain) for key, domain in search_space.items()}


def check_search_space(base: _ConfigT, search_space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the distributions after trying the ends and choices of every domain on `base`.

    Raises ConfigError for an empty space, a key that `base` lacks or that is a group, and a value that it refuses.
    """
    if not search_space:
        raise ConfigError(
            "search_space is empty",
            wanted="at least one key",
            remedy="such as objective.margin: {uniform: [-0.2, 0.2]}",
        )
    distributions = build_distributions(search_space)
    for key, distribution in distributions.items():
        field = find_field(type(base), key)
        if field is None:
            raise unknown_key(type(base), key, where=f"{key} of search_space")
        if config_class_of(field.annotation) is not None:
            raise ConfigError(f"search_space: {key} is a group of settings", remedy=f"name one of them: {key}.NAME")
        for value in edges_of(distribution):
            try:
                with_overrides(base, {key: value})
            except ConfigError as error:
                raise ConfigError(f"search_space: {key} = {value} is refused: {error}") from error
    return distributions


def values_of(config: Config, keys: Mapping[str, Any] | list[str]) -> dict[str, Any]:
    """Return what `config` holds under dotted keys; None below a group that is null."""
    found = {}
    for key in keys:
        value: Any = config
        for name in key.split("."):
            value = None if value is None else getattr(value, name)
        found[key] = value
    return found


def point_of(config: Config, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any] | None:
    """Return the point of the space at which `config` itself lies; None where it lies outside."""
    point = values_of(config, distributions)
    return point if all(_contains(distributions[key], value) for key, value in point.items()) else None


def describe_space(distributions: Mapping[str, BaseDistribution]) -> str:
    """Return a space as text that is equal for equal spaces."""
    told = {key: json.loads(distribution_to_json(one)) for key, one in distributions.items()}
    return json.dumps({key: [one["name"], one["attributes"]] for key, one in told.items()}, sort_keys=True)


def _distribution(key: str, domain: Mapping[DomainKind, list]) -> BaseDistribution:
    if len(domain) != 1:
        raise ConfigError(
            f"search_space: domain of {key}",
            got=", ".join(domain) or "nothing",
            wanted="one of uniform, log_uniform, int, choice",
        )
    ((kind, values),) = domain.items()
    if kind == "choice":
        if len(values) < 2 or len({json.dumps(value) for value in values}) < len(values):
            raise ConfigError(f"search_space: choice of {key}", got=values, wanted="two or more different values")
        return CategoricalDistribution(values)
    is_right: Callable[[Any], bool] = _is_whole if kind == "int" else _is_number
    if len(values) != 2 or not all(is_right(value) for value in values) or not values[0] < values[1]:
        wanted = "two whole numbers" if kind == "int" else "two numbers"
        raise ConfigError(f"search_space: {kind} of {key}", got=values, wanted=f"{wanted} [low, high] with low < high")
    low, high = values
    if kind == "log_uniform" and low <= 0:
        raise ConfigError(f"search_space: log_uniform of {key}", got=values, wanted="a low end > 0")
    if kind == "int":
        return IntDistribution(low, high)
    return FloatDistribution(float(low), float(high), log=kind == "log_uniform")


def edges_of(distribution: BaseDistribution) -> list[Any]:
    """Return the choices of a distribution, or the ends of its range."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # Optuna has no others
    return [distribution.low, distribution.high]


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return _is_number(value) and distribution.low <= value <= distribution.high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
