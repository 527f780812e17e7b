"""From committed parts to the caption table: every place of every human caption exactly once, in the index's order.

A file of the table holds the clips of so many neighbouring rows of the index. One task makes it: it reads the parts of
its rows, keeps the first of what was written twice, compares the clips with the index, and writes the file whole. A
part that is not what its name says is removed and its clips are rephrased again.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from mama_ray.captioning.quality import QualityConfig, caption_flags
from mama_ray.captioning.rephrasing.clips import COUNTS, count_rows, text_sha256
from mama_ray.captioning.rephrasing.wording import text_key
from mama_ray.captioning.table import CAPTION_SCHEMA, file_name
from mama_ray.captioning.words import word_list
from mama_ray.orchestration.captioning.committed import missing_rows, read_rows, told_as_missing
from mama_ray.orchestration.captioning.finish import Merging, TableSummary, draw_rows
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE, part_place
from mama_ray.orchestration.cluster.results import some_at_once
from mama_ray.orchestration.rephrase.parts import PART_SCHEMA, read_part
from mama_ray.orchestration.rephrase.plan import RephrasePlan, with_texts
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_TASK_CPUS = 0.5
_LONGEST = 60  # last bin of the histogram of lengths


@dataclass
class RephraseSummary:
    """Counts over (a part of) a table: of its rows, and of what became of the candidates."""

    table: TableSummary = field(default_factory=TableSummary)
    candidates: Counter = field(default_factory=Counter)

    def merge(self, other: "RephraseSummary") -> None:
        """Add another summary to this one."""
        self.table.merge(other.table)
        self.candidates.update(other.candidates)


def num_files(num_clips: int) -> int:
    """Return the number of files of a table."""
    return -(-num_clips // CLIPS_PER_FILE)


def write_files(
    plan: RephrasePlan, quality: QualityConfig, constants: dict
) -> tuple[ray.ObjectRef, dict[str, int], list[str]]:
    """Write the files of the table; return a reference to the RephraseSummary, the rows of each file and the names of
    damaged parts, and of what is missing, whose files are not written."""
    task = _write_file.options(num_returns=2)
    numbers = range(num_files(plan.num_clips))
    merged, files, damaged = Merging(_merge), {}, []
    results = (task.remote(plan, number, quality, constants) for number in numbers)
    for number, (summary, facts) in zip(numbers, some_at_once(results), strict=True):
        files[file_name(number)], names = ray.get(facts)
        damaged += names
        merged.add(summary)
    return merged.result(), files, damaged


@ray.remote(num_cpus=_TASK_CPUS, name="rephrase: write file")
def _write_file(
    plan: RephrasePlan, number: int, quality: QualityConfig, constants: dict
) -> tuple[RephraseSummary, tuple[int, list[str]]]:
    table, damaged = read_rows(plan, number, schema=PART_SCHEMA, read=read_part)
    folder = Place.of(plan.output)
    if damaged:
        for name in damaged:
            logger.warning("part %s is damaged: its clips are rephrased again", name)
            part_place(folder, name).delete_file()
        return RephraseSummary(), (0, damaged)
    if missing := missing_rows(plan, number, table):
        return RephraseSummary(), (0, [told_as_missing(number, missing)])
    _check_rows(plan, number, table)
    rows, summary = [], RephraseSummary()
    for row in table.to_pylist():
        index_row = row.pop("row")
        summary.candidates.update({name: count for name in COUNTS if (count := row.pop(name))})
        caption = row["caption"]
        flags = () if caption is None else caption_flags(caption, quality, finish_reason=row["finish_reason"])
        rows.append({**row, **constants, "flags": list(flags)})
        summary.candidates["num_kept"] += caption is not None
        _count(summary.table, index_row, row, flags)
    summary.table.forget_the_rare()
    written = pa.Table.from_pylist(rows, schema=CAPTION_SCHEMA)
    (folder / file_name(number)).write_whole(lambda stream: pq.write_table(written, stream, compression="zstd"))
    return summary, (len(written), [])


@ray.remote(num_cpus=_TASK_CPUS, name="rephrase: merge summaries")
def _merge(*summaries: RephraseSummary) -> RephraseSummary:
    whole = RephraseSummary()
    for summary in summaries:
        whole.merge(summary)
    return whole


def _count(summary: TableSummary, index_row: int, row: dict, flags: tuple[str, ...]) -> None:
    caption = row["caption"]
    outcome = "error" if caption is None else "flagged" if flags else "good"
    summary.num_rows += 1
    summary.outcomes[outcome] += 1
    for name in (outcome, *flags):
        summary.samples[name] = draw_rows([*summary.samples.get(name, []), index_row])
    summary.flags.update(flags)
    if caption is None:
        summary.errors[row["error"].partition(":")[0]] += 1  # numbers stand behind the colon
        return
    words = word_list(caption)
    summary.num_tokens += row["num_tokens"]
    summary.lengths[min(len(words), _LONGEST)] += 1
    summary.words.update(word.lower() for word in words)
    summary.captions[caption] += 1
    summary.openings[" ".join(words[:3]).lower()] += 1


def _check_rows(plan: RephrasePlan, number: int, table: pa.Table) -> None:
    """Raise RuntimeError unless the table holds every clip of the file's rows, once per place of its human captions, as
    the index has it, and no text equals one that it was made from."""
    start, stop = number * CLIPS_PER_FILE, min((number + 1) * CLIPS_PER_FILE, plan.num_clips)
    rows = iter(table.select(["clip_id", "video_sha256", "sample", "shown_sha256", "caption"]).to_pylist())
    for clip in with_texts(ray.get(plan.table).slice(start, stop - start)):
        num_kept, texts = plan.decoding.num_kept, clip["texts"]
        digests, keys = [text_sha256(text) for text in texts], {text_key(text) for text in texts}
        for sample in range(count_rows(len(texts), num_kept)):
            row = next(rows, {})
            shown = digests[sample // num_kept] if texts else None
            found = tuple(row.get(name) for name in ("clip_id", "video_sha256", "sample", "shown_sha256"))
            if found != (clip["clip_id"], clip["sha256"], sample, shown):
                raise RuntimeError(
                    f"file {number} of the table: its rows are not those of the index at {clip['clip_id']}"
                )
            if row["caption"] is not None and text_key(row["caption"]) in keys:
                raise RuntimeError(f"a paraphrase of clip {clip['clip_id']} equals a human caption")
    if next(rows, None) is not None:
        raise RuntimeError(f"file {number} of the table: more rows than the index has")
