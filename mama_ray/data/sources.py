"""Samples with a share per caption source: their order, and their batches.

A sample is a clip with the source of its text, a number: row + (place of the source) * (number of clips). In each epoch
every source has exactly its share of the places, spread evenly, so that every batch has it to within a sample or two;
each source walks through its own clips in an order of its own. As with clips, the content of a batch is a pure function
of the seed and the step.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.data.batch import TARGET_PREFIX
from mama_ray.data.classes.names import IS_GENERATED
from mama_ray.data.index import clips_per_shard
from mama_ray.data.index_rows import Chosen
from mama_ray.data.plan import EpochPlan, PlanConfig, local_places
from mama_ray.data.questions.assemble import AssemblesClips
from mama_ray.errors import UserError

logger = logging.getLogger(__name__)

_OFFSETS, _ORDERS = 0x736F66, 0x736F72  # keys of random numbers
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class SourceRows:
    """The rows of the clips that have a caption of a source.

    Attributes:
        rows: int64, ascending, or a bit for each clip.
        clips_per_shard: how many of them each shard has, in the order of the shards.
    """

    rows: np.ndarray | Chosen
    clips_per_shard: Sequence[int]

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return some of the rows."""
        return self.rows.rows(places) if isinstance(self.rows, Chosen) else self.rows[places]


