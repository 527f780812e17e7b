"""Headers of a tar that nobody vouches for: what tarfile reads is read, and what is claimed costs nothing."""

import io
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from mama_ray.data.tar_headers import MAX_RECORD_BYTES, TarError, TarWalk
from tests.data.shard_factory import tar_bytes

CASES = Path(__file__).parents[3] / "shared/data/cases/shards"


def header(name: str, kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def record(kind: bytes, content: bytes) -> bytes:
    return header("record", kind, len(content)) + content + bytes(-len(content) % 512)


def pax(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} ".encode() + key + b"=" + value + b"\n"


def walk_of(data: bytes) -> list[tuple[str, bool, bytes]]:
    walk = TarWalk(io.BytesIO(data))
    return [(member.name, member.is_file, walk.read(member)) for member in walk]


def fault_of(data: bytes) -> str:
    with pytest.raises(TarError) as raised:
        walk_of(data)
    return str(raised.value)


END = bytes(1024)
VIDEO = header("a.mp4", b"0", 3) + b"abc" + bytes(509)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(form):
    buffer = io.BytesIO()
    names = ["a.mp4", f"{'d' * 90}/{'e' * 60}/b.txt", "folder/", "grüße.json", "x" * 99]
    if form != tarfile.USTAR_FORMAT:
        names += ["k" * 300, f"{'d' * 200}/{'e' * 200}.mp4"]
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 0 if name.endswith("/") else 511 * number
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.mtime = 0.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        expected = [
            (member.name.rstrip("/"), member.isreg(), archive.extractfile(member).read() if member.isreg() else b"")
            for member in archive
        ]
    assert [(name.rstrip("/"), is_file, data) for name, is_file, data in walk_of(buffer.getvalue())] == expected


def test_a_member_passed_over_is_not_read():
    class Counted(io.BytesIO):
        num_read = 0

        def read(self, size=-1):
            data = super().read(size)
            self.num_read += len(data)
            return data

    stream = Counted(tar_bytes([("a.bin", bytes(5 << 20)), ("b.bin", b"1")]))
    assert [member.num_bytes for member in TarWalk(stream)] == [5 << 20, 1]
    assert stream.num_read < 1 << 15


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X"])
def test_an_extended_header_that_claims_gigabytes_is_refused_unread(tmp_path, kind):
    path = tmp_path / "sparse.tar"
    with path.open("wb") as file:
        file.write(header("record", kind, 6 << 30))
        file.truncate(6 << 30)
    tracemalloc.start()
    with path.open("rb") as stream, pytest.raises(TarError, match=f"limit {MAX_RECORD_BYTES} bytes"):
        list(TarWalk(stream))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_a_chain_of_extended_headers_is_refused(kind):
    one = record(kind, pax(b"path", b"b.mp4") if kind != b"L" else b"b.mp4\0")
    assert "more than 16 extended headers" in fault_of(one * 3000 + VIDEO + END)
    assert walk_of(one * 3 + VIDEO + END)[0][2] == b"abc"


def test_hundreds_of_thousands_of_pax_records_take_no_time():
    content = pax(b"c", b"") * 170_000
    assert len(content) < MAX_RECORD_BYTES
    started = time.process_time()
    assert walk_of(record(b"x", content) + VIDEO + END) == [("a.mp4", True, b"abc")]
    assert time.process_time() - started < 5  # of this process alone; a search for each record would take minutes
    many = (record(b"g", bytes(MAX_RECORD_BYTES)) + VIDEO) * 70
    assert "names and extended headers of more than" in fault_of(many + END)


def test_sizes_of_every_form_are_held_against_the_archive():
    for size in (1 << 62, 1 << 87, 4096):
        long = header("a.mp4", b"0", 0)
        field = b"\x80" + size.to_bytes(11, "big")
        block = long[:124] + field + long[136:]
        block = block[:148] + f"{sum(block[:148] + b' ' * 8 + block[156:]):06o}\0 ".encode() + block[156:]
        assert fault_of(block + END) == f"member a.mp4 claims {size} bytes, the shard has 1536"
    assert "member a.mp4 claims 99999 bytes" in fault_of(record(b"x", pax(b"size", b"99999")) + VIDEO + END)
    assert "its size is" in fault_of(record(b"x", pax(b"size", b"9" * 400)) + VIDEO + END)
    assert "its size is" in fault_of(record(b"x", pax(b"size", b"-1")) + VIDEO + END)


def test_a_nul_in_a_name_and_a_name_without_end_are_told():
    assert "a NUL in the name" in fault_of(record(b"x", pax(b"path", b"a\0b.mp4")) + VIDEO + END)
    assert "a NUL in the name" in fault_of(record(b"L", b"a\0b.mp4\0") + VIDEO + END)
    assert "has 5000 bytes, limit 4096" in fault_of(record(b"L", b"a" * 5000) + VIDEO + END)


@pytest.mark.parametrize(
    "content", [b"5 a=", b"99999999 a=b\n", b"0 a=b\n", b"x", b"7 a=bc\n5 =", b"-7 a=bc\n", b" 5 a=\n", b"6 path\n"]
)
def test_damaged_pax_records_are_told(content):
    assert "is damaged" in fault_of(record(b"x", content) + VIDEO + END)


def test_sparse_members_are_refused():
    assert "member a.mp4 is sparse" in fault_of(record(b"x", pax(b"GNU.sparse.major", b"1")) + VIDEO + END)
    assert "member a.mp4 is sparse" in fault_of(header("a.mp4", b"S", 0) + END)


def test_zeros_without_end_are_refused(tmp_path):
    path = tmp_path / "long.tar"
    path.write_bytes(VIDEO)
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)
        with pytest.raises(TarError, match="bytes of zeros after the end"):
            list(TarWalk(stream))


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases beside the checkout")
def test_the_member_of_four_exabytes_is_told():
    with (CASES / "member_of_4_exabytes.tar").open("rb") as stream, pytest.raises(TarError, match=r"member a\.mp4 cl"):
        list(TarWalk(stream))
