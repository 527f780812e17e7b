"""The queue of narrations: each video waits its turn, is narrated by a process of its own, and is watched meanwhile.

Everything here happens in the event loop but the looks at what was committed. What is written down is enough to go on
after the app was killed: what was running or waiting then is queued again, first come, first served.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from mama_ray.captioning.engines.generation import SamplingConfig
from mama_ray.config import config_to_yaml
from mama_ray.data.video.windows import WindowPlanConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.serving.narrate.edits import Edits
from mama_ray.orchestration.serving.narrate.process import NarrateProcess, end_left_over
from mama_ray.orchestration.serving.narrate.record import (
    NarrationFolder,
    Record,
    Settings,
    State,
    now_s,
    remove_unfinished,
)
from mama_ray.orchestration.serving.narrate.windows import NarratedWindows, log_reason, read_windows

logger = logging.getLogger(__name__)

_LOOK_S = 0.4  # between two looks at what a job has committed
_TEMPERATURE = 0.7  # where several samples are asked for of a narrator whose settings would give one text
_CANCELS_S, _CLOSES_S = 12.0, 3.0  # a job that is told to stop is gone within 10 s; an app is to be gone sooner
_LEAST_APART_S = 0.001
_CLIPS_PER_COMMIT = 4  # a person waits for the first windows


class QueueFull(UserError):
    """As many narrations wait as may."""


class Narration:
    """A narration of this app: its record, and what is narrated by now while it runs."""

    def __init__(self, folder: NarrationFolder, record: Record) -> None:
        self.folder, self.record = folder, record
        self.windows: NarratedWindows | None = None
        self.process: NarrateProcess | None = None
        self.is_cancelled = False
        self._edits = Edits(folder.path)
        self.changed = asyncio.Event()

    @property
    def edits(self) -> dict[str, str]:
        """What a person wrote in place of captions, by clip id."""
        return self._edits.texts

    @property
    def notice(self) -> str | None:
        """What a person has to know of the narration's folder; None where there is nothing."""
        return self._edits.notice

    @cached_property
    def num_windows(self) -> int:
        """Windows of the video, narrated or not; they are not kept, as ten hours have 36,000."""
        return len(self.record.windows())

    def has_window(self, clip_id: str) -> bool:
        """Tell whether the video has such a window, narrated or not."""
        return any(window.clip_id == clip_id for window in self.record.windows())

    def change(self, state: State | None = None, *, reason: str | None = None) -> None:
        """Write a new state down, and tell whoever waits for `changed`; None tells of windows alone."""
        if state is not None:
            process = self.process.identity if self.process is not None and state == "running" else None
            self.record = self.record.model_copy(update={"state": state, "reason": reason, "process": process})
            self.folder.write(self.record)
        told, self.changed = self.changed, asyncio.Event()
        told.set()

    def change_at_least_here(self, state: State, *, reason: str | None = None) -> None:
        """Change the state even where the disk, a full one, does not take it: until the next start it counts."""
        try:
            self.change(state, reason=reason)
        except OSError as error:
            logger.warning("%s of narration %s is not written down: %s", state, self.record.narration_id, error)
            self.change()

    def edit(self, clip_id: str, text: str | None) -> None:
        """Keep a person's text for a window; None goes back to the model's. Raises OSError and UserError."""
        self._edits.put(clip_id, text)


