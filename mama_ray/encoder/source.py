"""Which model a user means: a run, a checkpoint of it, a model folder, a storage's URI, a file of weights, a hub id."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.models.hub import fetch_from_hub, without_prefix
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.manifest import MANIFEST, resolve_checkpoint, verify_manifest


@contextmanager
def model_path(source: str | Path) -> Iterator[Path]:
    """Give the local folder, or file of weights, that is meant; a download lasts as long as the block.

    Of a run it is the best checkpoint by validation, as evaluation takes it. Raises UserError for one that is damaged,
    and for what is no model.
    """
    name = without_prefix(str(source))
    path = os.path.expanduser(name)  # unlike Path's, these do not raise for what can be no path
    if "://" not in name and not os.path.exists(path):
        yield fetch_from_hub(name)
    elif "://" not in name and os.path.isfile(path):
        yield Path(path)
    else:
        with storage_errors(name):
            folder = checkpoint_of(Place.of(name))
        with storage_errors(name), folder.local() as local:
            yield local


def checkpoint_of(place: Place) -> Place:
    """Return the model folder that a run, a checkpoint or a model folder means, verified where it is a checkpoint."""
    folder = resolve_checkpoint(place)
    if folder.name.startswith("step_") and (folder / MANIFEST).is_file():
        problem = verify_manifest(folder)
        if problem:
            raise UserError("damaged checkpoint", got=problem, remedy="name another one of the run")
    return folder
