"""What the readers of the egocentric data sets' official files do alike: clocks, lists in cells, splits, no pickles."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from mama_ray.data.questions.official.records import read_rows
from mama_ray.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

_PICKLE_ENDINGS = (".pkl", ".pickle", ".p")
_WHOLE = re.compile(r"[0-9]{1,9}")
_PICKLE_START = b"\x80"  # of every protocol since 2
_CLOCK = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|validation|val|test)(?![a-z])", re.IGNORECASE)


@contextmanager
def told_faults(source: str, wanted: str) -> Iterator[None]:
    """Raise UserError for whatever a reader stumbles over: faults of files have as many forms as there are files."""
    try:
        yield
    except UserError:
        raise
    except UnicodeError as error:
        got = f"{source} ({error})"
        raise UserError("a file is not UTF-8", got=got, wanted=wanted, remedy="save it as UTF-8") from error
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, csv.Error) as error:
        got = f"{source} ({type(error).__name__}: {error})"
        raise UserError("a file cannot be read", got=got, wanted=wanted) from error


def official_reader(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """Make every fault of the file that `read` takes first a UserError that names it, whoever calls it."""

    @wraps(read)
    def told(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with told_faults(path.name, "the official file"):
            return read(path, *args, **kwargs)

    return told


def read_official(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of an official CSV; UserError for a pickle, missing columns and no rows."""
    refuse_pickle(path)
    rows = read_rows(path, columns)
    if not rows:
        raise UserError(f"{path.name} has no rows", wanted=f"columns {', '.join(columns)}, and rows")
    return rows


def refuse_pickle(path: Path) -> None:
    """Raise UserError for a pickle, which is never opened: EK-100's relevance is rebuilt from the CSV files."""
    with path.open("rb") as file:
        start = file.read(1)
    if path.suffix.lower() in _PICKLE_ENDINGS or start == _PICKLE_START:
        raise UserError(
            f"{path.name} is a pickle, which is never opened", wanted="the official CSV, text or JSON files",
            remedy="give these alone: relevance is rebuilt from the CSV",
        )  # fmt: skip


def refuse_other_split(path: Path, split: str, *, count: int, official_counts: dict[str, int] | None = None) -> None:
    """Raise UserError where a file's name, or as many rows as another split has, say that it is of another split.

    Files of train serve the split val as well, which is held out from them; test and validation are one here.
    """
    wanted = "test" if split == "test" else "train"
    found = {"train" if word.lower() == "train" else "test" for word in _SPLIT_WORD.findall(path.stem)}
    by_count = {name for name, number in (official_counts or {}).items() if number == count}
    others = (found if len(found) == 1 else set()) | by_count
    if others and wanted not in by_count and others != {wanted}:
        got = f"{count:,} rows of {', '.join(sorted(others))}"
        raise UserError(
            f"{path.name} is of another split", got=got, wanted=f"the file of {wanted}", remedy="say --split"
        )


def require_unique(path: Path, names: Sequence[str], what: str) -> None:
    """Raise UserError for a name that comes twice."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        got = f"{len(doubled)} of them, {', '.join(doubled[:3])}"
        raise UserError(f"{path.name} has a {what} twice", got=got, wanted="each once")


def parse_clock(text: str) -> float:
    """Return the seconds of hh:mm:ss.ss; ValueError for anything else."""
    found = _CLOCK.fullmatch(text.strip())
    if not found:
        raise ValueError(f"got {text!r}, wanted hh:mm:ss.ss")
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def parse_whole(text: str) -> int:
    """Return a whole number from 0; ValueError for anything else, digits of other scripts among it."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"got {text!r}, wanted a whole number")
    return int(text)


def parse_numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers of a cell such as [3, 14]; ValueError for anything else."""
    inside = text.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        raise ValueError(f"got {text!r}, wanted a list such as [3, 14]")
    return tuple(parse_whole(part) for part in inside[1:-1].split(",") if part.strip())
