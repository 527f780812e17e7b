"""Where a model is: a local folder, a folder of any storage, or a repository of the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mama_ray.models.hub import fetch_from_hub
from mama_ray.storage.places import Place


@contextmanager
def model_folder(source: str) -> Iterator[Path]:
    """Give the local folder that a path, a URI or a hub id of a model means; a download lasts as long as the block."""
    if "://" in source or Path(source).expanduser().is_dir():
        with Place.of(source).local() as directory:
            yield directory
    else:
        yield fetch_from_hub(source)
