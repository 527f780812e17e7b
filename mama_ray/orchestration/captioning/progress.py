"""How a captioning job tells how far it is, and what it counts on the way: a bar in a terminal, lines in a log."""

import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass

from tqdm import tqdm

from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.cluster.exported_metrics import export_metrics

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0
_STAGES = ("read", "decode", "caption", "write")
_COUNTS = ("num_clips", "num_errors", "num_tokens", *(f"{stage}_s" for stage in _STAGES))


@dataclass(frozen=True)
class JobSpeed:
    """What a start of the job did: counts of clips, tokens and seconds of work by stage, and how fast."""

    counts: dict[str, float]
    duration_s: float
    clips_per_s: float
    tokens_per_s: float
    busy_share: float | None


class CaptionProgress:
    """Adds up the counts of committed batches; all of this start of the job, not of earlier ones."""

    def __init__(self, num_clips: int, *, table: str = "captions") -> None:
        """Begin with nothing done; `table`, the URI of the job's output, names it among exported metrics."""
        self._num_clips, self._table = num_clips, table.rstrip("/")
        self.counts: Counter = Counter()
        self._engines: dict[str, tuple[float, float]] = {}
        self._earlier_s = 0.0  # of earlier passes
        self._first_s = self._last_s = self._told_s = time.monotonic()
        self._bar: tqdm | None = None

    def start(self, num_done: int, history: PoolHistory) -> None:
        """Show a bar where there is a terminal; `num_done` clips were committed earlier."""
        # Of earlier starts: what an earlier pass of this one did is among the counts.
        self._history, self._num_done = history, num_done - self.counts["num_clips"]
        self._earlier_s = self.duration_s
        self._first_s = self._last_s = self._told_s = time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._num_clips, initial=num_done, unit="clip", desc="captions", smoothing=0.05)

    def add(self, counts: dict[str, list]) -> None:
        """Add the columns of counts of one or more batches."""
        added = {name: sum(counts[name]) for name in _COUNTS}
        self.counts.update(added)
        for engine, busy, idle in zip(counts["engine"], counts["engine_busy_s"], counts["engine_idle_s"], strict=True):
            if busy + idle > sum(self._engines.get(engine, (0.0, 0.0))):  # batches may be told out of order
                self._engines[engine] = (busy, idle)
        self._last_s = time.monotonic()
        self._export(added)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.tokens_per_s:.0f} tokens/s, {self._history.size} engines")
            self._bar.update(added["num_clips"])
        elif self._last_s - self._told_s > _LINE_EVERY_S:
            self._told_s = self._last_s
            self._tell()

    def close(self) -> None:
        """Leave the bar as it stands, or tell the end in a line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        else:
            self._tell()

    def speed(self) -> JobSpeed:
        """Return what was done so far."""
        rates = (self.duration_s, self.clips_per_s, self.tokens_per_s, self.busy_share)
        return JobSpeed(dict(self.counts), *rates)

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the pipeline to the last commit, of all passes."""
        return self._earlier_s + self._last_s - self._first_s

    @property
    def clips_per_s(self) -> float:
        """Clips committed per second, start of the engines included."""
        return self.counts["num_clips"] / max(self.duration_s, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        """Tokens written per second, start of the engines included."""
        return self.counts["num_tokens"] / max(self.duration_s, 1e-9)

    @property
    def busy_share(self) -> float | None:
        """Share of the engines' time, from ready to their last commit, in which they had something to write."""
        busy, idle = (sum(times) for times in zip(*self._engines.values(), strict=True)) if self._engines else (0, 0)
        return busy / (busy + idle) if busy + idle else None

    @property
    def _num_left(self) -> int:
        return self._num_clips - self._num_done - self.counts["num_clips"]

    def _export(self, added: dict[str, float]) -> None:
        gauges = {
            "caption/clips_per_s": self.clips_per_s,
            "caption/tokens_per_s": self.tokens_per_s,
            "caption/num_engines": self._history.size,
            "caption/clips_left": self._num_left,
            "caption/busy_share": self.busy_share,
        }
        counts = {
            "caption/captioned/clips": added["num_clips"] - added["num_errors"],
            "caption/error/clips": added["num_errors"],
            "caption/tokens": added["num_tokens"],
        }
        seconds = {f"caption/{stage}/seconds": added[f"{stage}_s"] for stage in _STAGES}
        export_metrics(self._table, gauges, counts | seconds)

    def _tell(self) -> None:
        done = self._num_clips - self._num_left
        logger.info(
            "captions: %d of %d clips (%.0f%%), %.1f clips/s, %.0f tokens/s, %d engines, %.0f s left",
            done,
            self._num_clips,
            100 * done / self._num_clips,
            self.clips_per_s,
            self.tokens_per_s,
            self._history.size,
            self._num_left / max(self.clips_per_s, 1e-9),
        )
