"""What a weight net is told of each training clip: numbers and categories of a table, topics, sources of captions.

A clip's columns are one row of numbers, a category as its value's place in the vocabulary and NaN for any other value.
They stand beside the clip in its table; what depends on the caption that an epoch draws is filled in batch by batch.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float

from mama_ray.data.assemble import draw_caption
from mama_ray.data.batch import WEIGHT_INPUTS
from mama_ray.data.questions.assemble import AssemblesClips
from mama_ray.data.sources import absent_sources
from mama_ray.data.video.sampling import row_rng
from mama_ray.errors import UserError
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

SOURCE, TOPIC = "source", "topic"
_NUM_SHOWN = 3


@dataclass(frozen=True)
class DrawnSource:
    """The column that is the drawn caption's source: its place among the columns, and its values."""

    column: int
    values: tuple[str, ...]

    @classmethod
    def of(cls, record: Sequence | None) -> "DrawnSource | None":
        """Return that of a run's summary, None where it says nothing."""
        return None if record is None else cls(record[0], tuple(record[1]))


def read_clip_table(place: Place, numbers: Sequence[str], texts: Sequence[str]) -> pa.Table:
    """Read columns of a CSV or Parquet file with clip_id; UserError for a file or a column that is not such."""
    types = {"clip_id": pa.string(), **dict.fromkeys(numbers, pa.float64()), **dict.fromkeys(texts, pa.string())}
    with storage_errors(place.uri), place.open_file() as file:
        try:
            if place.name.endswith(".parquet"):
                names = pq.ParquetFile(file).schema_arrow.names
                _require_columns(place, names, types)
                table = pq.read_table(file, columns=list(types))
            else:
                table = pa_csv.read_csv(file, convert_options=pa_csv.ConvertOptions(column_types=types))
                _require_columns(place, table.column_names, types)
            table = table.select(list(types)).cast(pa.schema(list(types.items())))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                "weighting.features cannot be read", got=f"{place}: {reason}", wanted="CSV or Parquet with numbers in "
                f"{', '.join(numbers)}" if numbers else "CSV or Parquet",
            ) from error  # fmt: skip
    return table.combine_chunks()


def _require_columns(place: Place, names: Sequence[str], wanted: Mapping[str, pa.DataType]) -> None:
    if missing := [name for name in wanted if name not in names]:
        raise UserError(
            f"weighting.features has no column {missing[0]}",
            got=f"{place} with {', '.join(map(repr, names))}",
            wanted=", ".join(wanted),
        )


def columns_of_clips(
    clips: pa.Table, columns: Sequence[str], categories: Mapping[str, Sequence[str]], features: str | None
) -> tuple[Float[np.ndarray, "clips columns"], DrawnSource | None, str | None]:
    """Return the columns of a table of clips, which of them is the drawn caption's source, and a hash of what
    `features` says; UserError where it lacks a clip, has one twice, or holds no finite number of it.
    """
    names, of_file, digest = list(columns), {}, None
    if features is not None:
        of_file = _columns_of_file(clips, Place.of(features), names, categories)
        digest = hashlib.sha256(b"".join(of_file[name].tobytes() for name in sorted(of_file))).hexdigest()
    found, drawn = np.full((len(clips), len(names)), np.nan, np.float32), None
    for place, name in enumerate(names):
        if name in of_file:
            found[:, place] = of_file[name]
        elif name == TOPIC:
            found[:, place] = _places_in(clips["topic"], categories[name])
        else:
            assert name == SOURCE
            drawn = DrawnSource(place, tuple(categories[name]))
        if name in categories:
            is_drawn = drawn is not None and drawn.column == place
            _tell_unseen(name, categories[name], None if is_drawn else found[:, place], clips)
    return found, drawn, digest


def _tell_unseen(name: str, values: Sequence[str], places: Float[np.ndarray, " clips"] | None, clips: pa.Table) -> None:
    """Warn of values that no clip has, as a misspelt one; of the drawn source, which has no places, by its captions."""
    if places is None:
        unseen = absent_sources([clips], values)
    else:
        unseen = [value for place, value in enumerate(values) if not np.any(places == place)]
    if unseen:
        shown = ", ".join(unseen[:_NUM_SHOWN])
        logger.warning(
            "weighting.categories: %d of %d values of %s are no training clip's: %s",
            len(unseen), len(values), name, shown,
        )  # fmt: skip


