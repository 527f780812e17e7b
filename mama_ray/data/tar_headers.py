"""The headers of a tar, one after the other, of an archive that nobody vouches for.

Python's tarfile reads extended headers whole whatever size they claim, calls itself for each of a chain of them,
follows sparse maps without end and passes over a member by reading it. Here every claim is held against what is there
before anything is read or skipped, and a skip is a seek where the stream can. Of the extended headers (PAX, GNU) only
what names and measures a member is taken.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

TAR_BLOCK = 512
MAX_RECORD_BYTES = 1 << 20  # of one extended header; a name and a few times make some hundred bytes
MAX_NAMES_BYTES = 64 << 20  # of all names and extended headers: some 500,000 members, where a usual shard has 10,000
MAX_PADDING_BYTES = 64 << 20  # zeros behind the end of the archive; tar writes 10 KiB at most
_MAX_NAME_BYTES = 4096  # what an operating system takes for a path
_MAX_CHAIN = 16  # extended headers of one member; GNU tar and Python write three at most
_BYTES_PER_MEMBER = 64  # what a reader keeps of each, beside its name
_READ_BYTES = 1 << 20

_FILES, _WITHOUT_CONTENT = b"0\x007", b"123456"  # links, devices, folders and pipes have a size but no bytes
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _SPARSE = b"xX", b"g", b"L", b"K", b"S"


class TarError(ValueError):
    """A tar that is truncated, damaged or claims what it does not have."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member whose content is `[offset, offset + num_bytes)` of the archive; in its name, bytes that are no UTF-8 are
    lone surrogates."""

    name: str
    is_file: bool
    offset: int
    num_bytes: int


class TarWalk:
    """Iterate over the members of a stream that stands at the archive's start; `read` gives the content of the last.

    Raises TarError for an archive that is damaged or has no end. Memory is one header, and what is read.
    """

    def __init__(self, stream: BinaryIO, num_bytes: int | None = None) -> None:
        """`num_bytes` is the archive's size, for streams that cannot tell."""
        self._stream = stream
        self._can_seek = stream.seekable()
        self._size = _size_of(stream) if num_bytes is None and self._can_seek else num_bytes
        self._origin = stream.tell() if self._can_seek else 0
        self._names_left = MAX_NAMES_BYTES
        self.position = 0
        self.start = self._take(TAR_BLOCK)
        """The first bytes, by which another format is known."""

    def __iter__(self) -> Iterator[Member]:
        block, at = self.start, 0
        while block.strip(b"\0"):
            member, after = self._member(block, at)
            yield member
            self._skip_to(after)
            at, block = after, self._take(TAR_BLOCK)
        if len(block) < TAR_BLOCK:
            raise TarError(f"no end of archive at byte {at}")
        self._require_zeros(at)

    def read(self, member: Member) -> bytes:
        """Read the content of the member that was given last."""
        data = self._take(member.num_bytes)
        if len(data) != member.num_bytes:
            raise TarError(f"member {legal_name(member.name)} has {len(data)} of {member.num_bytes} bytes")
        return data

    def _member(self, block: bytes, at: int) -> tuple[Member, int]:
        """Read the extended headers from `block` at byte `at` on, and the member they are of; with where it ends."""
        long_name: bytes | None = None
        pax: dict[bytes, bytes] = {}
        for _ in range(_MAX_CHAIN):
            name, kind, size = _parse(block, at)
            if kind not in _PAX + _PAX_GLOBAL + _LONG_NAME + _LONG_LINK:
                break
            content = self._record(size, at)
            if kind in _PAX:
                pax |= _pax_fields(content, at)
            elif kind == _LONG_NAME:
                long_name = content.rstrip(b"\0")
            self._skip_to(at := at + TAR_BLOCK + _in_blocks(size))
            block = self._take(TAR_BLOCK)
        else:
            raise TarError(f"more than {_MAX_CHAIN} extended headers of one member at byte {at}")
        name = pax.get(b"path", name if long_name is None else long_name)
        size = _pax_size(pax[b"size"], at) if b"size" in pax else size
        text = self._name(name, at)
        if kind == _SPARSE or b"GNU.sparse" in pax:
            raise TarError(f"member {legal_name(text)} is sparse: its bytes are not one range of the archive")
        offset, num_bytes = at + TAR_BLOCK, 0 if kind in _WITHOUT_CONTENT else size
        if self._size is not None and offset + num_bytes > self._size:
            raise TarError(f"member {legal_name(text)} claims {num_bytes} bytes, the shard has {self._size}")
        is_file = kind in _FILES and not text.endswith("/")
        return Member(text, is_file, offset, num_bytes), offset + _in_blocks(num_bytes)

    def _record(self, size: int, at: int) -> bytes:
        if size > MAX_RECORD_BYTES:
            raise TarError(f"extended header at byte {at} of {size} bytes, limit {MAX_RECORD_BYTES} bytes")
        self._spend(size)
        content = self._take(size)
        if len(content) < size:
            raise TarError(f"extended header at byte {at} has {len(content)} of {size} bytes")
        return content

    def _name(self, name: bytes, at: int) -> str:
        self._spend(len(name) + _BYTES_PER_MEMBER)
        text = name.decode("utf-8", "surrogateescape")
        if b"\0" in name:
            raise TarError(f"a NUL in the name of the member at byte {at}: {legal_name(text[:80])!a}")
        if len(name) > _MAX_NAME_BYTES:
            raise TarError(f"the name of the member at byte {at} has {len(name)} bytes, limit {_MAX_NAME_BYTES} bytes")
        return text

    def _spend(self, num_bytes: int) -> None:
        self._names_left -= num_bytes
        if self._names_left < 0:
            raise TarError(f"names and extended headers of more than {MAX_NAMES_BYTES} bytes")

    def _take(self, size: int) -> bytes:
        """Read `size` bytes, fewer at the end; a stream may give them piece by piece."""
        pieces, missing = [], size
        while missing and (piece := self._stream.read(min(missing, size if self._can_seek else _READ_BYTES))):
            pieces.append(piece)
            missing -= len(piece)
        self.position += size - missing
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip_to(self, position: int) -> None:
        if self._can_seek:
            self._stream.seek(self._origin + position)
            self.position = position
        while self.position < position and self._take(min(_READ_BYTES, position - self.position)):
            pass

    def _require_zeros(self, end: int) -> None:
        """From the end of the archive to that of the file a sound one has zeros only: else a header was zeroed."""
        while data := self._take(_READ_BYTES):
            if data != bytes(len(data)):
                raise TarError(f"no readable header at byte {end} of {self._size or self.position}")
            if self.position - end > MAX_PADDING_BYTES:
                raise TarError(f"more than {MAX_PADDING_BYTES} bytes of zeros after the end at byte {end}")


