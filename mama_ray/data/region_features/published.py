"""Region and frame features as VGT's authors publish them, read as they are: HDF5 per split, NumPy files per video.

| file | holds |
|---|---|
| `region_feat_n/acregion_8c{10,20}b_{split}.h5` | ids, feat (videos, 8, 4, R, 2048), bbox (videos, 8, 4, R, 4) |
| `frame_feat/app_feat_{split}.h5` | ids, resnet_features (videos, 8, 4, 2048) |
| `region_feat_aln/<video>.npz` | feat (8, 4, R, 2048), bbox (8, 4, R, 4) |
| `frame_feat/<video>.npy` | (8, 4, 2048) |

Of the regions the first R are taken, as VGT does. One video is read at a time, of the size that the model asks for;
nothing is unpickled, and no link out of a file is followed.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import h5py
import numpy as np
from jaxtyping import Float

from mama_ray.data.region_features.boxes import join_regions
from mama_ray.errors import UserError
from mama_ray.storage.small_files import is_plain_name

MSRVTT_SIZE = (320, 240)  # width and height that its annotations lack, and that VGT assumes
_MOST_VIDEOS = 10_000_000
_MOST_BYTES_PER_VIDEO = 256 << 20
# What NumPy and the archive around its arrays have for bytes that are not theirs: a compression that is none or broken,
# a password, more numbers than there is memory for.
_DAMAGED_NUMPY = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError, LZMAError,
)  # fmt: skip
_H5_NAMES = {"regions": ("ids", "feat", "bbox"), "frames": ("ids", "resnet_features")}


class Unusable(UserError):
    """A video without features that can be used, with the reason."""


class Published(NamedTuple):
    """Features of one video; boxes are corners in pixels."""

    frames: Float[np.ndarray, "clips frames d"]
    regions: Float[np.ndarray, "clips frames r e"]
    boxes: Float[np.ndarray, "clips frames r 4"]


class PublishedFeatures:
    """Features of videos by id; a context manager. Either source is an .h5 file or a folder of NumPy files."""

    def __init__(self, regions: str | Path, frames: str | Path, *, num_regions: int) -> None:
        """Open both. Raises UserError where one is absent, damaged or lacks a dataset."""
        if num_regions < 1:
            raise UserError("num_regions", got=num_regions, wanted="at least 1")
        self._num_regions = num_regions
        self._regions = _open(Path(regions), "regions")
        self._frames = _open(Path(frames), "frames")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._regions.close()
        self._frames.close()

    def __contains__(self, video_id: str) -> bool:
        """Whether both sources have the video."""
        return self._regions.has(video_id) and self._frames.has(video_id)

    def read(self, video_id: str, *, width: float, height: float) -> dict[str, np.ndarray]:
        """Return what VGT takes of a video, float32: frames (8, 4, 2048) and regions (8, 4, R, 2053).

        `width` and `height` are of the frames in which the boxes were found. Raises as `read_apart` does.
        """
        found = self.read_apart(video_id)
        regions = join_regions(found.regions, found.boxes, width=width, height=height)
        return {"frames": found.frames, "regions": regions}

    def read_apart(self, video_id: str) -> Published:
        """Return a video's features with its boxes as they are, float32.

        Raises Unusable where the video is not in a file or has values that are no numbers; UserError where it has fewer
        regions than the model, or another shape in the two files.
        """
        features, boxes = self._regions.read(video_id)
        (frames,) = self._frames.read(video_id)
        if features.ndim != 4 or boxes.shape != (*features.shape[:3], 4) or frames.shape[:-1] != features.shape[:2]:
            raise UserError(
                f"the features of video {video_id} do not fit each other",
                got=f"feat {features.shape}, bbox {boxes.shape}, frames {frames.shape}",
                wanted="(clips, frames, R, d), (clips, frames, R, 4), (clips, frames, d)",
            )
        if features.shape[2] < self._num_regions:
            raise UserError(
                f"the features of video {video_id} have fewer regions than the model",
                got=features.shape[2],
                wanted=f"at least {self._num_regions}",
                remedy="build the model with their num_regions, or take the files with more",
            )
        first = slice(self._num_regions)
        parts = (frames, features[:, :, first], boxes[:, :, first])
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told below
            found = Published(*(part.astype(np.float32) for part in parts))
        for name, values in found._asdict().items():
            if not np.isfinite(values).all():
                raise Unusable(
                    f"the {name} of video {video_id} hold values that are no numbers",
                    got=f"{int((~np.isfinite(values)).sum())} of {values.size}",
                    wanted="finite numbers",
                    remedy="extract the features of this video again, or leave it out",
                )
        return found


def _open(path: Path, kind: str) -> "_H5 | _Folder":
    if path.is_dir():
        return _Folder(path, kind)
    if not path.is_file():
        raise UserError(f"file of {kind} is missing", got=str(path), wanted="an .h5 file, or a folder of NumPy files")
    return _H5(path, kind)


class _H5:
    """One file of a split."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        with self._damage():
            self._file = h5py.File(path, "r")
        try:
            ids, *self._parts = (self._dataset(name) for name in _H5_NAMES[kind])
            # A shape is None of an empty dataset, and () of a single value.
            lengths = {(part.shape or (None,))[0] for part in (ids, *self._parts)}
            if len(lengths) > 1 or None in lengths or ids.ndim != 1 or len(ids) > _MOST_VIDEOS:
                lengths = {part.name: part.shape for part in (ids, *self._parts)}
                raise UserError(f"{path} is no file of features", got=lengths, wanted="one entry per id")
            for part in self._parts:
                # A compressed chunk is read whole, whatever is asked of it.
                for shape in (part.shape[1:], part.chunks or ()):
                    _require_size(int(np.prod(shape)) * part.dtype.itemsize, path)
            with self._damage():
                names = [name.decode() if isinstance(name, bytes) else str(name) for name in ids[:].tolist()]
            self._rows = {name: row for row, name in enumerate(names)}
            if len(self._rows) < len(names):
                got = next(name for row, name in enumerate(names) if self._rows[name] != row)
                raise UserError(f"{path} has a video twice", got=got, wanted="each id once")
        except BaseException:
            self.close()
            raise

    def has(self, video_id: str) -> bool:
        return video_id in self._rows

    def read(self, video_id: str) -> list[np.ndarray]:
        if video_id not in self._rows:
            raise Unusable(
                f"{self._path} has no features of video {video_id}",
                got=f"{len(self._rows)} other videos, such as {next(iter(self._rows), 'none')}",
                remedy="name the file of the split that the video is in",
            )
        with self._damage():
            return [np.asarray(part[self._rows[video_id]]) for part in self._parts]

    def close(self) -> None:
        self._file.close()

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self._file:
            raise UserError(
                f"{self._path} has no dataset {name!r}", got=", ".join(self._file) or "nothing", wanted=name
            )
        is_plain = isinstance(self._file.get(name, getlink=True), h5py.HardLink)
        dataset = self._file[name] if is_plain else None
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise UserError(f"{self._path}: {name!r} is no dataset of this file", wanted="a plain dataset, no link")
        if name != "ids" and dataset.dtype.kind != "f":
            raise UserError(f"{self._path}: {name!r} holds no numbers", got=str(dataset.dtype), wanted="floats")
        return dataset

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # what HDF5 has for damaged bytes
            raise UserError(
                f"{self._path} is damaged", got=str(error), wanted="a whole HDF5 file", remedy="download it again"
            ) from error


