"""Where a model is: a local folder, a folder of any storage, or a repository of the hub."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.models.hub import fetch_from_hub, require_hub_id
from mama_ray.storage.places import Place
from mama_ray.storage.waits import told_wait


@contextmanager
def model_folder(source: str) -> Iterator[Path]:
    """Give the local folder that a path, a URI or a hub id of a model means; a download lasts as long as the block."""
    if "://" in source or os.path.isdir(os.path.expanduser(source)):
        with ExitStack() as download:
            with told_wait(f"fetching {source}", after_s=2.0):  # a local folder is there at once
                directory = download.enter_context(Place.of(source).local())
            yield directory
    else:
        yield fetch_from_hub(source)


def look_at_model(source: str | None, *, holds: str = "config.json") -> None:
    """Raise UserError, before anything starts, for a source that can be no model's.

    A local folder is looked into for the file that makes it one (`holds`); a URI and a hub id are not followed.
    """
    if source is None or "://" in source:
        return
    path = Path(os.path.expanduser(source))
    if not os.path.exists(path):  # unlike Path's, it does not raise for what can be no path
        require_hub_id(source)
    elif path.is_dir() and not (path / holds).is_file():
        raise UserError("not the folder of a model", got=source, wanted=f"a folder with {holds}, or a hub id")