def _columns_of_file(
    clips: pa.Table, place: Place, names: Sequence[str], categories: Mapping[str, Sequence[str]]
) -> dict[str, Float[np.ndarray, " clips"]]:
    if not place.is_file():
        raise UserError("no table of weighting.features", got=place)
    numbers = [name for name in names if name not in categories]
    own = _names_of(place)
    texts = [name for name in names if name in categories and (name in own or name not in (TOPIC, SOURCE))]
    table = read_clip_table(place, numbers, texts)
    ids = clips["clip_id"].cast(pa.string()).combine_chunks()
    if len(pc.unique(table["clip_id"])) < len(table):
        counts = pc.value_counts(table["clip_id"].combine_chunks())
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise _of_clips("has clips more than once", place, twice, wanted="one row of each clip")
    rows = pc.index_in(ids, value_set=table["clip_id"].combine_chunks())
    _refuse(pc.is_null(rows), ids, "lacks training clips", place, wanted="a row of each training clip")
    chosen = table.take(rows)
    found = {}
    for name in numbers:
        values = chosen[name].combine_chunks()
        is_number = pc.fill_null(pc.is_finite(values), fill_value=False)
        _refuse(pc.invert(is_number), ids, f"has no number {name} of clips", place, wanted="a finite number")
        found[name] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return found | {name: _places_in(chosen[name], categories[name]) for name in texts}


def _names_of(place: Place) -> list[str]:
    with storage_errors(place.uri), place.open_file() as file:
        try:
            if place.name.endswith(".parquet"):
                return pq.ParquetFile(file).schema_arrow.names
            return pa_csv.open_csv(file).schema.names
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise UserError("weighting.features cannot be read", got=f"{place}: {reason}") from error


def _refuse(is_bad: pa.BooleanArray, ids: pa.Array, what: str, place: Place, *, wanted: str) -> None:
    if pc.any(is_bad).as_py():
        raise _of_clips(what, place, ids.filter(is_bad), wanted=wanted)


def _of_clips(what: str, place: Place, ids: pa.Array, *, wanted: str) -> UserError:
    shown = ", ".join(ids[:_NUM_SHOWN].to_pylist())
    return UserError(f"weighting.features {what}", got=f"{len(ids)} in {place}, among them {shown}", wanted=wanted)


def _places_in(column: pa.ChunkedArray, values: Sequence[str]) -> Float[np.ndarray, " clips"]:
    places = pc.index_in(column.cast(pa.string()), value_set=pa.array(values, pa.string()))
    known = places.is_valid().to_numpy(zero_copy_only=False)
    numbers = pc.fill_null(places, 0).to_numpy().astype(np.float32)
    return np.where(known, numbers, np.float32(np.nan))


def add_columns(clips: pa.Table, columns: Float[np.ndarray, "clips columns"]) -> pa.Table:
    """Return the table of clips with their columns beside them."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(columns.ravel()), columns.shape[1])
    return clips.append_column(WEIGHT_INPUTS, lists)


@dataclass(frozen=True)
class ColumnAssembler:
    """Adds to a batch of clips their columns for the weight net.

    Attributes:
        clips: makes the clips' arrays.
        table: their table, with the columns.
        drawn: the column that says of which source the caption is.
        probabilities, joins, apart, seed: by which that caption is drawn, as `clips` draws it.
    """

    clips: AssemblesClips
    table: pa.Table
    drawn: DrawnSource | None = None
    probabilities: Mapping[str, float] | None = None
    joins: bool = False
    apart: bool = False
    seed: int = 0

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the clips' arrays and their columns."""
        names = [WEIGHT_INPUTS, *(["captions"] if self.drawn else [])]
        chosen = self.table.select(names).take(pa.array(rows, pa.int64())).combine_chunks()
        width = chosen.schema.field(WEIGHT_INPUTS).type.list_size
        lists = chosen[WEIGHT_INPUTS].combine_chunks()
        columns = np.array(pc.list_flatten(lists)).astype(np.float32).reshape(len(rows), width)
        if self.drawn is not None:
            for position, captions in enumerate(chosen["captions"].to_pylist()):
                rng = None if epochs is None else row_rng(self.seed, int(epochs[position]), int(rows[position]))
                drawn_by = {"joins": self.joins, "probabilities": self.probabilities, "apart": self.apart}
                caption = draw_caption(captions, rng, **drawn_by)
                source = None if caption is None else caption["source"]
                if source in self.drawn.values:
                    columns[position, self.drawn.column] = self.drawn.values.index(source)
        return self.clips.assemble(rows, epochs) | {WEIGHT_INPUTS: columns}
