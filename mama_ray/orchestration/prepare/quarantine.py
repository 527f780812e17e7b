"""What was refused and why: a table for programs (Parquet), one for spreadsheets (CSV), and the reasons in words."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from mama_ray.data.spreadsheets import inert_cell
from mama_ray.masking import mask_text

QUARANTINE_NAME = "quarantine.parquet"
QUARANTINE_CSV_NAME = "quarantine.csv"
QUARANTINE_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("video", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("reason", pa.string()),
        ("split", pa.string()),
        # Of the file as it was when it was refused: one that is other by now is looked at again.
        ("file_bytes", pa.int64()),
        ("file_modified_ns", pa.int64()),
    ]
)
_CSV_COLUMNS = ("video", "clip_id", "start_s", "end_s", "split", "reason")
_NUM_SHOWN = 3
_REASON_CHARACTERS = 500
_SHOWN_CHARACTERS = 120
# A spreadsheet ends at 1,048,576 rows and at 32,767 characters in a cell.
_MAX_CSV_ROWS = 1_000_000
_MAX_CELL_CHARACTERS = 2_000
# What a spreadsheet would take for a formula, and run: a video may be called so by a stranger.


def refused_row(reason: str, **known: Any) -> dict[str, Any]:
    """Return a row of the quarantine; `known` are the other columns, as far as they are known.

    Texts are made such that every file can hold them: a bad name is a reason to be refused.
    """
    row = {**dict.fromkeys(QUARANTINE_SCHEMA.names), **known, "reason": mask_text(reason)[:_REASON_CHARACTERS]}
    return {name: _legal(value) if isinstance(value, str) else value for name, value in row.items()}


def _legal(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass
class Reasons:
    """How often each kind of reason came, and the first reason of the kind in full."""

    counts: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        """Count one refused row."""
        kind = kind_of(reason)
        self.counts[kind] += 1
        self.examples.setdefault(kind, reason[:_SHOWN_CHARACTERS])

    def __str__(self) -> str:
        """The three most frequent ones in words."""
        shown = [f"{count} {self.examples[kind]}" for kind, count in self.counts.most_common(_NUM_SHOWN)]
        more = len(self.counts) - len(shown)
        return "; ".join(shown) + (f" and {more} more reasons" if more > 0 else "")


def kind_of(reason: str) -> str:
    """Return the part of a reason that rows share: what was wrong, without what was got."""
    return reason.partition(": ")[0].partition(" (")[0].partition("; ")[0]


class SpreadsheetWriter:
    """Writes refused rows as CSV that spreadsheets open: UTF-8 with its mark, one line for a row, no formulas."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._num_rows = 0
        self._write([_CSV_COLUMNS], mark="\ufeff")

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows, up to what a spreadsheet holds."""
        rows = list(rows)[: _MAX_CSV_ROWS - self._num_rows]
        self._num_rows += len(rows)
        self._write([[spreadsheet_cell(row.get(name)) for name in _CSV_COLUMNS] for row in rows])

    def _write(self, rows: list, mark: str = "") -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        self._stream.write((mark + text.getvalue()).encode())


def spreadsheet_cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula: text without control characters, cut."""
    return inert_cell(value, _MAX_CELL_CHARACTERS) if isinstance(value, str) else value