class NarrationQueue:
    """The narrations below a folder; at most `at_once` of them run, and at most `max_waiting` wait."""

    def __init__(self, folder: Path, job: NarrateJob, *, at_once: int = 1, max_waiting: int = 8) -> None:
        """`job` is what every narration is but for its video, output and settings."""
        self.folder, self._job = folder, job
        self._at_once, self._max_waiting = at_once, max_waiting
        self._narrations: dict[str, Narration] = {}
        self._waiting: list[str] = []
        self._running: dict[str, asyncio.Task] = {}
        self._num_reserved = 0
        self._is_closing = False
        self.arriving = asyncio.Lock()  # one at a time, so that the queue is in the order of `created_s`

    async def start(self) -> None:
        """Find what earlier starts have left, and go on with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        found = [NarrationFolder(path) for path in self.folder.iterdir() if path.is_dir()]
        records = [(record.created_s, folder, record) for folder in found if (record := folder.read()) is not None]
        for _, folder, record in sorted(records, key=lambda one: one[0]):
            narration = Narration(folder, record)
            self._narrations[record.narration_id] = narration
            if not record.is_over:
                self._waiting.append(record.narration_id)
        self._start_next()

    async def close(self) -> None:
        """Stop what runs; it goes on with the next start."""
        self._is_closing = True
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def all(self) -> list[Narration]:
        """Return all narrations, the latest first."""
        return sorted(self._narrations.values(), key=lambda one: one.record.created_s, reverse=True)

    def arrival_s(self) -> float:
        """Return the time for `created_s`: now, but later than all that wait or run, where the clock was set back."""
        pending = [one.record.created_s for one in self._narrations.values() if not one.record.is_over]
        return max([now_s(), *(created_s + _LEAST_APART_S for created_s in pending)])

    def find(self, narration_id: str) -> Narration | None:
        """Return a narration; None where there is none of that id."""
        return self._narrations.get(narration_id)

    def place_of(self, narration: Narration) -> int | None:
        """Return how many are before it in the queue; None where it does not wait."""
        name = narration.record.narration_id
        return self._waiting.index(name) if name in self._waiting else None

    @contextlib.contextmanager
    def place_reserved(self) -> Iterator[None]:
        """Keep a place in the queue for a video that is being received. Raises QueueFull."""
        if len(self._waiting) + self._num_reserved >= self._max_waiting + max(0, self._at_once - len(self._running)):
            remedy = "wait until one of them is done, or cancel one, then try again"
            raise QueueFull("too many narrations wait", got=f"{self._max_waiting} already", remedy=remedy)
        self._num_reserved += 1
        try:
            yield
        finally:
            self._num_reserved -= 1

    def add(self, folder: NarrationFolder, record: Record) -> Narration:
        """Put a narration at the end of the queue, in a place that was reserved."""
        narration = self._narrations[record.narration_id] = Narration(folder, record)
        self._enqueue(narration)
        return narration

    def retry(self, narration: Narration) -> None:
        """Let one that failed or was cancelled go on from what it has committed. Raises QueueFull."""
        is_ours = self.find(narration.record.narration_id) is narration  # else it was deleted meanwhile
        if is_ours and narration.record.state in ("failed", "cancelled"):
            with self.place_reserved():
                narration.change_at_least_here("queued")
                self._enqueue(narration)

    async def cancel(self, narration: Narration) -> None:
        """Stop a narration, what it has committed is kept; returns when its process is gone."""
        name = narration.record.narration_id
        if name in self._waiting:
            self._waiting.remove(name)
            narration.change_at_least_here("cancelled")
        elif name in self._running:
            narration.is_cancelled = True
            await asyncio.wait({self._running[name]})

    async def delete(self, narration: Narration) -> None:
        """Remove a narration with its video and all that was said."""
        self._narrations.pop(narration.record.narration_id, None)  # first, so that nobody lets it go on meanwhile
        await self.cancel(narration)
        await asyncio.to_thread(shutil.rmtree, narration.folder.path, ignore_errors=True)

    async def windows_of(self, narration: Narration) -> NarratedWindows:
        """Return what is narrated by now: what is watched anyway, or what lies on the disk."""
        if narration.windows is not None:
            return narration.windows
        return await asyncio.to_thread(read_windows, narration.folder, narration.record, self._job)

    def job_of(self, narration: Narration) -> NarrateJob:
        """Return the narrate job of a narration."""
        record, folder = narration.record, narration.folder
        return self._job.model_copy(
            update={
                "videos": [str(folder.path / record.file_name)],
                "output": str(folder.output),
                "windows": WindowPlanConfig(window_s=record.settings.window_s),
                "sampling": sampling_for(self._job.sampling, record.settings),
                "pool": self._job.pool.model_copy(update={"clips_per_commit": _CLIPS_PER_COMMIT}),
            }
        )

    def _enqueue(self, narration: Narration) -> None:
        narration.is_cancelled = False
        self._waiting.append(narration.record.narration_id)
        self._start_next()

    def _start_next(self) -> None:
        while self._waiting and len(self._running) < self._at_once and not self._is_closing:
            name = self._waiting.pop(0)
            self._running[name] = asyncio.create_task(self._run(self._narrations[name]))
            self._running[name].add_done_callback(lambda _, name=name: self._ended(name))
        for name in self._waiting:  # each has moved up
            self._narrations[name].change()

    def _ended(self, name: str) -> None:
        del self._running[name]
        self._start_next()

    async def _run(self, narration: Narration) -> None:
        """Narrate one video to its end, whatever that is; nothing of it ends the app."""
        try:
            await end_left_over(narration.record.process)
            await asyncio.to_thread(narration.folder.request.write_text, config_to_yaml(self.job_of(narration)))
            windows = NarratedWindows(narration.folder, narration.record, self._job)
            process = await NarrateProcess.start(narration.folder.request, narration.folder.log)
            narration.windows, narration.process = windows, process
            narration.change("running")
            await self._watch(narration, process, windows)
        except Exception as error:
            logger.exception("narration %s cannot run", narration.record.narration_id)
            if narration.process is not None:  # it would go on unwatched
                narration.process.kill()
            reason = str(error) if isinstance(error, UserError | OSError) else type(error).__name__
            narration.change_at_least_here("failed", reason=reason)
        finally:
            narration.process = narration.windows = None
            narration.change()

    async def _watch(self, narration: Narration, process: NarrateProcess, windows: NarratedWindows) -> None:
        while not await process.ends_within(_LOOK_S):
            if narration.is_cancelled or self._is_closing:
                await process.stop(_CLOSES_S if self._is_closing else _CANCELS_S)
                break
            if await asyncio.to_thread(windows.look):
                narration.change()
        await asyncio.to_thread(windows.look)
        if process.returncode == 0:
            narration.change("done")
        elif narration.is_cancelled:
            narration.change("cancelled")
        elif self._is_closing:
            narration.change("queued")
        else:
            process.end_rest()
            reason = log_reason(narration.folder.log, process.returncode)
            logger.warning("narration %s failed: %s", narration.record.narration_id, reason)
            narration.change("failed", reason=reason)


def sampling_for(sampling: SamplingConfig, settings: Settings) -> SamplingConfig:
    """Return how captions are drawn; several samples need a temperature, which a narrator may not have been given."""
    temperature = sampling.temperature or (_TEMPERATURE if settings.num_captions > 1 else 0.0)
    return sampling.model_copy(update={"num_captions": settings.num_captions, "temperature": temperature})
