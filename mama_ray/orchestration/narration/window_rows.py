"""The rows of the windows of videos: laid anew for a video when one of them is wanted.

A window is known from the facts of its video, so nobody holds or stores those of millions of videos. `take`, `slice`,
`select` and the length are those of a pyarrow table, so who takes rows of a table takes them of these as well.
"""

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mama_ray.data.clip import make_clip_id
from mama_ray.data.index_rows import take_across
from mama_ray.data.video.windows import Times, Window, WindowPlanConfig, plan_windows
from mama_ray.orchestration.narration.videos import VideoFacts

WINDOW_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("sha256", pa.string()),  # of the video, "" where it cannot be used
        ("video", pa.string()),
        ("num_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("trouble", pa.string()),
    ]
)
_KEPT_ROWS = 1 << 19  # 0.1 GB


@dataclass(frozen=True)
class Layout:
    """What windows are laid from: the videos, the human clips of those that have some, and how."""

    facts: Sequence[VideoFacts]
    clips: Mapping[str, Sequence[Times]]
    config: WindowPlanConfig

    def table(self, number: int) -> pa.Table:
        """Return the windows of one video, rows of WINDOW_SCHEMA; one row with the reason where it cannot be used."""
        video = self.facts[number]
        if video.trouble:
            name = make_clip_id(video.video_id, 0.0, None)
            rows = [{"clip_id": name, "start_s": 0.0, "end_s": 0.0, "trouble": video.trouble}]
        else:
            human = self.clips.get(video.video_id, [])
            windows = plan_windows(video.video_id, video.duration_s, self.config, human=human, scenes=video.scenes)
            rows = [_row(window) for window in windows]
        shared = {"sha256": video.sha256, "video": video.uri, "num_bytes": video.num_bytes,
                  "modified_ns": video.modified_ns}  # fmt: skip
        return pa.Table.from_pylist([{**row, **shared} for row in rows], schema=WINDOW_SCHEMA)


class WindowRows:
    """Rows of WINDOW_SCHEMA of all videos, one after the other.

    Args:
        layout: what they are laid from.
        num_rows: int64 (videos,), how many each has.
    """

    def __init__(self, layout: Layout, num_rows: np.ndarray) -> None:
        self._layout, self._num_rows = layout, num_rows
        self._stops = np.cumsum(num_rows)
        self._columns = WINDOW_SCHEMA.names
        self._kept = _KeptTables()

    def __reduce__(self) -> tuple:
        return WindowRows, (self._layout, self._num_rows)

    def __len__(self) -> int:
        return int(self._stops[-1])

    def select(self, columns: Sequence[str]) -> "WindowRows":
        """Return the same rows with fewer columns."""
        fewer = copy.copy(self)
        fewer._columns = list(columns)
        return fewer

    def take(self, positions: pa.Array | np.ndarray | Sequence[int]) -> pa.Table:
        """Return the rows at these positions, in their order. Raises IndexError for a position that there is not."""
        places = np.asarray(positions, np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"rows {places.min()} to {places.max()} of {len(self)}")
        empty = WINDOW_SCHEMA.empty_table().select(self._columns)
        return take_across(
            places, self._stops, lambda number: self._kept.get(self._layout, number).select(self._columns), empty
        )

    def slice(self, start: int, length: int | None = None) -> pa.Table:
        """Return neighbouring rows, as far as there are."""
        stop = len(self) if length is None else min(start + length, len(self))
        return self.take(np.arange(min(start, stop), stop))


@dataclass
class _KeptTables:
    """The windows of the videos that were asked for last, up to so many; threads may ask at once."""

    _tables: OrderedDict[int, pa.Table] = field(default_factory=OrderedDict)
    _num_rows: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, layout: Layout, number: int) -> pa.Table:
        """Return the windows of a video, laid where they are not kept."""
        with self._lock:
            if number not in self._tables:
                self._tables[number] = layout.table(number)
                self._num_rows += len(self._tables[number])
                while self._num_rows > _KEPT_ROWS and len(self._tables) > 1:
                    self._num_rows -= len(self._tables.popitem(last=False)[1])
            self._tables.move_to_end(number)
            return self._tables[number]


def _row(window: Window) -> dict:
    return {"clip_id": window.clip_id, "start_s": window.start_s, "end_s": window.end_s, "trouble": None}
