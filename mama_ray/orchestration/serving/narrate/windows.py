"""The windows of a narration as they are committed: read from the job's parts while it runs, from its table afterwards.

What was read once is not read again, so that a look costs what is new. A window has a revision, the number of the look
that saw it last change, by which a page is told what it does not know yet. Numbers go up over all narrations of a
process: whatever is read anew is news.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from mama_ray.captioning.table import SUMMARY_NAME, read_caption_files
from mama_ray.captioning.timeline import Entry, TimelineConfig, build_timeline
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.parts import list_parts, read_part
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.narration.timelines import COLUMNS, as_in_table
from mama_ray.orchestration.serving.narrate.record import NarrationFolder, Record
from mama_ray.storage.places import Place

_ALL_SAMPLES = 64
_looks = itertools.count(1)


class NarratedWindows:
    """The windows of one narration that have a row by now, by clip id."""

    def __init__(self, folder: NarrationFolder, record: Record, job: NarrateJob) -> None:
        self._output = Place.of(folder.output)
        self._job = job
        self._style = TimelineConfig(subject=job.timeline.subject, merge=False, max_texts=_ALL_SAMPLES,
                                     hidden_flags=job.timeline.hidden_flags)  # fmt: skip
        self._times = {window.clip_id: (window.start_s, window.end_s) for window in record.windows()}
        self._seen_parts: set[str] = set()
        self._is_final = False
        self._entries: dict[str, Entry] = {}
        self._revisions: dict[str, int] = {}
        self.revision = 0

    @property
    def num_windows(self) -> int:
        """How many there will be."""
        return len(self._times)

    @property
    def num_done(self) -> int:
        """How many have a row."""
        return len(self._entries)

    def look(self) -> bool:
        """Read what was committed since the last look; tells whether that changed anything."""
        before = self.revision
        if self._is_final:
            return False
        if (self._output / SUMMARY_NAME).exists():
            self._take_table()
        else:
            self._take_parts()
        return self.revision != before

    def since(self, revision: int) -> list[dict[str, Any]]:
        """Return the windows that changed after a revision, in the order of their starts."""
        found = [name for name, own in self._revisions.items() if own > revision]
        return [_as_json(self._entries[name]) for name in sorted(found, key=self._times.__getitem__)]

    def entries(self) -> list[Entry]:
        """Return the windows in the order of their starts."""
        return [self._entries[name] for name in sorted(self._entries, key=self._times.__getitem__)]

    def _take_parts(self) -> None:
        for name in [name for name in list_parts(self._output) if name not in self._seen_parts]:
            try:
                part = read_part(self._output, name)
            except FileNotFoundError:  # the job has made its table of it just now, which the next look finds
                return
            self._seen_parts.add(name)
            if part is not None:
                self._take(as_in_table(row, self._job.postprocess, self._job.quality) for row in _in_order(part))

    def _take_table(self) -> None:
        try:
            for table in read_caption_files(self._output, COLUMNS):
                self._take(table.to_pylist())
        except UserError:  # it is being written anew
            return
        self._is_final = True

    def _take(self, rows: Iterator[dict] | list[dict]) -> None:
        changed = {}
        for clip_id, samples in groupby(rows, key=lambda row: row["clip_id"]):
            if clip_id in self._times:
                start_s, end_s = self._times[clip_id]
                timed = [{**row, "start_s": start_s, "end_s": end_s} for row in samples]
                (entry,) = build_timeline(timed, self._style)
                if self._entries.get(clip_id) != entry:
                    changed[clip_id] = entry
        if changed:
            # The revision last: whoever reads from another thread meanwhile is told again, not left out.
            revision = next(_looks)
            self._entries = self._entries | changed
            self._revisions = self._revisions | dict.fromkeys(changed, revision)
            self.revision = revision


def read_windows(folder: NarrationFolder, record: Record, job: NarrateJob) -> NarratedWindows:
    """Return all that is narrated by now."""
    windows = NarratedWindows(folder, record, job)
    windows.look()
    return windows


def shown_text(entry: Entry, edits: Mapping[str, str]) -> str | None:
    """Return what is said of a window: a person's text, else the likeliest caption; None where there is neither."""
    edited = edits.get(entry.clip_ids[0])
    return edited if edited is not None else entry.texts[0].text if entry.texts else None


def _in_order(part: pa.Table) -> list[dict]:
    return sorted(part.to_pylist(), key=lambda row: (row["row"], row["sample"]))


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "clip_id": entry.clip_ids[0],
        "start_s": entry.start_s,
        "end_s": entry.end_s,
        "texts": [asdict(text) for text in entry.texts],
        "not_shown": [asdict(text) for text in entry.others],
        "error": entry.error,
    }


def log_reason(log: Path, returncode: int) -> str:
    """Return why a process ended with this status: its last line, or the signal that ended it."""
    if returncode < 0:
        return f"its process was killed by signal {-returncode}; try again, it goes on from what was committed"
    lines = [line.strip() for line in _tail(log).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
    # Where the app keeps its files is nobody's affair who looks at the page.
    return told.removeprefix("error: ").replace(f"{log.parent}/", "") or f"its process ended with status {returncode}"


def _tail(log: Path, num_bytes: int = 16_384) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - num_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
