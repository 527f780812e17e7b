"""From committed parts to the caption table: every clip exactly once, in the index's order, with the gate's flags.

A file of the table holds the clips of so many neighbouring rows. One task makes it: it reads the parts of its rows,
keeps the first of what was written twice, compares the clips with the index, and writes the file whole. A part that is
not what its name says is removed and its clips are captioned again. Before that, one pass finds captions that many
clips share, so that no task needs more than its own rows.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import QualityConfig, caption_flags, caption_key
from mama_ray.captioning.table import CAPTION_SCHEMA, file_name
from mama_ray.captioning.words import word_list
from mama_ray.orchestration.captioning.parts import (
    CLIPS_PER_FILE,
    PART_SCHEMA,
    list_parts,
    part_place,
    read_part,
    rows_of_part,
)
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.similarity import forget_similarities, read_similarities
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_TASK_CPUS = 0.5
# Bounds of what a summary holds; beyond them rare words and captions are forgotten.
_MAX_WORDS, _MAX_COMMON, _MAX_REASONS = 200_000, 2_000, 200
_LONGEST = 60  # last bin of the histogram of lengths
_MAX_SAMPLES = 8
_MERGED_AT_ONCE = 16


@dataclass
class TableSummary:
    """Counts over (a part of) a table; `merge` adds another's. Bounded, whatever the size of the table."""

    num_rows: int = 0
    outcomes: Counter = field(default_factory=Counter)
    flags: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    lengths: Counter = field(default_factory=Counter)
    words: Counter = field(default_factory=Counter)
    captions: Counter = field(default_factory=Counter)
    openings: Counter = field(default_factory=Counter)
    num_tokens: int = 0
    forgot_words: bool = False
    samples: dict[str, list[int]] = field(default_factory=dict)
    """Rows of the index to show, by outcome or flag: a random draw, the same however the table is cut into parts."""

    def merge(self, other: "TableSummary") -> None:
        """Add another summary to this one."""
        self.num_rows += other.num_rows
        self.num_tokens += other.num_tokens
        for name in ("outcomes", "flags", "errors", "lengths", "words", "captions", "openings"):
            getattr(self, name).update(getattr(other, name))
        for name, rows in other.samples.items():
            self.samples[name] = draw_rows([*self.samples.get(name, []), *rows])
        self.forgot_words |= other.forgot_words
        self.forget_the_rare()

    def forget_the_rare(self) -> None:
        """Keep the most common only where there are more than the bounds."""
        self.forgot_words |= len(self.words) > _MAX_WORDS
        for name, bound in (("words", _MAX_WORDS), ("captions", _MAX_COMMON), ("openings", _MAX_COMMON),
                            ("errors", _MAX_REASONS)):  # fmt: skip
            counter = getattr(self, name)
            if len(counter) > bound:
                setattr(self, name, Counter(dict(counter.most_common(bound // 2))))


@dataclass(frozen=True)
class Gate:
    """How texts become captions with flags; `shared` refers to the hashes that `shared_captions` found."""

    postprocess: PostprocessConfig
    quality: QualityConfig
    shared: ray.ObjectRef


def draw_rows(rows: list[int]) -> list[int]:
    """Return the rows that a fixed lottery draws, in ascending order: those whose numbers have the smallest hashes.

    What is drawn of a whole is what is drawn of what was drawn of its parts.
    """
    drawn = sorted(set(rows), key=lambda row: _hash(f"shown {row}"))[:_MAX_SAMPLES]
    return sorted(drawn)


def num_files(num_clips: int) -> int:
    """Return the number of files of a table."""
    return -(-num_clips // CLIPS_PER_FILE)


def shared_captions(plan: CaptionPlan, clean: PostprocessConfig, max_copies: int) -> ray.ObjectRef:
    """Return a reference to the hashes, uint64 and sorted, of caption keys that more than `max_copies` captions have.

    Counting goes by ranges of hashes, so that no task holds more than about a hundred megabytes.
    """
    count = num_files(plan.num_clips)
    num_ranges = 1 + plan.num_clips * plan.sampling.num_captions // 4_000_000
    hashed = [
        _hash_keys.options(num_returns=num_ranges).remote(plan, number, clean, num_ranges) for number in range(count)
    ]
    columns = [[refs] for refs in hashed] if num_ranges == 1 else hashed
    found = [_count_keys.remote(max_copies, *(refs[part] for refs in columns)) for part in range(num_ranges)]
    return _join.remote(*found)


def write_files(plan: CaptionPlan, gate: Gate, constants: dict) -> tuple[ray.ObjectRef, list[str]]:
    """Write the files of the table; return a reference to the TableSummary and the names of damaged parts.

    Where parts were damaged their files are not written, and the summary is of the others. Captions stay in tasks.
    """
    task = _write_file.options(num_returns=2)
    results = [task.remote(plan, number, gate, constants) for number in range(num_files(plan.num_clips))]
    damaged = [name for _, names in results for name in ray.get(names)]
    summaries = [summary for summary, _ in results]
    while len(summaries) > 1:
        groups = [summaries[start : start + _MERGED_AT_ONCE] for start in range(0, len(summaries), _MERGED_AT_ONCE)]
        summaries = [_merge.remote(*group) for group in groups]
    return summaries[0], damaged


@ray.remote(num_cpus=_TASK_CPUS, name="table: hash captions")
def _hash_keys(plan: CaptionPlan, number: int, clean: PostprocessConfig, num_ranges: int):
    """Return the hashes of a file's caption keys, split into ranges."""
    table, _ = _read_rows(plan, number)
    texts = table["text"].drop_null().to_pylist()
    hashes = np.array([_hash(caption_key(postprocess(text, clean))) for text in texts], np.uint64)
    if num_ranges == 1:
        return hashes
    places = (hashes >> np.uint64(32)).astype(np.int64) * num_ranges >> 32
    return tuple(hashes[places == part] for part in range(num_ranges))


@ray.remote(num_cpus=_TASK_CPUS, name="table: count copies")
def _count_keys(max_copies: int, *hashes: np.ndarray) -> np.ndarray:
    keys, counts = np.unique(np.concatenate(hashes), return_counts=True)
    return keys[counts > max_copies]


@ray.remote(num_cpus=_TASK_CPUS, name="table: join copies")
def _join(*parts: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate(parts))


@ray.remote(num_cpus=_TASK_CPUS, name="table: write file")
def _write_file(plan: CaptionPlan, number: int, gate: Gate, constants: dict) -> tuple[TableSummary, list[str]]:
    table, damaged = _read_rows(plan, number)
    if damaged:
        _remove(plan, damaged)
        return TableSummary(), damaged
    _check_rows(plan, number, table)
    shared = ray.get(gate.shared)
    folder = Place.of(plan.output)
    similarities = read_similarities(folder, number)
    rows, summary = [], TableSummary()
    for row in table.to_pylist():
        index_row, text = row.pop("row"), row.pop("text")
        caption = None if row["error"] else postprocess(text, gate.postprocess)
        row["similarity"] = similarities.get((index_row, row["sample"]))
        flags = _flags(caption, row, gate.quality, shared)
        rows.append({**row, **constants, "caption": caption, "flags": list(flags)})
        _count(summary, index_row, caption, flags, row)
    summary.forget_the_rare()
    table = pa.Table.from_pylist(rows, schema=CAPTION_SCHEMA)
    (folder / file_name(number)).write_whole(lambda stream: pq.write_table(table, stream, compression="zstd"))
    return summary, []


@ray.remote(num_cpus=_TASK_CPUS, name="table: merge summaries")
def _merge(*summaries: TableSummary) -> TableSummary:
    whole = TableSummary()
    for summary in summaries:
        whole.merge(summary)
    return whole


def _flags(caption: str | None, row: dict, quality: QualityConfig, shared: np.ndarray) -> tuple[str, ...]:
    if caption is None:
        return ()
    key = np.uint64(_hash(caption_key(caption)))
    place = int(np.searchsorted(shared, key))
    is_shared = place < len(shared) and shared[place] == key
    copies = quality.max_copies + 1 if is_shared else 1
    known = {"finish_reason": row["finish_reason"], "similarity": row["similarity"]}
    return caption_flags(caption, quality, num_copies=copies, **known)


def _count(summary: TableSummary, index_row: int, caption: str | None, flags: tuple[str, ...], row: dict) -> None:
    outcome = "error" if caption is None else "flagged" if flags else "good"
    summary.num_rows += 1
    summary.outcomes[outcome] += 1
    for name in (outcome, *flags):
        summary.samples[name] = draw_rows([*summary.samples.get(name, []), index_row])
    summary.flags.update(flags)
    if caption is None:
        summary.errors[row["error"]] += 1
        return
    words = word_list(caption)
    summary.num_tokens += row["num_tokens"]
    summary.lengths[min(len(words), _LONGEST)] += 1
    summary.words.update(word.lower() for word in words)
    summary.captions[caption] += 1
    summary.openings[" ".join(words[:3]).lower()] += 1


def _read_rows(plan: CaptionPlan, number: int) -> tuple[pa.Table, list[str]]:
    """Return the committed rows of a file, sorted, each (row, sample) once; and the names of damaged parts."""
    folder = Place.of(plan.output)
    start, stop = number * CLIPS_PER_FILE, min((number + 1) * CLIPS_PER_FILE, plan.num_clips)
    tables, damaged = [PART_SCHEMA.empty_table()], []
    seen = np.zeros(stop - start, bool)
    for name in list_parts(folder, number):
        own = np.array(rows_of_part(name))
        table = read_part(folder, name)
        if table is None:
            damaged.append(name)
            continue
        fresh = own[~seen[own - start]]  # a zombie task may have written clips that were given to another as well
        seen[fresh - start] = True
        tables.append(table.filter(pa.array(np.isin(table["row"].to_numpy(), fresh))))
    return pa.concat_tables(tables).sort_by([("row", "ascending"), ("sample", "ascending")]), damaged


def _remove(plan: CaptionPlan, damaged: list[str]) -> None:
    folder = Place.of(plan.output)
    for name in damaged:
        logger.warning("part %s is damaged: its clips are captioned again", name)
        part_place(folder, name).delete_file()
        forget_similarities(folder, int(name[:8]))


def _check_rows(plan: CaptionPlan, number: int, table: pa.Table) -> None:
    """Raise RuntimeError unless the table holds every clip of the file's rows, once per sample, as the index has it."""
    start, stop = number * CLIPS_PER_FILE, min((number + 1) * CLIPS_PER_FILE, plan.num_clips)
    index = ray.get(plan.table).slice(start, stop - start)
    num_captions = plan.sampling.num_captions
    for ours, theirs in (("clip_id", "clip_id"), ("video_sha256", "sha256")):
        wanted = np.repeat(index[theirs].to_numpy(zero_copy_only=False), num_captions)
        if not np.array_equal(table[ours].to_numpy(), wanted):
            raise RuntimeError(f"file {number} of the table: its {ours}s are not those of the index, once per sample")
    samples = np.tile(np.arange(num_captions), stop - start)
    if not np.array_equal(table["sample"].to_numpy(), samples):
        raise RuntimeError(f"file {number} of the table: clips without all of their samples")


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
