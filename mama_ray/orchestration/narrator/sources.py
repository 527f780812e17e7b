"""What a narrator's training starts from: looked at before anything starts, and then at hand as local folders."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mama_ray.captioning.narrator.kind import NarratorSettings
from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.models.hub import require_hub_id
from mama_ray.orchestration.cluster.model_source import look_at_model, model_folder
from mama_ray.orchestration.narrator.job import NarratorJob, sources_of
from mama_ray.storage.first_look import ensure_readable
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.manifest import resolve_checkpoint

_ENCODER = "gated.video_encoder"


def look_at_sources(job: NarratorJob) -> None:
    """Raise UserError, before anything starts, for a source that can be no model's."""
    sources = sources_of(job.model)
    ensure_readable(*sources.values())
    encoder = sources.pop(_ENCODER, None)
    for source in sources.values():
        look_at_model(source)
    if encoder is not None and "://" not in encoder:
        if not os.path.exists(encoder):  # unlike Path's, it does not raise for what can be no path
            require_hub_id(encoder)
        elif os.path.isdir(encoder):
            resolve_checkpoint(Place.of(encoder))


@contextmanager
def settings_at_hand(job: NarratorJob) -> Iterator[NarratorSettings]:
    """Give the job's settings of its narrator, with parts that lie elsewhere as local folders.

    A run stands for its best checkpoint.
    """
    changes = {}
    with ExitStack() as downloads:
        for name, source in sources_of(job.model).items():
            if name != "pretrained":
                changes[name] = str(downloads.enter_context(_part(source, is_encoder=name == _ENCODER)))
        yield NarratorSettings(with_overrides(job.model, changes), job.prompt, job.grid, job.frames)


@contextmanager
def _part(source: str, *, is_encoder: bool) -> Iterator[Path]:
    if is_encoder and os.path.isfile(source):
        yield Path(source)
        return
    if is_encoder and ("://" in source or os.path.isdir(source)):
        with storage_errors(source):
            source = resolve_checkpoint(Place.of(source)).uri
    with storage_errors(source), model_folder(source) as directory:
        yield directory


def refuse_unused(job: NarratorJob, unused: tuple[str, ...], kind: str) -> None:
    """Raise UserError for a setting that says nothing to the job's kind of narrator."""
    for name in unused:
        given, usual = job, NarratorJob()
        for part in name.split("."):
            given, usual = getattr(given, part), getattr(usual, part)
        if given != usual:
            raise UserError(
                f"{name} says nothing to a {kind} narrator",
                got=given,
                wanted="its default",
                remedy="leave it out, or name a preset or pretrained narrator of another kind",
            )
