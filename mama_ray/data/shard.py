"""A shard: a WebDataset tar whose samples are `<clip_id>.json` and `<clip_id>.<video extension>`, side by side.

Writing goes through `webdataset.TarWriter` to a temporary name that becomes the real one when the archive is whole.
Reading walks the archive once as a stream and trusts nothing: Python's tarfile ends in silence at a cut between two
members and at a damaged header, so the end of the archive is checked by its bytes.
"""

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mama_ray.data.clip import VIDEO_EXTENSIONS, Clip, clip_to_json
from mama_ray.storage.places import Place

TAR_BLOCK = 512
TEXT_EXTENSIONS = ("json", "txt")
# A caption file of this size is a mistake or an attack; a video's limit is the caller's.
MAX_TEXT_BYTES = 4 << 20
_READ_BYTES = 1 << 20


class ShardError(ValueError):
    """A shard that is truncated, interleaved, duplicated or otherwise not what its index says."""


@dataclass(frozen=True)
class MemberLocation:
    """Where the video bytes of a clip lie in an (uncompressed) tar: `[offset, offset + num_bytes)`."""

    clip_id: str
    extension: str
    offset: int
    num_bytes: int
    sha256: str


@dataclass
class Sample:
    """The members of one key that have a known extension. `texts` are whole; `video` is None when there is none."""

    key: str
    texts: dict[str, bytes] = field(default_factory=dict)
    video: MemberLocation | None = None
    video_bytes: bytes = b""
    error: str | None = None


# An object store copies a shard once to give it its name, and S3 copies no more than 5 GiB.
MAX_SHARD_BYTES = 4 << 30


class ShardWriter:
    """Append clips to an open binary stream. `close` writes the end of the archive; the stream stays open."""

    def __init__(self, stream: BinaryIO) -> None:
        import webdataset  # here, because it loads torch: seconds that those who only read shards need not pay

        # A fixed time makes the same clips give the same bytes, so a repeated prepare changes nothing.
        self._writer = webdataset.TarWriter(stream, encoder=False, mtime=0)

    def add(self, clip: Clip, video: bytes, extension: str) -> MemberLocation:
        """Append one clip and return where its video bytes went."""
        if extension not in VIDEO_EXTENSIONS:
            raise ValueError(f"video extension: got {extension!r}, wanted one of {', '.join(VIDEO_EXTENSIONS)}")
        self._writer.write({"__key__": clip.clip_id, "json": clip_to_json(clip)})
        offset = self._writer.tarstream.offset + TAR_BLOCK  # USTAR: one header block, no extensions
        self._writer.write({"__key__": clip.clip_id, extension: video})
        self._writer.tarstream.members = []  # tarfile would keep the headers of the whole archive
        return MemberLocation(clip.clip_id, extension, offset, len(video), hashlib.sha256(video).hexdigest())

    @property
    def num_bytes(self) -> int:
        """Bytes written so far, without the end of the archive."""
        return self._writer.tarstream.offset

    def close(self) -> None:
        self._writer.close()


@contextlib.contextmanager
def open_shard(place: Place) -> Iterator[ShardWriter]:
    """Yield a writer for the shard `place`, which appears under that name when it is whole."""
    with place.open_whole() as stream:
        writer = ShardWriter(stream)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(OSError, ValueError):  # else tarfile tries it again, noisily, on a closed stream
                writer.close()
            raise
        writer.close()


def write_shard(path: Path, samples: Iterable[tuple[Clip, bytes, str]]) -> list[MemberLocation]:
    """Write (clip, video bytes, extension) triples to a local shard and return where each video lies."""
    with open_shard(Place.of(path)) as writer:
        return [writer.add(clip, video, extension) for clip, video, extension in samples]


