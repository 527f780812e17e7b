"""How a run tells how far it is: a bar where a person watches a terminal, a line now and then in a log."""

import logging
import time
from collections.abc import Mapping

from ray.experimental import tqdm_ray

from mama_ray.reporting.metrics import find_metric

logger = logging.getLogger(__name__)

_SHOWN_OF_VALIDATION = (
    "val/accuracy",
    "val/t2v_R@1",
    "val/t2v_R@5",
    "val/v2t_R@1",
    "val/t2v_median_rank",
    "val/caption_loss",
)
_PERCENT = " %"


class Progress:
    """Tells the progress of one run from its first worker; Ray carries bar and lines to the driver."""

    def __init__(self, run: str, *, num_steps: int, first_step: int, show_bar: bool) -> None:
        self._run, self._num_steps, self._first_step = run, num_steps, first_step
        self._started = time.perf_counter()
        self._bar = None
        if show_bar:
            self._bar = tqdm_ray.tqdm(desc=run, total=num_steps, position=0, unit="steps", flush_interval_s=0.0)
            self._bar.update(first_step)

    def tell(self, num_done: int, *, loss: float, clips_per_s: float) -> None:
        """Show that `num_done` steps are done."""
        if self._bar is not None:
            self._bar.set_description(f"{self._run}: loss {loss:.3f}, {clips_per_s:.0f} clips/s")
            self._bar.update(num_done - self._bar.n)
            return
        seconds_per_step = (time.perf_counter() - self._started) / (num_done - self._first_step)
        logger.info(
            "%s: step %d of %d (%.0f%%), loss %.3f, %.0f clips/s, %.0f s left",
            self._run,
            num_done,
            self._num_steps,
            100 * num_done / self._num_steps,
            loss,
            clips_per_s,
            seconds_per_step * (self._num_steps - num_done),
        )

    def tell_validation(self, num_done: int, metrics: Mapping[str, float]) -> None:
        """Tell in a line what a validation after `num_done` steps has found; nothing where it found nothing."""
        told = [
            f"{name.removeprefix('val/')} {metrics[name]:.4g}{_PERCENT if find_metric(name).unit == '%' else ''}"
            for name in _SHOWN_OF_VALIDATION
            if name in metrics
        ]
        told += [f"{name.removeprefix('val/')} {metrics[name]:.4g}{_PERCENT}" for name in metrics if "_right" in name]
        if told:
            logger.info("%s: validated at step %d: %s", self._run, num_done, ", ".join(told))

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
