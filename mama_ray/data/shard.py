"""A shard: a WebDataset tar whose samples are `<clip_id>.json` and `<clip_id>.<video extension>`, side by side.

Writing goes through `webdataset.TarWriter` to a temporary name that becomes the real one when the archive is whole.
Reading walks the archive once and trusts nothing (`tar_headers.py`).
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mama_ray.data.clip import VIDEO_EXTENSIONS, Clip, clip_to_json
from mama_ray.data.pairing import TEXT_EXTENSIONS, Group, MemberLocation, Sample, group_of, split_member_name
from mama_ray.data.tar_headers import TAR_BLOCK, Member, TarError, TarWalk, legal_name
from mama_ray.errors import printable
from mama_ray.storage.places import Place

# A caption file of this size is a mistake or an attack; a video's limit is the caller's.
MAX_TEXT_BYTES = 4 << 20
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
DECOMPRESS = "decompress it (gunzip, zstd -d, ...): readers fetch byte ranges, which a compressed archive does not have"


class ShardError(ValueError):
    """A shard that is truncated, interleaved, duplicated or otherwise not what its index says."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))  # it quotes names of members


# An object store copies a shard once to give it its name, and S3 copies no more than 5 GiB in one request.
MAX_SHARD_BYTES = 4 << 30


def shard_folder(number: int, num_folders: int) -> str:
    """Return the folder, with its slash, of the shards of chunk `number` where they are spread over so many: a hash, so
    that neighbours lie apart. "" where there are none.
    """
    if not num_folders:
        return ""
    digest = hashlib.blake2b(str(number).encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest) % num_folders:03x}/"


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
    walk = TarWalk(stream, num_bytes)
    kind = next((kind for magic, kind in _COMPRESSED.items() if walk.start.startswith(magic)), None)
    if kind is not None:
        raise ShardError(f"compressed by {kind}: {DECOMPRESS}")
    try:
        yield from _samples(walk, max_video_bytes)
    except TarError as error:
        raise ShardError(f"truncated or damaged: {error} (after {walk.position} bytes)") from error


def _samples(walk: TarWalk, max_video_bytes: int) -> Iterator[Sample]:
    group, key = Group(), ""
    seen: set[str] = set()  # stems of the groups before
    names: set[str] = set()
    for member in walk:
        parts = split_member_name(member.name) if member.is_file else None
        if parts is None:
            continue
        stem, extension = legal_name(parts[0]), parts[1]
        if group_of(stem) != key:
            yield from group.finish()
            seen |= group.stems
            group, key, names = Group(), group_of(stem), set()
        if member.name in names:
            raise ShardError(f"duplicated: member {legal_name(member.name)!r} comes twice")
        names.add(member.name)
        if stem in seen and extension in (*TEXT_EXTENSIONS, *VIDEO_EXTENSIONS):
            raise ShardError(f"interleaved: members of key {stem!r} are not contiguous")
        yield from _take(walk, member, group, stem, extension, max_video_bytes)
    yield from group.finish()


def _take(
    walk: TarWalk, member: Member, group: Group, stem: str, extension: str, max_video_bytes: int
) -> Iterator[Sample]:
    """Read `member` into its group if its extension is known; yields the samples that are whole by then."""
    if extension in TEXT_EXTENSIONS:
        data = walk.read(member) if member.num_bytes <= MAX_TEXT_BYTES else None
        yield from group.add_text(legal_name(member.name), stem, extension, data)
    elif extension in VIDEO_EXTENSIONS:
        yield from group.close()
        sample = group.add_video(stem, extension)
        if member.num_bytes > max_video_bytes:
            sample.error = f"the video is too large: got {member.num_bytes} bytes, limit {max_video_bytes} bytes"
        else:
            data = walk.read(member)
            digest = hashlib.sha256(data).hexdigest()
            sample.video = MemberLocation(sample.key, extension, member.offset, member.num_bytes, digest)
            sample.video_bytes = data
    else:
        group.add_other(stem)
