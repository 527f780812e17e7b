"""LaViLa's pickles of narrations as annotations for jobs/prepare.py.

    python -m mama_ray.data.narrations ego4d_train.pkl --output clips.jsonl
    python -m mama_ray.data.narrations ego4d_train.pkl ego4d_train.narrator_63690737.return_10.pkl --output clips.jsonl

Nothing else of the project reads a pickle, and this program does not run what one says: it knows lists, tuples, texts
and numbers, and refuses the rest by name. Records of 5 are generated, those of 4 human, or rephrased where the file's
name says so or --source does. Records that are no narration go to OUTPUT.refused.jsonl with the reason.
"""

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import tyro

from mama_ray.data.narrations.pickled_list import read_pickled_list
from mama_ray.data.narrations.records import row_of_record
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors

_SHARE_OF_MEMORY = 0.9
_NUM_SHOWN = 3
# Written characters per byte of a pickle, beyond which it repeats itself to no end: texts are written once for each
# record that refers to them.
_MAX_EXPANSION = 100
_SMALL_BYTES = 16 << 20
_MAX_GIB = 1e6


@dataclass
class _Counts:
    rows: int = 0
    texts: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    clamped: Counter = field(default_factory=Counter)
    num_left_out: int = 0
    num_scored: int = 0

    def __str__(self) -> str:
        said = [f"{self.rows} rows with " + ", ".join(f"{count} {name} texts" for name, count in self.texts.items())]
        if self.clamped["start"]:
            said.append(f"{self.clamped['start']} with a start below 0, taken as 0")
        if self.num_left_out:
            said.append(f"{self.num_left_out} texts left out for their score")
        if self.refused:
            most = self.refused.most_common(_NUM_SHOWN)
            shown = "; ".join(f"{count} {self.examples[kind]}" for kind, count in most)
            said.append(f"{self.refused.total()} records refused ({shown})")
        return ", ".join(said)


def main(
    pickles: Annotated[tuple[Path, ...], tyro.conf.Positional],
    output: str,
    source: Literal["human", "rephrased"] | None = None,
    split: Literal["train", "meta", "val", "test"] | None = None,
    max_score: float | None = None,
    max_memory_gib: float | None = None,
) -> None:
    """Write the rows of one or more pickles, of which those of the same clip become one clip in prepare.

    Args:
        pickles: LaViLa's files, in the order in which captions are to stand.
        output: JSON lines to write, a path or a URI that ends in .jsonl.
        source: Of records without scores; by default rephrased for a file whose name says rephras, else human.
        split: Split that all rows name; by default none, and prepare gives them its own.
        max_score: Leave out generated texts whose score, a perplexity, is above it.
        max_memory_gib: Most memory to take; by default nine tenths of the machine's.
    """
    _limit_memory(max_memory_gib)
    told = convert(pickles, output, source=source, split=split, max_score=max_score)
    sys.stdout.write(f"{told}: {output}\n")


def convert(
    pickles: Sequence[Path],
    output: str,
    *,
    source: Literal["human", "rephrased"] | None = None,
    split: str | None = None,
    max_score: float | None = None,
) -> str:
    """Write the rows of the pickles, as `main` says, and return what was found in words. Raises UserError."""
    if not output.endswith(".jsonl"):
        raise UserError("output of another format", got=output, wanted="a name that ends in .jsonl")
    if not pickles:
        raise UserError("no pickle to read", wanted="at least one file")
    place, counts = Place.of(output), _Counts()
    with storage_errors(output), ExitStack() as files:
        rows = files.enter_context(place.open_whole())
        refused = files.enter_context(Place.of(f"{output}.refused.jsonl").open_whole())
        for path in pickles:
            _convert(path, rows, refused, counts, source=source, split=split, max_score=max_score)
        if not counts.rows:
            got = f"{', '.join(path.name for path in pickles)}: {counts}" if counts.refused else "empty lists"
            raise UserError("no record is a narration", got=got, wanted="tuples of 4 or 5")
        if max_score is not None and not counts.num_scored:
            got = f"{max_score:g} for {', '.join(path.name for path in pickles)}"
            raise UserError("--max-score has no meaning for records without scores", got=got, wanted="tuples of 5")
    if not counts.refused:
        Place.of(f"{output}.refused.jsonl").delete_file()
    return str(counts)


def _convert(
    path: Path,
    rows: BinaryIO,
    refused: BinaryIO,
    counts: _Counts,
    *,
    source: Literal["human", "rephrased"] | None,
    split: str | None,
    max_score: float | None,
) -> None:
    source = source or ("rephrased" if "rephras" in path.name.lower() else "human")
    num_bytes, num_written = path.stat().st_size if path.is_file() else 0, 0
    for number, record in enumerate(read_pickled_list(path), 1):
        counts.num_scored += isinstance(record, tuple | list) and len(record) == 5
        try:
            row, num_left_out = row_of_record(record, clamped=counts.clamped, source=source, max_score=max_score)
            line = json.dumps(row if split is None else {**row, "split": split}, ensure_ascii=False).encode()
        except (ValueError, TypeError) as error:  # of lone surrogates too
            reason = str(error) if type(error) is ValueError else "text: got a lone surrogate, wanted Unicode text"
            refused.write(json.dumps({"file": path.name, "record": number, "reason": reason}).encode() + b"\n")
            kind = reason.partition(": ")[0]
            counts.refused[kind] += 1
            counts.examples.setdefault(kind, reason)
            continue
        rows.write(line + b"\n")
        counts.rows += 1
        counts.num_left_out += num_left_out
        counts.texts[row["captions"][0]["source"]] += len(row["captions"])
        num_written += len(line)
        if num_written > _MAX_EXPANSION * num_bytes + _SMALL_BYTES:
            raise UserError(
                "the pickle says the same texts over and over",
                got=f"{path}, record {number}: {num_written} bytes of rows from {num_bytes} bytes",
                wanted=f"at most {_MAX_EXPANSION} times its size",
            )


def _limit_memory(max_gib: float | None) -> None:
    """Have a pickle that makes much out of little fail alone; UserError for what is no amount of memory."""
    if max_gib is not None and not 0 < max_gib <= _MAX_GIB:  # not so of NaN either; -1 would be no limit at all
        raise UserError("--max-memory-gib", got=f"{max_gib:g}", wanted=f"more than 0, up to {_MAX_GIB:g}")
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = int(max_gib * 2**30) if max_gib is not None else int(_SHARE_OF_MEMORY * there)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