class _Folder:
    """One file per video."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._is_regions = path, kind == "regions"

    def has(self, video_id: str) -> bool:
        name = self._name(video_id)
        return is_plain_name(name) and os.path.isfile(self._path / name)  # Path's raises for a name that is too long

    def read(self, video_id: str) -> list[np.ndarray]:
        path = self._path / self._name(video_id)
        if not self.has(video_id):
            raise Unusable(f"{self._path} has no features of video {video_id}", wanted=f"a file {path.name}")
        try:
            if not self._is_regions:
                _require_size(path.stat().st_size, path)
                return [_numbers(np.load(path, allow_pickle=False), path)]
            with zipfile.ZipFile(path) as archive:
                _require_size(sum(member.file_size for member in archive.infolist()), path)
            with np.load(path, allow_pickle=False) as arrays:
                absent = [part for part in ("feat", "bbox") if part not in arrays]
                if absent:
                    raise UserError(f"{path} has no array {absent[0]!r}", got=", ".join(arrays), wanted="feat and bbox")
                return [_numbers(arrays[part], path) for part in ("feat", "bbox")]
        except _DAMAGED_NUMPY as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is damaged", got=str(error), wanted="a NumPy file of numbers") from error

    def _name(self, video_id: str) -> str:
        return f"{video_id}.npz" if self._is_regions else f"{video_id}.npy"

    def close(self) -> None:
        """Nothing is kept open."""


def _numbers(value: object, path: Path) -> np.ndarray:
    """Return an array of plain numbers; UserError for anything else that such a file can hold."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        got = str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{path} holds no numbers", got=got, wanted="an array of floats")
    return value


def _require_size(num_bytes: int, path: Path) -> None:
    if num_bytes > _MOST_BYTES_PER_VIDEO:
        raise UserError(
            f"{path} has too much for one video", got=f"{num_bytes} bytes", wanted=f"at most {_MOST_BYTES_PER_VIDEO}"
        )
