"""The windows of long videos as clips of a captioning job: read in one pass, without a file being cut."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import perf_counter
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mama_ray.captioning.pictures.settings import GRID
from mama_ray.captioning.pictures.show import arrange_frames
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guarded_windows import WindowDecoding
from mama_ray.data.video.window_reader import FramesOfWindow, WindowRequest
from mama_ray.orchestration.captioning.source import ClipSource, ShowConfig, ShownClip, reason_of
from mama_ray.orchestration.narration.local_videos import local_path, require_still_there
from mama_ray.storage.failures import own_words
from mama_ray.storage.places import storage_errors

logger = logging.getLogger(__name__)


@ray.remote(num_cpus=0, max_restarts=0)
class DecodeCount:
    """How many frames left the decoders of all tasks: what each second costs is told, not assumed. One that died does
    not begin anew, with a number that is too small.
    """

    def __init__(self) -> None:
        self._num_frames = 0

    def add(self, num_frames: int) -> None:
        """Count the frames that a task decoded."""
        self._num_frames += num_frames

    def total(self) -> int:
        """Return the frames of all tasks."""
        return self._num_frames


def start_count() -> ActorHandle:
    """Start a DecodeCount on this node, without which there is no job either."""
    home = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return DecodeCount.options(scheduling_strategy=home).remote()


def total_of(count: ActorHandle) -> int | None:
    """Return what was counted; None where the DecodeCount has died, which is no reason to end a job."""
    try:
        return ray.get(count.total.remote())
    except RayError as error:
        logger.warning("how many frames were decoded is not known: %s", own_words(error))
        return None


@dataclass(frozen=True)
class WindowSource:
    """Windows of videos: records are rows of WINDOW_SCHEMA; `count` is a DecodeCount, or None."""

    num_videos: int
    count: Any = None

    @property
    def description(self) -> str:
        """Return how many videos they are of."""
        return f"{self.num_videos:,} video{'' if self.num_videos == 1 else 's'}"

    def show(self, records: Sequence[Mapping], how: ShowConfig) -> Iterator[ShownClip | str]:
        """Show windows; those of one video in a row are read in one pass, however many they are. See `ClipSource`."""
        for video, own in groupby(records, key=lambda record: record["video"]):
            windows = list(own)
            if windows[0]["trouble"]:
                yield from (record["trouble"] for record in windows)
            else:
                with storage_errors(video):
                    yield from self._show_video(video, windows, how)

    def _show_video(self, video: str, records: Sequence[Mapping], how: ShowConfig) -> Iterator[ShownClip | str]:
        began = perf_counter()
        size, modified = records[0]["num_bytes"], records[0]["modified_ns"]
        times = [(record["start_s"], record["end_s"]) for record in records]
        request = WindowRequest(how.num_candidates, "spread" if how.kind == GRID else "moments", how.decoded_size)
        num_shown, decoding = 0, None
        try:
            path = local_path(video, size, modified, how.decode, sha256=records[0]["sha256"])
            read_s = perf_counter() - began
            decoding = WindowDecoding(path, times, request, how.decode)
            for found in decoding:
                if isinstance(found, DecodeError):
                    require_still_there(video, size, modified)
                num_shown += 1
                yield reason_of(found) if isinstance(found, DecodeError) else _arranged(found, how, read_s)
                read_s = 0.0
        except DecodeError as error:  # of a file that could be read when the job began
            require_still_there(video, size, modified)
            yield from [reason_of(error)] * (len(records) - num_shown)
        finally:
            if decoding is not None and self.count is not None:
                self.count.add.remote(decoding.num_decoded)


def _arranged(found: FramesOfWindow, how: ShowConfig, read_s: float) -> ShownClip:
    times_s = None if how.kind == GRID else found.times_s
    return replace(arrange_frames(found.frames, found.indices, times_s, how), read_s=read_s)


class OnePass:
    """A source whose clips were all asked for at once: it shows them as it is asked for the next few."""

    def __init__(self, source: ClipSource, records: Sequence[Mapping], how: ShowConfig) -> None:
        self.description = source.description
        self._shown = source.show(records, how)

    def show(self, records: Sequence[Mapping], how: ShowConfig) -> Iterator[ShownClip | str]:
        """Yield what is shown of the next clips; `records` are those, in the order in which they were named first."""
        for _ in records:
            yield next(self._shown)

    def finish(self) -> None:
        """Have the source do what it does when it has shown all of them."""
        next(self._shown, None)
