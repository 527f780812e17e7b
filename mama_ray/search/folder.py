"""A folder of videos with the features of each, and the videos nearest to words."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mama_ray.encoder.encoder import Encoder
from mama_ray.errors import UserError
from mama_ray.search.cache import (
    Known,
    VideoFile,
    cache_file,
    default_cache_folder,
    read_cache,
    write_cache,
)

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = {
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".ivf", ".m2ts", ".m2v"),
    *(".m4v", ".mj2", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu"),
    *(".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".webp", ".wmv", ".y4m"),
}
_SAVED_EVERY = 256  # videos; what a query that is stopped half way has to do again


@dataclass(frozen=True)
class Hit:
    """A video that was found: its path below the folder, and its cosine similarity to the words."""

    path: str
    similarity: float


@dataclass(frozen=True)
class SearchedFolder:
    """The videos of a folder with their features, unit norm.

    Attributes:
        folder: where the paths begin.
        paths: of the rows, sorted.
        features: float32 (len(paths), dim).
        errors: reason by path of the files that could not be encoded.
        num_encoded: files that had to be encoded now, because nothing was known of them.
    """

    folder: Path
    paths: list[str]
    features: np.ndarray
    errors: dict[str, str]
    num_encoded: int

    def search(self, encoder: Encoder, words: str, num_results: int = 10) -> list[Hit]:
        """Return the videos nearest to the words, best first; of equals the first by path."""
        similarity = self.features @ encoder.encode_texts([words])[0]
        order = np.argsort(-similarity, kind="stable")[:num_results]
        return [Hit(self.paths[row], float(similarity[row])) for row in order]


def search_folder(
    folder: str | Path, encoder: Encoder, *, cache: str | Path | None = None, progress: bool = True
) -> SearchedFolder:
    """Encode the videos below a folder, or take their features from the cache.

    `cache` is a folder, by default one of the user's; features are kept there while it is worked on, and what was
    encoded before a stop is not encoded again. Raises UserError where the folder is none, or holds no video.
    """
    files = require_videos(folder)
    folder = Path(folder).expanduser()
    path = cache_file(Path(cache).expanduser() if cache else default_cache_folder(), folder, encoder.features_id)
    known = read_cache(path, encoder.features_id, encoder.dim)
    unknown = [file for file in files if file not in known]
    known = {file: known[file] for file in files if file in known}  # what is no longer there is forgotten
    passing: dict[str, str] = {}
    for start in range(0, len(unknown), _SAVED_EVERY):
        part = unknown[start : start + _SAVED_EVERY]
        passing |= _encode(folder, encoder, part, known, progress=progress)
        _keep(path, encoder.features_id, known)
    rows = {file.path: found for file, found in known.items() if not isinstance(found, str)}
    paths = [file.path for file in files if file.path in rows]
    errors = {file.path: found for file, found in known.items() if isinstance(found, str)} | passing
    features = np.stack([rows[name] for name in paths]) if paths else np.zeros((0, encoder.dim), np.float32)
    return SearchedFolder(folder, paths, features, errors, len(unknown))


def require_videos(folder: str | Path) -> list[VideoFile]:
    """Return the videos below a folder; UserError where it is none, or holds no video."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError("no such folder of videos", got=str(folder), wanted="a folder on this machine")
    files = list_videos(path)
    if not files:
        raise UserError("no videos in the folder", got=str(folder), wanted="files such as .mp4, .mov, .mkv or .webm")
    return files


def list_videos(folder: Path) -> list[VideoFile]:
    """Return the files below a folder whose names end as videos' do, sorted by path; linked folders are not entered."""
    return sorted(_walk(folder), key=lambda file: file.path)


def _walk(folder: Path) -> Iterator[VideoFile]:
    for directory, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in VIDEO_SUFFIXES:
                continue
            path = os.path.join(directory, name)
            try:
                info = os.stat(path)
            except OSError as error:
                logger.warning("%r is left out: %s", path, error.strerror)
                continue
            yield VideoFile(os.path.relpath(path, folder), info.st_size, info.st_mtime_ns)


def _encode(
    folder: Path, encoder: Encoder, files: Sequence[VideoFile], known: Known, *, progress: bool
) -> dict[str, str]:
    """Add what is found to `known`; return the reasons that may be others next time, by path."""
    by_path = {str(folder / file.path): file for file in files}
    encoded = encoder.encode_videos(list(by_path), progress=progress)
    for path, features in zip(encoded.paths, encoded.features, strict=True):
        known[by_path[path]] = features
    for error in encoded.errors:
        if error.is_of_video:
            known[by_path[error.path]] = error.reason
    return {by_path[error.path].path: error.reason for error in encoded.errors if not error.is_of_video}


def _keep(path: Path, features_id: str, known: Known) -> None:
    """Write the cache; without room for it a query still has its answer."""
    try:
        write_cache(path, features_id, known)
    except OSError as error:
        logger.warning("features are not kept at %s: %s", path, " ".join(str(error).split()))