def legal_name(name: str) -> str:
    """Spell bytes that are no UTF-8, which come as lone surrogates, as they are written in Python."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _size_of(stream: BinaryIO) -> int:
    """The bytes from where a stream stands, which stays where it is, to its end."""
    position = stream.tell()
    size = stream.seek(0, io.SEEK_END) - position
    stream.seek(position)
    return size


def _parse(block: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Return name, type and size of a header block."""
    if len(block) < TAR_BLOCK:
        raise TarError(f"no end of archive at byte {at}")
    blank = block[:148] + b" " * 8 + block[156:]  # the sum is taken with blanks in its own place
    checksum = _number(block[148:156], at)
    # Old programs summed signed bytes.
    if checksum not in (sum(blank), sum(blank) - 256 * sum(byte > 127 for byte in blank)):
        raise TarError(f"no readable header at byte {at}")
    name, kind = block[:100].split(b"\0", 1)[0], block[156:157]
    prefix = block[345:500].split(b"\0", 1)[0]
    if prefix and block[257:263] == b"ustar\0":  # GNU's own format has times there
        name = prefix + b"/" + name
    return name, kind, 0 if kind in _WITHOUT_CONTENT else _number(block[124:136], at)


def _number(field: bytes, at: int) -> int:
    """A number in octal digits, or of base 256 where its first bit is set."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        digits = field.split(b"\0", 1)[0].strip() or b"0"
        if digits.strip(b"01234567"):
            raise TarError(f"no readable header at byte {at}")
        number = int(digits, 8)
    return number


def _in_blocks(size: int) -> int:
    return -(-size // TAR_BLOCK) * TAR_BLOCK


def _pax_fields(content: bytes, at: int) -> dict[bytes, bytes]:
    """Return `path` and `size` of PAX records, and `GNU.sparse` where one of that family is there."""
    fields, position = {}, 0
    while position < len(content) and content[position]:
        digits, _, _ = content[position : position + 8].partition(b" ")  # a record ends within MAX_RECORD_BYTES
        start, end = position + len(digits) + 1, position + (int(digits) if digits.isdigit() else 0)
        key, equals, value = content[start : end - 1].partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise TarError(f"extended header at byte {at} is damaged")
        if key in (b"path", b"size"):
            fields[key] = value.rstrip(b"/") if key == b"path" else value
        elif key.startswith(b"GNU.sparse."):
            fields[b"GNU.sparse"] = value
        position = end
    return fields


def _pax_size(value: bytes, at: int) -> int:
    if not value.isdigit() or len(value) > 20:
        raise TarError(f"extended header before byte {at} is damaged: its size is {value[:40]!r}")
    return int(value)
