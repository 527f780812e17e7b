"""Patterns of names of a model's parts: shell wildcards over dotted names; a part's name means all that is in it."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from mama_ray.errors import UserError, nearest_names
from mama_ray.models.weight_files import name_some


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a dotted name, or a part that it lies in, fits one of the patterns."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def choose(setting: str, patterns: Sequence[str], names: Sequence[str], *, kind: str) -> list[str]:
    """Return the names that fit; UserError for a pattern that none fits, with names that it may have meant.

    `setting` is the setting that the patterns are from, `kind` says what is named, e.g. "parameter".
    """
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            raise UserError(
                f"{setting} names no {kind} of the model",
                got=pattern,
                wanted=f"a pattern that fits one, e.g. of {name_some(_near(pattern, names))}",
            )
    return [name for name in names if matches(name, patterns)]


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    """Return what a pattern may mean: parts of the model of nearly its name, else the largest parts."""
    split = [name.split(".") for name in names]
    whole = dict.fromkeys(".".join(pieces[:length]) for pieces in split for length in range(1, len(pieces) + 1))
    single = dict.fromkeys(piece for pieces in split for piece in pieces)
    unknown = [piece for piece in pattern.split(".") if piece.strip("*") and piece not in single]
    near = nearest_names(pattern.strip("*."), whole)
    near += [f"*.{found}" for piece in unknown for found in nearest_names(piece, single)]
    return near or list(dict.fromkeys(pieces[0] for pieces in split))
