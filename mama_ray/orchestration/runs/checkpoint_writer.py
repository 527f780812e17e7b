"""Checkpoints are written behind the training's back: the training thread copies the state, a thread does the rest.

One checkpoint at most is on its way: the next save waits for it, so memory holds one copy of the state. Metrics go up
before the manifest, because a resumed run drops the records from its step on and must find all those before.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mama_ray.orchestration.runs.checkpoint_store import publish_checkpoint, retain_checkpoints, staging_directory
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.training.manifest import write_manifest

logger = logging.getLogger(__name__)

WriteFiles = Callable[[Path], None]
"""Writes a captured state's files into a folder that exists; called in the background."""


class CheckpointWriter:
    """Writes, hashes and publishes one run's checkpoints and uploads its metrics; for rank 0, with `close`."""

    def __init__(self, run_folder: Place, metrics: MetricsWriter, *, num_checkpoints_to_keep: int) -> None:
        self._run_folder, self._metrics = run_folder, metrics
        self._num_to_keep = num_checkpoints_to_keep
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._in_flight: Future | None = None

    def save(self, step: int, capture: Callable[[], WriteFiles], *, selection: dict | None) -> None:
        """Wait for the checkpoint before this one, capture the state, and return while it is being published.

        `capture` copies the state and returns what writes it. Raises what went wrong with the checkpoint before.
        """
        self.wait()
        write_files = capture()
        self._in_flight = self._executor.submit(self._publish, step, write_files, selection)

    def wait(self) -> None:
        """Return when no checkpoint is on its way; raises what went wrong with the last one, once."""
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.result()

    def close(self, *, has_failed: bool) -> None:
        """Let the last checkpoint finish. A run that has failed already keeps its own error; ours is then logged."""
        try:
            self.wait()
        except Exception:
            if not has_failed:
                raise
            logger.exception("the last checkpoint was not published, beside what ended the run")
        finally:
            self._executor.shutdown()

    def _publish(self, step: int, write_files: WriteFiles, selection: dict | None) -> None:
        with storage_errors(self._run_folder.uri), staging_directory(self._run_folder) as staged:
            write_files(staged)
            write_manifest(staged, step=step, selection=selection)
            with_retries(self._metrics.flush)
            publish_checkpoint(self._run_folder, staged, step)
            retain_checkpoints(self._run_folder, self._num_to_keep, newest_step=step)
