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
from pathlib import Path
from typing import BinaryIO

from mama_ray.data.clip import VIDEO_EXTENSIONS, Clip, clip_to_json
from mama_ray.data.pairing import TEXT_EXTENSIONS, Group, MemberLocation, Sample, group_of, split_member_name
from mama_ray.storage.places import Place

TAR_BLOCK = 512
# A caption file of this size is a mistake or an attack; a video's limit is the caller's.
MAX_TEXT_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
# tarfile asks once or twice at the end of a sound archive, and for ever where a member claims what is not there.
_MAX_EMPTY_READS = 8
DECOMPRESS = "decompress it (gunzip, zstd -d, ...): readers fetch byte ranges, which a compressed archive does not have"


class ShardError(ValueError):
    """A shard that is truncated, interleaved, duplicated or otherwise not what its index says."""


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


def scan_shard(stream: BinaryIO, *, num_bytes: int | None = None, max_video_bytes: int = 2 << 30) -> Iterator[Sample]:
    """Read a shard once from its start and yield its samples; memory is one sample and the keys.

    Only videos and texts are read, and paired by their names (`pairing.py`). A video that is too large, or whose texts
    cannot be told from another's, gives a sample with `error`; so does a text without a video. `num_bytes` is the
    shard's size, for streams that cannot tell. Raises ShardError for a compressed or damaged archive (after the last
    good sample), and for names that are not contiguous or come twice: these shards cannot be trusted to pair texts with
    videos.
    """
    tap = _Tap(stream)
    try:
        start = tap.peek()
        kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
        if kind is not None:
            raise ShardError(f"compressed by {kind}: {DECOMPRESS}")
        with tarfile.open(fileobj=tap, mode="r|", bufsize=_READ_BYTES) as archive:
            yield from _samples(archive, _size_of(stream) if num_bytes is None else num_bytes, max_video_bytes)
            _check_end(tap, archive.offset)
    except ShardError:
        raise
    except (tarfile.TarError, EOFError, ValueError, IndexError, OverflowError) as error:  # the latter: hostile headers
        raise ShardError(f"truncated or damaged: {error} (after {tap.num_bytes} bytes)") from error


def _size_of(stream: BinaryIO) -> int | None:
    """The size of a stream that can be wound, which stays where it is; None for another."""
    if not stream.seekable():
        return None
    position = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(position)
    return size


def _samples(archive: tarfile.TarFile, num_bytes: int | None, max_video_bytes: int) -> Iterator[Sample]:
    group, key = Group(), ""
    seen: set[str] = set()  # stems of the groups before
    names: set[str] = set()
    for member in archive:
        archive.members = []  # ty: ignore[missing-attribute] - tarfile would keep every header
        if num_bytes is not None and not member.issparse() and member.offset_data + member.size > num_bytes:
            # To pass over it, tarfile would read block after block of nothing.
            raise tarfile.ReadError(
                f"member {_legal(member.name)} claims {member.size} bytes, the shard has {num_bytes}"
            )
        parts = split_member_name(member.name) if member.isreg() else None
        if parts is None:
            continue
        stem, extension = parts
        if group_of(stem) != key:
            yield from group.finish()
            seen |= group.stems
            group, key, names = Group(), group_of(stem), set()
        if member.name in names:
            raise ShardError(f"duplicated: member {_legal(member.name)!r} comes twice")
        names.add(member.name)
        if stem in seen and extension in (*TEXT_EXTENSIONS, *VIDEO_EXTENSIONS):
            raise ShardError(f"interleaved: members of key {_legal(stem)!r} are not contiguous")
        yield from _take(archive, member, group, _legal(stem), extension, max_video_bytes)
    yield from group.finish()


def _take(
    archive: tarfile.TarFile, member: tarfile.TarInfo, group: Group, stem: str, extension: str, max_video_bytes: int
) -> Iterator[Sample]:
    """Read `member` into its group if its extension is known; yields the samples that are whole by then."""
    if extension in TEXT_EXTENSIONS:
        data = _read(archive, member) if member.size <= MAX_TEXT_BYTES else None
        yield from group.add_text(_legal(member.name), stem, extension, data)
    elif extension in VIDEO_EXTENSIONS:
        yield from group.close()
        sample = group.add_video(stem, extension)
        if member.size > max_video_bytes:
            sample.error = f"the video is too large: got {member.size} bytes, limit {max_video_bytes} bytes"
        else:
            data = _read(archive, member)
            digest = hashlib.sha256(data).hexdigest()
            sample.video = MemberLocation(sample.key, extension, member.offset_data, member.size, digest)
            sample.video_bytes = data
    else:
        group.add_other(stem)


def _legal(name: str) -> str:
    """Spell bytes that are no UTF-8, which tarfile gives as lone surrogates, as they are written in Python."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.issparse():
        raise tarfile.ReadError(f"member {_legal(member.name)} is sparse")  # its bytes are not one range of the archive
    reader = archive.extractfile(member)
    data = reader.read() if reader else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"member {_legal(member.name)} has {len(data)} of {member.size} bytes")
    return data


class _Tap(io.RawIOBase):
    """Read-only wrapper that knows how many bytes went by and where the last byte that is not zero ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ahead: bytes | None = None
        self._num_empty = 0
        self.num_bytes = 0
        self.end_of_data = 0

    def peek(self) -> bytes:
        """Return the first bytes, before anything is read."""
        self._ahead = self._stream.read(_READ_BYTES)
        return self._ahead

    def read(self, size: int = -1) -> bytes:
        if self._ahead is not None:
            data = self._ahead if size < 0 else self._ahead[:size]
            self._ahead = self._ahead[len(data) :] or None
        else:
            data = self._stream.read(size)
        self._num_empty = 0 if data else self._num_empty + 1
        if self._num_empty > _MAX_EMPTY_READS:
            raise EOFError("a member claims more bytes than the shard has")
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
