"""The formats of annotation tables: CSV, tab-separated text, JSON lines and Parquet, each as a stream of raw rows.

A row that cannot be read is {"error": reason}, so that it does not hide the others. What makes the whole table another
than it seems (its separator, its encoding, its columns) is a UserError that names the row.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from mama_ray.data.parquet_rows import read_rows
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

# A row longer than this is a table whose quotes or line ends are broken.
_MAX_ROW_CHARACTERS = 16 << 20
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SIGNATURES = {
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PK\x03\x04": "a zip archive or a workbook of Excel",
    b"\x1f\x8b": "a file compressed by gzip",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd",
}


def read_csv(place: Place, separator: str = ",") -> Iterator[dict[str, Any]]:
    """Yield the rows of a table with a header; a first column without a name, which counts the rows, is left out.

    Raises UserError for another separator or encoding, and for a column that is named twice.
    """
    with place.open_stream() as stream:
        buffered = io.BufferedReader(stream)
        _check_signature(place, buffered.peek(4))
        _check_separator(place, buffered.peek(4), separator)
        # Bytes that are no UTF-8 become lone surrogates, so that the row is known in which the first one stands.
        lines = io.TextIOWrapper(buffered, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(lines, delimiter=separator, strict=True)
        header = [name.strip() for name in _next_record(reader) or []]
        _check_encoding(place, header, "the header")
        repeated = {name for name in header if name and header.count(name) > 1}
        if repeated:
            raise UserError("annotations name a column twice", got=f"{place}: {', '.join(sorted(repeated))}")
        number = 0
        for values in _records(reader):
            if not values:
                continue
            number += 1
            if isinstance(values, str):
                yield {"error": f"row: {values} (line {reader.line_num})"}
                continue
            _check_encoding(place, values, f"row {number} (line {reader.line_num})")
            yield _csv_row(header, values)


def _records(reader: Iterator[list[str]]) -> Iterator[list[str] | str]:
    """Yield the values of each record, or why one cannot be read; csv.Error where a quote is never closed."""
    while True:
        try:
            record = _next_record(reader)
            if record is None:
                return
            yield record
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise
            yield str(error)


def _next_record(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next record, None after the last; csv's limit, which is the whole process's, is ours for it alone."""
    limit = csv.field_size_limit(_MAX_ROW_CHARACTERS)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def _csv_row(header: list[str], values: list[str]) -> dict[str, Any]:
    if len(values) != len(header):
        return {"error": f"row: got {len(values)} fields, wanted {len(header)} as in the header"}
    row = {name: value for name, value in zip(header, values, strict=True) if name}
    for position, (name, value) in enumerate(zip(header, values, strict=True)):
        is_index = position == 0 and value.strip().isdecimal()
        if not name and value.strip() and not is_index:
            return {"error": f"row: got {value[:60]!r} in a column without a name, wanted a name in the header"}
    return row


def read_tsv(place: Place) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table whose values are separated by tabs; else as `read_csv`."""
    return read_csv(place, "\t")


def read_jsonl(place: Place) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one on each line. Raises UserError for another encoding or one JSON array."""
    with place.open_stream() as stream:
        lines = io.BufferedReader(stream)
        _check_signature(place, lines.peek(4))
        if lines.peek(1)[:1] == b"[":
            raise UserError(
                "annotations are one JSON array",
                got=f"{place}",
                wanted="JSON lines: an object on each line, no brackets or commas around them",
            )
        while line := lines.readline(_MAX_ROW_CHARACTERS):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError as error:
                yield {"error": f"row: not UTF-8 ({error})"}
            except (ValueError, RecursionError) as error:
                yield {"error": f"row: not JSON ({error})"}
            else:
                kind = type(row).__name__
                yield row if isinstance(row, dict) else {"error": f"row: got {kind}, wanted a JSON object"}


READERS: dict[str, Callable[[Place], Iterator[dict[str, Any]]]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".parquet": read_rows,
}


def _check_signature(place: Place, start: bytes) -> None:
    kind = next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), None)
    if kind is not None:
        raise UserError("annotations of another kind than their name says", got=f"{place}: {kind}", wanted="UTF-8 text")


def _check_separator(place: Place, start: bytes, separator: str) -> None:
    """Refuse a table that has no column `video` only because its values are separated by something else."""
    lines = start.removeprefix(b"\xef\xbb\xbf").splitlines()
    line = lines[0].decode(errors="replace") if lines else ""
    columns = {other: [name.strip().strip('"') for name in line.split(other)] for other in _SEPARATORS}
    named = [other for other, names in columns.items() if other != separator and len(names) > 1 and "video" in names]
    if "video" in columns[separator] or not named:
        return
    remedy = "save it with commas between the values and points in the numbers"
    if named[0] == "\t":
        remedy = f"name it {place.name.rpartition('.')[0]}.tsv"
    raise UserError(
        f"annotations are separated by {_SEPARATORS[named[0]]}",
        got=f"{place}",
        wanted=f"{_SEPARATORS[separator]} in a file of this name",
        remedy=remedy,
    )


def _check_encoding(place: Place, values: list[str], where: str) -> None:
    for value in values:
        if value.isascii():
            continue
        try:
            value.encode()
        except UnicodeEncodeError:
            raw = value.encode("utf-8", "surrogateescape")
            shown = "".join(itertools.islice((c for c in raw.decode("cp1252", "replace") if c.isprintable()), 60))
            raise UserError(
                "annotations are not encoded in UTF-8",
                got=f"{place}, {where}: {shown!r} if it is Windows-1252",
                wanted="UTF-8",
                remedy=f"save it as CSV UTF-8, or: iconv -f WINDOWS-1252 -t UTF-8 {place.name}",
            ) from None