class SourcePlan:
    """The endless order of samples of clips that are sorted by (shard, offset); its epoch has a place per clip.

    Args:
        clips: a table with columns shard and captions, or how many clips there are and which have which source.
        shares: of the sources, summing to 1; one of 0 has no place.
        config: seed and width of each source's shuffle.

    Raises UserError where no clip has a caption of a source that has a share.
    """

    def __init__(
        self,
        clips: pa.Table | tuple[int, Mapping[str, SourceRows]],
        shares: Mapping[str, float],
        config: PlanConfig,
    ) -> None:
        self.sources = tuple(sorted(source for source, share in shares.items() if share > 0))
        if isinstance(clips, pa.Table):
            clips = len(clips), _sources_of(clips, shares)
        self.config, (self.num_clips, of_sources) = config, clips
        self._rows = [of_sources[source] for source in self.sources]
        self._plans = []
        for place, rows in enumerate(self._rows):
            seed = int(np.random.SeedSequence((config.seed, _ORDERS, place)).generate_state(1)[0])
            self._plans.append(EpochPlan(rows.clips_per_shard, config.model_copy(update={"seed": seed})))
        self.counts = _apportioned(self.num_clips, [shares[source] for source in self.sources])
        self._ends = list(accumulate(self.counts))
        # The places' sources follow the multiples of this number: each comes up exactly once, evenly spread.
        self._stride = _coprime_near(round(_GOLDEN * self.num_clips), self.num_clips)

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and their epochs, int64, of positions [start, stop) of the endless stream."""
        pieces = []
        while start < stop:
            epoch, position = divmod(start, self.num_clips)
            end = min(self.num_clips, position + stop - start)
            pieces.append(self._piece(epoch, position, end))
            start += end - position
        if not pieces:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate([rows for rows, _ in pieces]), np.concatenate([epochs for _, epochs in pieces])

    def global_batch(self, step: int, global_batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and epochs of training step `step`, each (global_batch_size,)."""
        return self.rows(step * global_batch_size, (step + 1) * global_batch_size)

    def local_batch(
        self, step: int, global_batch_size: int, rank: int, world_size: int, *, num_parts: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and epochs of what worker `rank` takes of a step, as `EpochPlan.local_batch` does."""
        places = local_places(global_batch_size, rank, world_size, num_parts=num_parts)
        return self.rows(step * global_batch_size + places.start, step * global_batch_size + places.stop)

    def _piece(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        offset = int(np.random.SeedSequence((self.config.seed, _OFFSETS, epoch)).generate_state(1)[0]) % self.num_clips
        values = (np.arange(start, stop, dtype=np.int64) * self._stride + offset) % self.num_clips
        source_of = np.searchsorted(self._ends, values, side="right")
        samples, epochs = np.empty(stop - start, np.int64), np.empty(stop - start, np.int64)
        for place, (plan, rows, count) in enumerate(zip(self._plans, self._rows, self.counts, strict=True)):
            own = source_of == place
            before = epoch * count + self._count_before(place, start, offset)
            drawn, own_epochs = plan.rows(before, before + int(own.sum()))
            samples[own], epochs[own] = rows.take(drawn) + place * self.num_clips, own_epochs
        return samples, epochs

    def _count_before(self, source: int, stop: int, offset: int) -> int:
        """Return how many of the first `stop` places of an epoch a source has."""
        bounds = (self._ends[source - 1] if source else 0, self._ends[source])
        low, high = (_count_below(bound, stop, self._stride, offset, self.num_clips) for bound in bounds)
        return high - low


@dataclass(frozen=True)
class SourceAssembler:
    """Assembles batches of samples, of every source by an assembler that draws its captions alone.

    Attributes:
        of_sources: the assemblers, in the order of the plan's sources.
        num_clips: of their table.
    """

    of_sources: Mapping[str, AssemblesClips]
    num_clips: int

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the clips' arrays in the order of the samples, and of each whether its text is a generated one."""
        samples = np.asarray(rows, np.int64)
        source_of, clip_rows = np.divmod(samples, self.num_clips)
        parts, order = [], []
        for place, (source, clips) in enumerate(self.of_sources.items()):
            own = np.flatnonzero(source_of == place)
            if len(own) or (not len(samples) and not parts):
                arrays = clips.assemble(clip_rows[own], None if epochs is None else np.asarray(epochs)[own])
                parts.append(arrays | {TARGET_PREFIX + IS_GENERATED: np.full(len(own), source == "generated")})
                order.append(own)
        back = np.argsort(np.concatenate(order), kind="stable")
        return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


@dataclass(frozen=True)
class FirstCaptions:
    """Assembles clips with their first captions, and of each whether it is a generated one."""

    clips: AssemblesClips
    table: pa.Table

    def assemble(
        self, rows: np.ndarray | Sequence[int], epochs: np.ndarray | Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the clips' arrays, without anything drawn."""
        captions = self.table["captions"].take(pa.array(rows, pa.int64())).to_pylist()
        is_generated = np.array([bool(own) and own[0]["source"] == "generated" for own in captions], bool)
        return self.clips.assemble(rows) | {TARGET_PREFIX + IS_GENERATED: is_generated}


def rows_of_shares(clips: pa.Table, shares: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return for each source that has a share, ordered by name, the rows of the clips that have a caption
    of it; UserError where none has."""
    rows = {source: rows_of_source(clips, source) for source in sorted(shares) if shares[source] > 0}
    require_sources({source: len(found) for source, found in rows.items()}, shares)
    return rows


def require_sources(counts: Mapping[str, int], shares: Mapping[str, float]) -> None:
    """Raise UserError where no clip has a caption of a source that has a share."""
    if missing := [source for source, count in counts.items() if not count]:
        raise UserError(
            f"no clip has a caption of source {missing[0]}",
            got=f"data.shares gives it {shares[missing[0]]:g} of the samples",
            wanted="a share of 0, or captions of it in the shards or in data.caption_tables",
        )


def absent_sources(tables: Iterable[pa.Table], sources: Iterable[str]) -> list[str]:
    """Return which sources no clip has a caption of, in order; no more tables are read than it takes to tell."""
    absent = set(sources)
    for table in tables if absent else ():
        captions = table["captions"].combine_chunks()
        absent -= set(pc.unique(pc.struct_field(pc.list_flatten(captions), "source")).to_pylist())
        if not absent:
            break
    return sorted(absent)


def tell_absent(tables: Iterable[pa.Table], probabilities: Mapping[str, float] | None) -> None:
    """Warn of sources that captions would be drawn from and that no clip has: what is learned is another mix."""
    drawn = [source for source, share in (probabilities or {}).items() if share > 0]
    for source in absent_sources(tables, drawn):
        logger.warning(
            "data.captions draws of %s, and no training clip has a caption of it: the other sources have its part",
            source,
        )


def _sources_of(clips: pa.Table, shares: Mapping[str, float]) -> dict[str, SourceRows]:
    shards = clips.select(["shard"])
    return {
        source: SourceRows(rows, clips_per_shard(shards.take(pa.array(rows))))
        for source, rows in rows_of_shares(clips, shares).items()
    }


def rows_of_source(clips: pa.Table, source: str) -> np.ndarray:
    """Return the rows of the clips that have a caption of a source, ascending."""
    captions = clips.column("captions").combine_chunks()
    is_own = pc.equal(pc.struct_field(pc.list_flatten(captions), "source"), source)
    parents = pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)
    return np.unique(parents[is_own.to_numpy(zero_copy_only=False).astype(bool)])


def _apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers in proportion to shares, with the given sum: the largest remainders are rounded up."""
    exact = [share / sum(shares) * total for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _coprime_near(wanted: int, modulus: int) -> int:
    """Return a number from `wanted` on that has no divisor in common with `modulus`."""
    number = max(1, wanted)
    while math.gcd(number, modulus) != 1:
        number += 1
    return number


def _count_below(bound: int, stop: int, stride: int, offset: int, modulus: int) -> int:
    """Return how many i in [0, stop) have (stride * i + offset) % modulus < bound."""
    ahead = offset + modulus
    return _floor_sum(stop, modulus, stride, ahead) - _floor_sum(stop, modulus, stride, ahead - bound)


def _floor_sum(count: int, modulus: int, stride: int, offset: int) -> int:
    """Return the sum of (stride * i + offset) // modulus over i in [0, count), by Euclid's algorithm: lattice points
    under a line."""
    total = 0
    while count > 0:
        total += count * (count - 1) // 2 * (stride // modulus) + count * (offset // modulus)
        stride, offset = stride % modulus, offset % modulus
        top = stride * count + offset
        if top < modulus:
            break
        count, offset, stride, modulus = top // modulus, top % modulus, modulus, stride
    return total
