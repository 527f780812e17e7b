"""What a run records of single samples: Parquet files below `record/` in its folder, a row per clip and recorded step.

A file holds what one worker saw between two checkpoints, and is written before the later one counts. So a run that
goes on from a checkpoint of step S finds all rows of the steps before S, and removes files of later ones.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.errors import UserError
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

RECORD_FOLDER = "record"
RECORD_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("epoch", pa.int32()),
        ("sample", pa.int64()),  # number in the run's plan: the clip's row, or that of a question or of a source's text
        ("clip_id", pa.string()),
        ("loss", pa.float32()),  # these are null of a clip that could not be read
        ("weight", pa.float32()),  # times the number of clips of the step: 1 is uniform
        ("cosine", pa.float32()),  # of clip and text by the model that learns, null where it reads no text
    ]
)
_NAME = re.compile(r"steps_(\d{8})-(\d{8})\.rank_(\d{4})-of-(\d{4})\.parquet")


class RecordPart(NamedTuple):
    """The steps from `first` to before `stop` that worker `rank` of `world_size` saw."""

    first: int
    stop: int
    rank: int
    world_size: int

    @property
    def file_name(self) -> str:
        """The file's name in the record's folder."""
        return f"steps_{self.first:08d}-{self.stop:08d}.rank_{self.rank:04d}-of-{self.world_size:04d}.parquet"


def write_part(run_folder: Place, part: RecordPart, table: pa.Table) -> None:
    """Write a part whole, or not at all."""
    place = run_folder / RECORD_FOLDER / part.file_name
    with storage_errors(place.uri):
        with_retries(lambda: place.write_whole(lambda stream: pq.write_table(table, stream, compression="zstd")))


def list_parts(run_folder: Place) -> list[RecordPart]:
    """Return the parts that are there, in the order of their steps and ranks; other files are passed over."""
    folder = run_folder / RECORD_FOLDER
    with storage_errors(folder.uri):
        names = [file.name for file in with_retries(folder.files)]
    return sorted(RecordPart(*map(int, found.groups())) for name in names if (found := _NAME.fullmatch(name)))


def remove_parts_after(run_folder: Place, step: int) -> None:
    """Delete the parts with steps from `step` on, which a run that stands there is about to do again."""
    for part in list_parts(run_folder):
        if part.stop > step:
            place = run_folder / RECORD_FOLDER / part.file_name
            with storage_errors(place.uri):
                with_retries(place.delete_file)


def read_record(run_folder: Place, until_step: int) -> Iterator[pa.Table]:
    """Yield the parts of the steps before `until_step`, one in memory at a time.

    Raises UserError where nothing was recorded, and where a worker's part is missing or damaged.
    """
    parts = [part for part in list_parts(run_folder) if part.stop <= until_step]
    if not parts:
        raise UserError(
            "the run has recorded nothing of its samples",
            got=f"no files in {run_folder / RECORD_FOLDER}",
            remedy="train with --record.every 1, which costs next to nothing",
        )
    _require_all(run_folder, parts)
    for part in parts:
        place = run_folder / RECORD_FOLDER / part.file_name
        with storage_errors(place.uri):
            try:
                table = read_parquet(place, lambda parquet: parquet.read())
            except (FileNotFoundError, pa.ArrowInvalid) as error:
                reason = " ".join(str(error).split())
                raise UserError("a file of the record cannot be read", got=f"{place} ({reason})") from error
        if not table.schema.equals(RECORD_SCHEMA):
            raise UserError("not a file of a record", got=f"{place}", wanted=f"columns {RECORD_SCHEMA.names}")
        yield table


def _require_all(run_folder: Place, parts: list[RecordPart]) -> None:
    last_stop = 0
    for (first, stop), own in groupby(parts, key=lambda part: part[:2]):
        group = list(own)
        is_whole = [part.rank for part in group] == list(range(group[0].world_size))
        if first < last_stop or not is_whole:
            raise UserError(
                f"the record of steps {first} to {stop - 1} is not whole",
                got=", ".join(part.file_name for part in group),
                wanted=f"one file of each worker in {run_folder / RECORD_FOLDER}, and no step twice",
                remedy="put back what is missing, or record another run",
            )
        last_stop = stop
