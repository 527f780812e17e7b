"""From committed parts to the caption table: every clip exactly once, in the index's order, with the gate's flags.

A file of the table holds the clips of so many neighbouring rows. One task makes it: it reads the parts of its rows,
keeps the first of what was written twice, compares the clips with the index, and writes the file whole. A part that is
not what its name says is removed and its clips are captioned again. Before that, one pass finds captions that many
clips share, so that no task needs more than its own rows.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.remote_function import RemoteFunction

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import QualityConfig, caption_flags, caption_key
from mama_ray.captioning.table import CAPTION_SCHEMA, file_name
from mama_ray.captioning.words import word_list
from mama_ray.data.unique_ids import hash_of_id
from mama_ray.orchestration.captioning.committed import (
    check_rows,
    missing_rows,
    num_files,
    put_away,
    read_rows,
    told_as_missing,
)
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.similarity import forget_similarities, read_similarities
from mama_ray.orchestration.cluster.results import some_at_once
from mama_ray.storage.places import Place

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


class Merging:
    """Merges summaries as they come, a few at a time: those of one file, of 16, of 256 and so on.

    `merge` is the remote function that makes one of several.
    """

    def __init__(self, merge: RemoteFunction) -> None:
        self._merge, self._levels = merge, [[]]

    def add(self, summary: ray.ObjectRef) -> None:
        """Take a summary in."""
        self._levels[0].append(summary)
        for number, level in enumerate(self._levels):
            if len(level) < _MERGED_AT_ONCE:
                break
            if number + 1 == len(self._levels):
                self._levels.append([])
            self._levels[number + 1].append(self._merge.remote(*level))
            level.clear()

    def result(self) -> ray.ObjectRef:
        """Return a reference to the whole."""
        return self._merge.remote(*(summary for level in reversed(self._levels) for summary in level))


def draw_rows(rows: list[int]) -> list[int]:
    """Return the rows that a fixed lottery draws, in ascending order: those whose numbers have the smallest hashes.

    What is drawn of a whole is what is drawn of what was drawn of its parts.
    """
    drawn = sorted(set(rows), key=lambda row: hash_of_id(f"shown {row}"))[:_MAX_SAMPLES]
    return sorted(drawn)


def write_files(plan: CaptionPlan, gate: Gate, constants: dict) -> tuple[ray.ObjectRef, list[str]]:
    """Write the files of the table; return a reference to the TableSummary and the names of damaged parts.

    Where parts were damaged, or are missing, which is told like a name, their files are not written, and the summary is
    of the others. Captions stay in tasks.
    """
    task = _write_file.options(num_returns=2)
    files = (task.remote(plan, number, gate, constants) for number in range(num_files(plan.num_clips)))
    damaged: list[str] = []
    merged = Merging(_merge)
    for summary, names in some_at_once(files):
        damaged += ray.get(names)
        merged.add(summary)
    return merged.result(), damaged


@ray.remote(num_cpus=_TASK_CPUS, name="table: write file")
def _write_file(plan: CaptionPlan, number: int, gate: Gate, constants: dict) -> tuple[TableSummary, list[str]]:
    table, damaged = read_rows(plan, number)
    if damaged:
        put_away(plan, damaged)
        return TableSummary(), damaged
    folder = Place.of(plan.output)
    if missing := missing_rows(plan, number, table):
        forget_similarities(folder, missing)
        return TableSummary(), [told_as_missing(number, missing)]
    check_rows(plan, number, table)
    shared = ray.get(gate.shared)
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
    key = np.uint64(hash_of_id(caption_key(caption)))
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
