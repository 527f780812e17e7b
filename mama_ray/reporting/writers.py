"""Write and read metrics.jsonl (one object per line, append-only) and its TensorBoard mirror.

The one design fact: on resume the writer drops the records past the resumed step, so no step is there twice whatever
was killed on the way; a last line torn by a crash is dropped too. On storage that cannot append (S3) the files grow in
a temporary folder and `flush` copies them.

A record's `step` is the number of steps that are done, as in the names of checkpoints; its `format` says so. Records
without one were written before that was so, and counted the step that was done last: `read_metrics` puts them right.
"""

import errno
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from pyarrow import fs

from mama_ray.errors import UserError
from mama_ray.reporting.metrics import check_value, find_metric
from mama_ray.reporting.trackers import Trackers
from mama_ray.storage.places import Place, whole_file
from mama_ray.storage.small_files import parse_json

FILE_NAME = "metrics.jsonl"
_FORMAT = 2
_LARGEST_METRIC = 1e300

MetricValue = float | list[float] | tuple[float, ...]
"""A number, or those of a curve."""


class MetricsWriter:
    """Appends records of one run; use it on rank 0 only, as a context manager or with `close`."""

    def __init__(
        self,
        folder: Place,
        *,
        start_step: int = 0,
        tensorboard: bool = True,
        trackers: Trackers | None = None,
    ) -> None:
        """Open `<folder>/metrics.jsonl`, keeping the records up to `start_step` steps done; the folder is there."""
        self._folder, self._trackers = folder, trackers
        self._scratch = None if folder.is_local else tempfile.TemporaryDirectory(prefix="metrics-")
        self._local = Path(folder.path if self._scratch is None else self._scratch.name)
        if not self._local.is_dir():  # never made here: where it was taken away, a run would begin anew beside the old
            raise FileNotFoundError(errno.ENOENT, "the folder of the run is gone", str(self._local))
        kept = [line for line, record in _read_lines(folder) if record["step"] <= start_step]
        with whole_file(self._local / FILE_NAME) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
        self._file = (self._local / FILE_NAME).open("a")
        self._tensorboard = _open_tensorboard(self._local / "tensorboard", start_step) if tensorboard else None

    def write(self, step: int, metrics: Mapping[str, MetricValue]) -> None:
        """Append the record after `step` steps; refuses unknown names and non-numbers; NaN and infinity become null."""
        for name, value in metrics.items():
            check_value(name, value)
        record: dict[str, Any] = {"step": int(step), "format": _FORMAT, "time_s": round(time.time(), 3)}
        record |= {name: _plain(value) for name, value in metrics.items()}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._trackers is not None:
            self._trackers.write(int(step), metrics)
        if self._tensorboard is not None:
            for name, value in metrics.items():
                if not isinstance(value, list | tuple):  # a curve
                    self._tensorboard.add_scalar(name, float(value), int(step))

    def flush(self) -> None:
        """Make everything written so far visible in the run directory; another thread may write on meanwhile.

        A copy may then hold later records, too, and end within one: a resumed run drops both.
        """
        if self._tensorboard is not None:
            self._tensorboard.flush()
        if not self._folder.is_local:
            self._folder.make_folder()
            fs.copy_files(str(self._local), self._folder.path, fs.LocalFileSystem(), self._folder.filesystem)

    def close(self) -> None:
        """Flush for the last time and let go of all files, even where the storage fails; the first error comes out."""
        with ExitStack() as closing:
            if self._scratch is not None:
                closing.callback(self._scratch.cleanup)
            if self._tensorboard is not None:
                closing.callback(self._tensorboard.close)
            closing.callback(self._file.close)
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(folder: Place) -> list[dict]:
    """Return the records in file order, each with its `step`, the number of steps done; [] when there is no file.

    A torn last line is left out, other damage raises UserError.
    """
    return [record for _, record in _read_lines(folder)]


def _read_lines(folder: Place) -> list[tuple[str, dict]]:
    """Return the lines of the file with their records."""
    place = folder / FILE_NAME
    if not place.exists():
        return []
    lines = place.read_bytes().decode(errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line, "the line")
            if record.pop("format", 1) < _FORMAT:
                record["step"] += 1
            if not 0 <= record["step"] < 1 << 63 or int(record["step"]) != record["step"]:
                raise ValueError("the step is no number of steps")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"{place} line {number} is not a metrics record",
                got=line[:60],
                wanted="a JSON object with a step",
            ) from error
        records.append((line, record))
    return records


def read_series(records: Sequence[Mapping], name: str) -> tuple[list[int], list]:
    """Return (steps, values) of one metric, without the records that lack it or hold null."""
    find_metric(name)
    points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    # A list is one value for each of several things, in every record or in none.
    odd = next((value for _, value in points if not _is_metric(value) or _is_other(value, points[0][1])), None)
    if odd is not None:
        raise UserError(f"metric {name} has a value that is none", got=repr(odd), wanted="a number, or a list of them")
    return [step for step, _ in points], [value for _, value in points]


def _is_other(one: object, first: object) -> bool:
    return isinstance(one, list) != isinstance(first, list)


def _is_metric(value: object) -> bool:
    if isinstance(value, list):
        return all(one is None or _is_metric(one) for one in value)
    return isinstance(value, int | float) and abs(value) < _LARGEST_METRIC


def _plain(value: MetricValue) -> float | list | None:
    """Return what strict JSON can hold: NaN and infinity are not in it."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    number = float(value)
    return number if math.isfinite(number) else None


def _open_tensorboard(directory: Path, start_step: int):
    # Imported here: it costs a second that readers of metrics need not pay.
    from torch.utils.tensorboard import SummaryWriter

    directory.mkdir(exist_ok=True)  # it would make the run's folder, too
    return SummaryWriter(str(directory), purge_step=start_step + 1 if start_step else None)
