"""The videos of a prepare as local files: a file, or a folder of chunks, of the videos' folder."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pyarrow.fs as pafs

from mama_ray.data.annotations import Annotation
from mama_ray.data.video.chunked import Chunk, chunks_to_fetch, order_chunks
from mama_ray.data.video.settings import WindowConfig
from mama_ray.orchestration.prepare.listing import has_names, names_in
from mama_ray.orchestration.prepare.near_names import nearest_name
from mama_ray.orchestration.prepare.repair import NO_SUCH_FILE, file_facts
from mama_ray.storage.failures import StorageError
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

_COPY_BYTES = 8 << 20


class MissingVideo(FileNotFoundError):
    """A row names a video that the folder has not. Any other missing file is one that the storage lost."""


class Sources:
    """Gives the videos as local paths; a remote one is downloaded once for all its clips in a row, and of chunks those
    that the clips need.
    """

    def __init__(self, videos: str, scratch: str, window: WindowConfig) -> None:
        self._folder, self._scratch, self._window = Place.of(videos), scratch, window
        self._video, self._chunks = "", list[Chunk]()

    def local_path(self, row: Annotation) -> str:
        """Return the path of the file, or of the folder of chunks, that a clip is part of.

        Raises MissingVideo when there is neither, DecodeError for a folder without chunks, and StorageError where all
        videos are gone: a disk that was taken away, or that one node has not mounted, says nothing of a video.
        """
        place = self._folder / row.video
        try:
            return self._local_path(place, row)
        except MissingVideo:
            self._check_folder()
            raise

    def _check_folder(self) -> None:
        if not _has_videos(self._folder):
            raise StorageError(
                "the folder of videos is gone or empty",
                got=self._folder,
                remedy="put it back, on every node, then start again with the same arguments: the job goes on",
            )

    def _local_path(self, place: Place, row: Annotation) -> str:
        if place.is_local:
            _check_is_there(place.path)
            return place.path
        target = Path(f"{self._scratch}/source.{row.video.rpartition('.')[2]}")
        if row.video != self._video:
            self._video = ""
            self._chunks = self._start(place, target)
            self._video = row.video
        if self._chunks:
            self._fetch_chunks(place, row, target)
        return str(target)

    def file_facts(self, video: str) -> dict[str, int | None]:
        """Return size and time of the video's file or of its chunks, or that there is none."""
        place = self._folder / video
        return with_retries(lambda: file_facts(place, place.info()))

    def describe_missing(self, video: str) -> str:
        """Say that there is no such file, and what was perhaps meant."""
        near = with_retries(lambda: nearest_name(self._folder, video))
        return NO_SUCH_FILE if near is None else f"{NO_SUCH_FILE}; did you mean {near}?"

    def _start(self, place: Place, target: Path) -> list[Chunk]:
        """Download a file, or return the chunks of a folder, of which nothing is here yet."""
        if target.is_dir():
            shutil.rmtree(target)
        if with_retries(place.info).type != pafs.FileType.Directory:
            with_retries(lambda: _download(place, target))
            return []
        chunks = order_chunks(with_retries(lambda: names_in(place)))
        target.unlink(missing_ok=True)
        target.mkdir()
        for chunk in chunks:  # so that the names are those of the folder; a clip reads only what it needs
            (target / chunk.name).touch()
        return chunks

    def _fetch_chunks(self, place: Place, row: Annotation, target: Path) -> None:
        for chunk in chunks_to_fetch(self._chunks, row.start_s, row.end_s, self._window):
            if not (target / chunk.name).stat().st_size:
                with_retries(lambda chunk=chunk: _download(place / chunk.name, target / f"{chunk.name}.part"))
                os.replace(target / f"{chunk.name}.part", target / chunk.name)


def _check_is_there(path: str) -> None:
    """Raise MissingVideo where a path leads to no file or folder; other errors are those of the disk."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise
    raise MissingVideo(path)


def _has_videos(folder: Place) -> bool:
    if not folder.is_local:  # not listed: a large bucket takes minutes
        return with_retries(folder.info).type != pafs.FileType.NotFound
    try:
        return has_names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _download(place: Place, target: Path) -> None:
    try:
        source = place.open_stream()
    except FileNotFoundError as error:
        raise MissingVideo(place.path) from error
    with source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)
