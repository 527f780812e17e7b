"""Features of files on disk, so that a second query is quick: a Parquet table per folder and encoder.

A row counts for a file of the same path, size and time of change. A table that is damaged, or of another encoder, is as
good as none: it is made anew.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("path", pa.binary()),  # names need not be UTF-8
        ("num_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("error", pa.string()),
        ("features", pa.list_(pa.float32())),
    ]
)
_ENCODER = b"mama_ray.encoder"


@dataclass(frozen=True)
class VideoFile:
    """A file as it is now; `path` is relative to the folder."""

    path: str
    num_bytes: int
    modified_ns: int


Known = dict[VideoFile, np.ndarray | str]
"""Features (dim,) float32 of a file, or the reason why it has none."""


def default_cache_folder() -> Path:
    """Return the user's folder for caches, outside the folder of videos."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "mama_ray" / "search"


def cache_file(cache: Path, folder: Path, features_id: str) -> Path:
    """Return where the features of a folder's videos by an encoder are kept."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    return cache / f"{name[:24]}-{features_id[:24]}.parquet"


def read_cache(path: Path, features_id: str, dim: int) -> Known:
    """Return what is known, nothing where the table is missing, damaged or another encoder's."""
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(_ENCODER) != features_id.encode():
            raise ValueError("another encoder's")
        return dict(
            _row(record, dim) for record in table.cast(_SCHEMA.with_metadata(table.schema.metadata)).to_pylist()
        )
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        logger.warning("the kept features %s cannot be used and are made anew: %s", path, " ".join(str(error).split()))
        return {}


def write_cache(path: Path, features_id: str, known: Mapping[VideoFile, np.ndarray | str]) -> None:
    """Write the table whole."""
    rows = [
        {
            "path": os.fsencode(file.path),
            "num_bytes": file.num_bytes,
            "modified_ns": file.modified_ns,
            "error": found if isinstance(found, str) else None,
            "features": None if isinstance(found, str) else found,
        }
        for file, found in known.items()
    ]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({_ENCODER: features_id.encode()}))
    Place.of(path).write_whole(lambda stream: pq.write_table(table, stream))


def _row(record: dict, dim: int) -> tuple[VideoFile, np.ndarray | str]:
    file = VideoFile(os.fsdecode(record["path"]), record["num_bytes"], record["modified_ns"])
    if record["error"] is not None:
        return file, record["error"]
    features = np.asarray(record["features"], np.float32)
    if features.shape != (dim,) or not np.isfinite(features).all():
        raise ValueError(f"features of {file.path!r}")
    return file, features
