"""What the first worker of a run alone has: the metrics' files, the checkpoints' writer, and the progress it tells."""

import logging
from collections.abc import Sequence

from mama_ray.orchestration.runs.checkpoint_writer import CheckpointWriter
from mama_ray.orchestration.runs.progress import Progress
from mama_ray.reporting.provenance import read_settings
from mama_ray.reporting.trackers import TrackerName, Trackers
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


class RunOutput:
    """Everything a run writes while it trains; `close` it, whatever ended the run."""

    def __init__(
        self,
        run: str,
        run_folder: Place,
        *,
        first_step: int,
        num_steps: int,
        num_checkpoints_to_keep: int,
        show_bar: bool,
        trackers: Sequence[TrackerName] = (),
    ) -> None:
        self._trackers = Trackers(trackers, run, run_folder, read_settings(run_folder)) if trackers else None
        self.metrics = MetricsWriter(run_folder, start_step=first_step, trackers=self._trackers)
        self.checkpoints = CheckpointWriter(run_folder, self.metrics, num_checkpoints_to_keep=num_checkpoints_to_keep)
        self.progress = Progress(run, num_steps=num_steps, first_step=first_step, show_bar=show_bar)

    def close(self, *, has_failed: bool) -> None:
        """Publish what is on its way; `has_failed` tells that an error is being raised already, which is kept."""
        self.progress.close()
        try:
            self.checkpoints.close(has_failed=has_failed)
        except BaseException:
            has_failed = True
            raise
        finally:
            try:
                self._close_metrics(has_failed=has_failed)
            finally:
                if self._trackers is not None:
                    self._trackers.close(has_failed=has_failed)

    def _close_metrics(self, *, has_failed: bool) -> None:
        try:
            self.metrics.close()
        except OSError as error:
            if not has_failed:
                raise
            logger.warning("the last metrics were not written, beside what ended the run: %s", error)