def scan_shard(stream: BinaryIO, *, max_video_bytes: int = 2 << 30) -> Iterator[Sample]:
    """Read a shard once from its start and yield its samples; memory is one sample and the keys.

    Only members with a known extension are read. A video that is too large, or one of several of a key, gives a
    sample with `error`. Raises ShardError for a damaged archive (after the last good sample), and for a key whose
    members are not contiguous or come twice: these shards cannot be trusted to pair texts with videos.
    """
    tap = _Tap(stream)
    try:
        with tarfile.open(fileobj=tap, mode="r|", bufsize=_READ_BYTES) as archive:
            yield from _samples(archive, max_video_bytes)
            _check_end(tap, archive.offset)
    except ShardError:
        raise
    except (tarfile.TarError, EOFError, ValueError, IndexError, OverflowError) as error:  # the latter: hostile headers
        raise ShardError(f"truncated or damaged: {error} (after {tap.num_bytes} bytes)") from error


def split_member_name(name: str) -> tuple[str, str] | None:
    """Split a member's name as WebDataset does, at the first dot of its last component; None for hidden and odd files.

    Of a compound extension (`cam0.mp4`) only the last part counts, in lower case.
    """
    folder, _, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot:
        return None
    return f"{folder}/{stem}" if folder else stem, extension.rpartition(".")[2].lower()


def _samples(archive: tarfile.TarFile, max_video_bytes: int) -> Iterator[Sample]:
    sample: Sample | None = None
    seen: set[str] = set()
    names: set[str] = set()
    for member in archive:
        archive.members = []  # ty: ignore[missing-attribute] - tarfile would keep every header
        parts = split_member_name(member.name) if member.isreg() else None
        if parts is None:
            continue
        key, extension = parts
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            if key in seen:
                raise ShardError(f"interleaved: members of key {key!r} are not contiguous")
            seen.add(key)
            names, sample = set(), Sample(key)
        if member.name in names:
            raise ShardError(f"duplicated: member {member.name!r} comes twice")
        names.add(member.name)
        _take(archive, member, extension, sample, max_video_bytes)
    if sample is not None:
        yield sample


def _take(
    archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str, sample: Sample, max_video_bytes: int
) -> None:
    """Read `member` into `sample` if its extension is known."""
    if extension in TEXT_EXTENSIONS and member.size <= MAX_TEXT_BYTES:
        sample.texts.setdefault(extension, _read(archive, member))
    elif extension in VIDEO_EXTENSIONS:
        if sample.video is not None:
            sample.error = "the sample has more than one video"
        elif member.size > max_video_bytes:
            sample.error = f"the video is too large: got {member.size} bytes, limit {max_video_bytes} bytes"
        else:
            data = _read(archive, member)
            digest = hashlib.sha256(data).hexdigest()
            sample.video = MemberLocation(sample.key, extension, member.offset_data, member.size, digest)
            sample.video_bytes = data


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.issparse():
        raise tarfile.ReadError(f"member {member.name} is sparse")  # its bytes are not one range of the archive
    reader = archive.extractfile(member)
    data = reader.read() if reader else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"member {member.name} has {len(data)} of {member.size} bytes")
    return data


class _Tap(io.RawIOBase):
    """Read-only wrapper that knows how many bytes went by and where the last byte that is not zero ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.num_bytes = 0
        self.end_of_data = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if data:
            kept = len(data) if data[-1] else len(data.rstrip(b"\0"))
            if kept:
                self.end_of_data = self.num_bytes + kept
            self.num_bytes += len(data)
        return data


def _check_end(tap: _Tap, offset: int) -> None:
    """From the last header's offset to the end of the file a sound archive has zeros only, at least one block of
    them.
    """
    while tap.read(_READ_BYTES):
        pass
    if tap.num_bytes - offset < TAR_BLOCK:
        raise tarfile.ReadError(f"no end of archive at byte {offset}")
    if tap.end_of_data > offset:
        raise tarfile.ReadError(f"no readable header at byte {offset} of {tap.num_bytes}")
