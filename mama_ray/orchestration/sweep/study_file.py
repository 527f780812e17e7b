"""A study's database that somebody else may have written: looked at before Optuna opens it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from mama_ray.errors import UserError
from mama_ray.storage.small_files import MAX_FILE_BYTES, require_regular

_TABLES = {"studies", "trials", "version_info"}  # of every version of Optuna
_MAGIC_OF_JOURNALS = bytes.fromhex("d9d505f920a163d7")  # SQLite's file format, section 3; last where another is named
_REMEDY = "restore it, or give --run another name"


def require_study_file(path: str, shown: str) -> None:
    """Raise UserError for a file that is not an Optuna study in SQLite; none, or an empty one, becomes a study.

    Optuna would make its tables in any database, and views or triggers run whatever their author wrote.
    """
    require_regular(path)
    file = Path(path)
    if not file.is_file() or file.stat().st_size == 0:
        return
    if file.stat().st_size > MAX_FILE_BYTES:
        raise UserError("the study's database is too large", got=shown, wanted=f"{MAX_FILE_BYTES} bytes at most")
    _require_plain_journal(path, shown)
    # Not only to be read: what a killed start has left half-written is rolled back by whoever opens it.
    with study_errors(shown), closing(sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True)) as database:
        found = database.execute("SELECT type, name FROM sqlite_master LIMIT 1000").fetchall()
        others = sorted({kind for kind, _ in found} - {"table", "index"})
        tables = {name for kind, name in found if kind == "table"}
        if others or (tables and not tables >= _TABLES):
            got = ", ".join(others or sorted(tables)[:8])
            raise UserError(
                f"not a study of Optuna: {shown}",
                got=got,
                wanted=f"tables {', '.join(sorted(_TABLES))}",
                remedy=_REMEDY,
            )


def _require_plain_journal(path: str, shown: str) -> None:
    """Raise UserError for a journal that names another: SQLite deletes what such a one names, whatever it is."""
    journal = Path(f"{path}-journal")
    require_regular(str(journal))
    with suppress(FileNotFoundError), journal.open("rb") as file:
        if file.seek(0, os.SEEK_END) > len(_MAGIC_OF_JOURNALS):
            file.seek(-len(_MAGIC_OF_JOURNALS), os.SEEK_END)
            if file.read() == _MAGIC_OF_JOURNALS:
                raise UserError(
                    "the study's journal is that of several databases", got=f"{shown}-journal", remedy=_REMEDY
                )


@contextmanager
def study_errors(shown: str) -> Iterator[None]:
    """Turn what a damaged or foreign database makes of Optuna's reading into one UserError that names it."""
    try:
        yield
    except (UserError, DuplicatedStudyError):
        raise
    except (
        sqlite3.Error,
        SQLAlchemyError,
        StorageInternalError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        RecursionError,
        ArithmeticError,
    ) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            "the study's database cannot be read", got=f"{shown} ({type(error).__name__}: {reason})", remedy=_REMEDY
        ) from error
