"""The time lines of videos, written by tasks: out of committed parts while the job runs, out of its table at the end.

A single video has narration.jsonl, narration.srt, narration.vtt and index.html in the output itself; several have them
in videos/NAME/ each, with a page over all of them and one narration.jsonl of all.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.exceptions import RayError

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import QualityConfig, caption_flags
from mama_ray.captioning.subtitles import cues_of, to_srt, to_vtt
from mama_ray.captioning.table import file_name
from mama_ray.captioning.timeline import Entry, TimelineConfig, build_timeline
from mama_ray.data.clip import make_clip_id
from mama_ray.orchestration.captioning.parts import (
    CHUNK_CLIPS,
    CLIPS_PER_FILE,
    committed_rows,
    list_parts,
    read_part,
    rows_of_part,
)
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.narration.planning import PlannedVideo
from mama_ray.reporting.document import format_duration
from mama_ray.reporting.timeline_page import (
    NarratedVideo,
    TimelineLine,
    TimelinePage,
    write_timeline_page,
    write_videos_page,
)
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

logger = logging.getLogger(__name__)

LINES_NAME, SRT_NAME, VTT_NAME = "narration.jsonl", "narration.srt", "narration.vtt"
_TASK_CPUS = 0.25  # beside engines and decoding
_VIDEOS_AT_ONCE = 16  # whose time lines one refresh writes; the others come with the next
_COPY_BYTES = 8 << 20
COLUMNS = ("clip_id", "sample", "caption", "mean_logprob", "flags", "error")
_LINKS = {"SubRip": SRT_NAME, "WebVTT": VTT_NAME, "JSON lines": LINES_NAME}


@dataclass(frozen=True)
class TimelineWork:
    """What the tasks need to know; picklable and small. `table` refers to rows of WINDOW_SCHEMA."""

    output: str
    table: ray.ObjectRef
    videos: tuple[PlannedVideo, ...]
    timeline: TimelineConfig
    postprocess: PostprocessConfig
    quality: QualityConfig
    num_captions: int
    model: str

    @property
    def is_single(self) -> bool:
        """Whether there is one video, whose files lie in the output itself."""
        return len(self.videos) == 1

    def folder_of(self, video: PlannedVideo) -> Place:
        """Return where the files of a video go."""
        output = Place.of(self.output)
        return output if self.is_single else output / name_of(video)


def name_of(video: PlannedVideo) -> str:
    """Return the folder of one video of several, as the page over all of them has it."""
    return f"videos/{make_clip_id(video.video_id, 0.0, None)}"


@dataclass
class Refresher:
    """Has time lines written again, every so often, while a job runs; the driver waits for none of it."""

    work: TimelineWork
    every_s: float
    _shared: ray.ObjectRef | None = None
    _seen: dict[int, int] = field(default_factory=dict)
    _running: ray.ObjectRef | None = None
    _started_s: float = -float("inf")

    def look(self) -> None:
        """Start a task where it is time, and nothing is written at the moment."""
        if self._running is not None and not ray.wait([self._running], timeout=0)[0]:
            return
        self._take_result()
        if time.monotonic() - self._started_s >= self.every_s:
            self._started_s = time.monotonic()
            self._shared = self._shared or ray.put(self.work)
            self._running = _refresh.remote(self._shared, self._seen)

    def close(self) -> None:
        """Wait until nothing is written any more."""
        self._take_result()

    def _take_result(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        try:
            self._seen = ray.get(running)
        except RayError as error:
            # What shows a job must not end it: its captions are committed, and the last pages are written by its end.
            logger.warning("the time lines are not up to date: %s", " ".join(str(error).split())[-200:])


def write_timelines(work: TimelineWork) -> None:
    """Write the files of all videos out of the finished table, and of all of them together. Raises UserError."""
    shared, numbers = ray.put(work), range(len(work.videos))  # once: it names all videos
    starts = range(0, len(numbers), _VIDEOS_AT_ONCE)
    tasks = [_write_finished.remote(shared, numbers[start : start + _VIDEOS_AT_ONCE]) for start in starts]
    for task in tasks:
        result_of(task)
    if not work.is_single:
        result_of(_write_overview.remote(shared))


@ray.remote(num_cpus=_TASK_CPUS, max_retries=0, name="narrate: refresh time lines")
def _refresh(work: TimelineWork, seen: dict[int, int]) -> dict[int, int]:
    """Write the files of videos of which more is narrated than was `seen`; return what has been."""
    output = Place.of(work.output)
    with storage_errors(work.output):
        names = list_parts(output)
        done = committed_rows(names, work.videos[-1].start_row + work.videos[-1].num_rows)
        counts = {n: int(done[v.start_row : v.start_row + v.num_rows].sum()) for n, v in enumerate(work.videos)}
        changed = [number for number, count in counts.items() if count != seen.get(number, 0) or not seen]
        now_seen = dict(seen)
        for number in changed[:_VIDEOS_AT_ONCE]:
            video = work.videos[number]
            write_video(work, video, _windows_of(work, video), _rows_of_parts(work, video, names), counts[number])
            now_seen[number] = counts[number]
        if changed and not work.is_single:
            _overview(work, counts)
    return now_seen


@ray.remote(num_cpus=_TASK_CPUS, max_retries=2, name="narrate: write time line")
def _write_finished(work: TimelineWork, numbers: Sequence[int]) -> None:
    with storage_errors(work.output):
        for video in (work.videos[number] for number in numbers):
            write_video(work, video, _windows_of(work, video), _rows_of_table(work, video), video.num_rows)


@ray.remote(num_cpus=_TASK_CPUS, max_retries=2, name="narrate: write overview")
def _write_overview(work: TimelineWork) -> None:
    with storage_errors(work.output):
        _overview(work, {number: video.num_rows for number, video in enumerate(work.videos)})
        with (Place.of(work.output) / LINES_NAME).open_whole() as lines:
            for video in work.videos:
                with (work.folder_of(video) / LINES_NAME).open_stream() as own:
                    shutil.copyfileobj(own, lines, _COPY_BYTES)


def _windows_of(work: TimelineWork, video: PlannedVideo) -> pa.Table:
    return ray.get(work.table).slice(video.start_row, video.num_rows)


def _rows_of_parts(work: TimelineWork, video: PlannedVideo, names: Sequence[str]) -> list[dict]:
    """Return the committed rows of a video as the table will have them, but for flags that need the whole of it."""
    first, stop = video.start_row, video.start_row + video.num_rows
    chunks = range(first // CHUNK_CLIPS, -(-stop // CHUNK_CLIPS))
    found: dict[tuple[int, int], dict] = {}
    for name in names:
        rows = rows_of_part(name) or []
        if not rows or rows[0] // CHUNK_CLIPS not in chunks:
            continue
        part = read_part(Place.of(work.output), name)
        for row in part.to_pylist() if part is not None else []:
            if first <= row["row"] < stop:
                found.setdefault((row["row"], row["sample"]), as_in_table(row, work.postprocess, work.quality))
    return [found[key] for key in sorted(found)]


def as_in_table(row: dict, style: PostprocessConfig, quality: QualityConfig) -> dict:
    """Return a committed row as the table will have it, but for flags that need the whole of it."""
    caption = None if row["error"] else postprocess(row["text"], style)
    flags = () if caption is None else caption_flags(caption, quality, finish_reason=row["finish_reason"])
    return {**{name: row.get(name) for name in COLUMNS}, "caption": caption, "flags": list(flags)}


def _rows_of_table(work: TimelineWork, video: PlannedVideo) -> list[dict]:
    first, stop, rows = video.start_row, video.start_row + video.num_rows, []
    for number in range(first // CLIPS_PER_FILE, -(-stop // CLIPS_PER_FILE)):
        place, begin = Place.of(work.output) / file_name(number), number * CLIPS_PER_FILE
        table = with_retries(
            lambda place=place: pq.read_table(place.path, filesystem=place.filesystem, columns=list(COLUMNS))
        )
        low, high = max(first, begin) - begin, min(stop, begin + CLIPS_PER_FILE) - begin
        rows += table.slice(low * work.num_captions, (high - low) * work.num_captions).to_pylist()
    return rows


def write_video(
    work: TimelineWork, video: PlannedVideo, windows: pa.Table, rows: Sequence[dict], num_done: int
) -> None:
    """Write the files of one video: `windows` are its rows of WINDOW_SCHEMA, `rows` those of the caption table, or of
    the `num_done` windows that are narrated so far.
    """
    times = {row["clip_id"]: row for row in windows.select(["clip_id", "start_s", "end_s"]).to_pylist()}
    entries = build_timeline([{**row, **times[row["clip_id"]]} for row in rows], work.timeline)
    folder, cues = work.folder_of(video), cues_of(entries, video.duration_s)
    lines = "".join(f"{json.dumps(entry.to_json(video.uri), ensure_ascii=False)}\n" for entry in entries)
    for name, text in ((LINES_NAME, lines), (SRT_NAME, to_srt(cues)), (VTT_NAME, to_vtt(cues))):
        with_retries(lambda name=name, text=text: (folder / name).write_whole(text))
    if video.trouble is None:
        with_retries(lambda: write_timeline_page(folder, _page(work, video, entries, num_done)))


def _page(work: TimelineWork, video: PlannedVideo, entries: Sequence[Entry], num_done: int) -> TimelinePage:
    facts = {
        "length": format_duration(video.duration_s),
        "windows": f"{video.num_rows:,}",
        "narrated": f"{100 * num_done / video.num_rows:.0f} %" if video.num_rows else "–",
        "entries": f"{len(entries):,}",
        "model": work.model,
    }
    lines = [
        TimelineLine(entry.start_s, entry.end_s, tuple(text.text for text in entry.texts), entry.error)
        for entry in entries
    ]
    return TimelinePage(
        title=video.uri.rstrip("/").rpartition("/")[2],
        duration_s=video.duration_s,
        lines=lines,
        video_src=address_of(video.uri, work.folder_of(video)),
        num_left=video.num_rows - num_done,
        facts=facts,
        links=_LINKS,
    )


def address_of(video: str, folder: Place) -> str | None:
    """Return how a page in `folder` names a video: by the way there on a disk; None where a browser has none."""
    if video.startswith(("http://", "https://")):
        return video
    if "://" in video:
        return None
    return quote(os.path.relpath(video, folder.path)) if folder.is_local else None


def _overview(work: TimelineWork, counts: dict[int, int]) -> None:
    videos = [
        NarratedVideo(
            name=video.video_id,
            duration_s=video.duration_s,
            num_windows=video.num_rows,
            num_done=counts[number],
            page=None if video.trouble else name_of(video),
            error=video.trouble,
        )
        for number, video in enumerate(work.videos)
    ]
    total = sum(video.num_windows for video in videos)
    share = f"{100 * sum(counts.values()) / total:.0f} %"
    facts = {"videos": f"{len(videos):,}", "windows": f"{total:,}", "narrated": share, "model": work.model}
    write_videos_page(Place.of(work.output), videos, facts)
