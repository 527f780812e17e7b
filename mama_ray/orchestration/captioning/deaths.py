"""Engines that die: of one clip, which becomes an error, or of what no clip can help, which ends the job.

A clip is given up after some deaths with it alone in the engine. Where an engine dies again and again and writes no
caption in between, of a GPU that is full or broken, that would be said of all clips; so the job ends then, and what was
said of clips since the engine last wrote is taken back.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NoReturn

import ray
from ray.exceptions import RayError

from mama_ray.errors import UserError
from mama_ray.masking import mask_text
from mama_ray.orchestration.captioning.ending import end_process
from mama_ray.orchestration.captioning.ledger import keep_beating
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE, list_parts, part_place, rows_of_part
from mama_ray.orchestration.captioning.similarity import forget_similarities
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

POLL_S = 10.0
_HUNG_AFTER_S = 900.0  # no step of any engine takes as long
_ANSWER_S = 10.0  # of a ledger, which may be starting anew: a process that is to end waits no longer
_LONGEST_WORDS = 300


class EngineRecord:
    """What the actor of an engine tells the ledger, and hears from it.

    Args:
        max_attempts: deaths with one clip alone in an engine after which the clip is given up.
        max_deaths: deaths of an engine without a caption in between after which the job is.
    """

    def __init__(self, ledger: ray.actor.ActorHandle, max_attempts: int, max_deaths: int) -> None:
        self._ledger, self._max_attempts = ledger, max_attempts
        context = ray.get_runtime_context()
        self.name = str(context.get_actor_id())
        deaths, words = ray.get(ledger.start.remote(self.name, str(context.get_node_id())))
        self._failure = _too_many(deaths, words) if deaths >= max_deaths else None

    @contextlib.contextmanager
    def told_later(self) -> Iterator[None]:
        """Keep a UserError of the block, which starts the engine, for tasks to raise: Ray tells it then also where an
        actor starts anew."""
        try:
            yield
        except UserError as error:
            self._failure = error

    def require_engine(self) -> None:
        """Raise UserError where the engine died too often to be started once more, or could not be."""
        if self._failure is not None:
            raise self._failure

    def is_alive(self) -> None:
        """Count the engine among the living from now on."""
        keep_beating(self._ledger, self.name)

    def begin(self, rows: list[int]) -> bool:
        """Note that these rows go into the engine; tell whether they are to go one by one, as an engine died with some
        of them."""
        return ray.get(self._ledger.begin_batch.remote(rows))

    def begin_alone(self, row: int) -> str:
        """Note that a row goes into the engine alone; return why it must not, "" where it may."""
        deaths, words = ray.get(self._ledger.begin_alone.remote(row, self.name))
        if deaths < self._max_attempts:
            return ""
        ray.get(self._ledger.give_up.remote(row, self.name))
        return f"the engine died with this clip alone in it: {deaths} times ({words})"

    def end(self, rows: list[int], *, wrote: bool) -> None:
        """Note that these rows came out of the engine, and whether it wrote a caption."""
        ray.get(self._ledger.end.remote(rows, self.name if wrote else None))

    def require_step(self, last_step_s: float, resources: ExitStack) -> None:
        """End this process where the engine's last step, by `time.monotonic()`, was too long ago."""
        if time.monotonic() - last_step_s > _HUNG_AFTER_S:
            self.die(f"no step of the engine in {_HUNG_AFTER_S:.0f} s", resources)

    def die(self, reason: str, resources: ExitStack) -> NoReturn:
        """End this process: Ray starts the actor anew and gives its batches to it or to others."""
        words = mask_text(" ".join(reason.split()))[:_LONGEST_WORDS]
        logger.error("the engine died, its actor starts anew: %s", words)
        with contextlib.suppress(RayError):
            ray.get(self._ledger.tell_death.remote(self.name, words), timeout=_ANSWER_S)
        end_process(resources)


def _too_many(deaths: int, words: str) -> UserError:
    return UserError(
        "the engine dies again and again, and no caption is written in between",
        got=f"{deaths} deaths, the last: {words}",
        remedy="see what else uses its GPU or memory, and start the job again: it goes on; where it is the fault of so "
        "many clips, raise pool.max_deaths",
    )


@contextlib.contextmanager
def unproven_taken_back(ledger: ray.actor.ActorHandle, output: str) -> Iterator[None]:
    """Where the block fails, remove the committed rows of clips that were given up by engines which wrote nothing
    since: the next start tries them again."""
    try:
        yield
    except Exception:
        with contextlib.suppress(RayError, OSError):  # the first error is the one to tell
            _take_back(Place.of(output), ray.get(ledger.unproven.remote(), timeout=_ANSWER_S))
        raise


def _take_back(folder: Place, rows: list[int]) -> None:
    for number in sorted({row // CLIPS_PER_FILE for row in rows}):
        for name in list_parts(folder, number):
            if not set(rows).isdisjoint(rows_of_part(name) or []):
                part_place(folder, name).delete_file()
                forget_similarities(folder, rows_of_part(name) or [])
