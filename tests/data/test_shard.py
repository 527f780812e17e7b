"""Shards: written whole or not at all, read by webdataset, and every kind of damage named."""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import tracemalloc

import pyarrow as pa
import pytest
import webdataset

from mama_ray.data.clip import clip_from_json
from mama_ray.data.shard import ShardError, open_shard, scan_shard, split_member_name, write_shard
from mama_ray.storage.places import Place
from tests.data.shard_factory import fake_clip, tar_bytes

SAMPLES = [fake_clip(number) for number in range(5)]


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "clips-000000.tar"
    return path, write_shard(path, SAMPLES)


def scan(data: bytes) -> list:
    return list(scan_shard(io.BytesIO(data)))


def failing_scan(data: bytes) -> tuple[list, str]:
    """Samples up to the damage and the error's text."""
    samples = []
    with pytest.raises(ShardError) as raised:
        samples.extend(scan_shard(io.BytesIO(data)))
    return samples, str(raised.value)


def test_locations_point_at_the_video_bytes(shard):
    path, locations = shard
    data = path.read_bytes()
    for (clip, video, _), place in zip(SAMPLES, locations, strict=True):
        assert data[place.offset : place.offset + place.num_bytes] == video
        assert place.clip_id == clip.clip_id
        assert place.sha256 == hashlib.sha256(video).hexdigest()


def test_a_scan_gives_back_clips_videos_and_locations(shard):
    path, locations = shard
    samples = scan(path.read_bytes())
    assert [clip_from_json(sample.texts["json"]) for sample in samples] == [clip for clip, _, _ in SAMPLES]
    assert [sample.video_bytes for sample in samples] == [video for _, video, _ in SAMPLES]
    assert [sample.video for sample in samples] == locations


def test_webdataset_reads_the_shard(shard):
    read = list(webdataset.WebDataset(str(shard[0]), shardshuffle=False, empty_check=False))
    assert [item["__key__"] for item in read] == [clip.clip_id for clip, _, _ in SAMPLES]
    assert [item["mp4"] for item in read] == [video for _, video, _ in SAMPLES]


def test_the_same_clips_give_the_same_bytes(tmp_path, shard):
    write_shard(tmp_path / "again.tar", SAMPLES)
    assert (tmp_path / "again.tar").read_bytes() == shard[0].read_bytes()


def test_an_error_while_writing_leaves_no_file(tmp_path):
    path = tmp_path / "clips.tar"
    bad = (SAMPLES[1][0], b"", "exe")
    with pytest.raises(ValueError, match="video extension"):
        write_shard(path, [SAMPLES[0], bad])
    assert list(tmp_path.iterdir()) == []


def test_a_shard_being_written_has_no_real_name(tmp_path):
    with open_shard(Place.of(tmp_path / "clips.tar")) as writer:
        writer.add(*SAMPLES[0])
        assert not (tmp_path / "clips.tar").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["clips.tar"]


def test_unknown_video_extension_is_refused(tmp_path):
    clip, video, _ = SAMPLES[0]
    with pytest.raises(ValueError, match="video extension: got 'exe'"):
        write_shard(tmp_path / "clips.tar", [(clip, video, "exe")])


def test_every_cut_of_a_shard_is_noticed_and_keeps_the_samples_before_it(shard):
    data = shard[0].read_bytes()
    end = scan_end(data)
    for length in range(0, end + 512, 512):
        samples, message = failing_scan(data[:length])
        assert "truncated or damaged" in message
        assert all(sample.video_bytes == SAMPLES[i][1] for i, sample in enumerate(samples) if sample.video)


def scan_end(data: bytes) -> int:
    """Offset of the end-of-archive blocks."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.getmembers()
        return archive.offset - 512 if data[archive.offset - 512 :].strip(b"\0") == b"" else archive.offset


@pytest.mark.parametrize("patch", [b"\0" * 512, b"garbage!" * 64], ids=["zeroed", "garbage"])
def test_a_damaged_header_in_the_middle_is_noticed(shard, patch):
    path, locations = shard
    data = bytearray(path.read_bytes())
    header = locations[2].offset - 512
    data[header : header + 512] = patch
    samples, message = failing_scan(bytes(data))
    assert "header" in message or "damaged" in message
    assert [sample.video_bytes for sample in samples[:2]] == [video for _, video, _ in SAMPLES[:2]]


@pytest.mark.parametrize("data", [b"", b"<html>404 not found</html>" * 100, b"x" * 511])
def test_what_is_no_tar_is_named_so(data):
    assert "truncated or damaged" in failing_scan(data)[1]


def test_an_archive_padded_to_large_records_is_sound():
    assert len(scan(tar_bytes([("a.mp4", b"1")]) + b"\0" * (3 << 20))) == 1


def test_an_empty_archive_is_sound():
    assert scan(tar_bytes([])) == []


def test_interleaved_keys_are_named():
    message = failing_scan(tar_bytes([("a.mp4", b"1"), ("b.mp4", b"2"), ("a.json", b"{}")]))[1]
    assert message == "interleaved: members of key 'a' are not contiguous"


def test_duplicate_members_are_named():
    message = failing_scan(tar_bytes([("a.mp4", b"1"), ("a.mp4", b"2")]))[1]
    assert message == "duplicated: member 'a.mp4' comes twice"


def test_a_key_that_comes_again_later_is_named():
    message = failing_scan(tar_bytes([("a.mp4", b"1"), ("b.mp4", b"1"), ("a.mp4", b"2")]))[1]
    assert "key 'a'" in message


def test_only_known_extensions_are_read():
    members = [
        ("a.pkl", b"cos\nsystem\n"),
        ("a.pt", b"x"),
        ("a.MP4", b"video"),
        ("a.txt", b"a caption"),
        ("README", b""),
    ]
    (sample,) = scan(tar_bytes(members))
    assert sample.texts == {"txt": b"a caption"}
    assert (sample.video.extension, sample.video_bytes) == ("mp4", b"video")


@pytest.mark.parametrize(
    ("compress", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz"), (zstd, "zstd")]
)
def test_a_compressed_shard_is_named_whatever_its_name(compress, kind):
    samples, message = failing_scan(compress(tar_bytes([("a.mp4", b"1" * 3000)])))
    assert samples == []
    assert f"compressed by {kind}: decompress it" in message


def test_a_member_may_be_called_like_a_compressed_file():
    assert [sample.key for sample in scan(tar_bytes([("BZh91.mp4", b"1")]))] == ["BZh91"]


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg", "a.json"])
def test_a_member_that_claims_more_than_there_is_ends_the_scan_at_once(name):
    member = tarfile.TarInfo(name)
    member.size = 1 << 62
    data = member.tobuf(tarfile.GNU_FORMAT) + bytes(10240 - 512)
    expected = f"truncated or damaged: member {name} claims {1 << 62} bytes, the shard has 10240"
    assert failing_scan(data)[1].startswith(expected)
    with pytest.raises(ShardError, match="truncated or damaged"):  # also where the size cannot be known
        list(scan_shard(Unwindable(data)))


class Unwindable(io.RawIOBase):
    """A stream that can be read once, as from a network."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


@pytest.mark.parametrize("raw", [b"caf\xe9", b"\xff\xfe\xfd", b"\x82\xa0"])
def test_names_that_are_no_utf_8_are_made_legal(raw):
    data = tar_bytes([(f"{raw.decode('utf-8', 'surrogateescape')}.{ext}", b"x") for ext in ("mp4", "txt")])
    (sample,) = scan(data)
    assert sample.key == raw.decode("utf-8", "backslashreplace")
    assert sample.texts == {"txt": b"x"}


def test_a_video_over_the_limit_is_an_error_of_the_sample():
    (sample,) = scan_shard(io.BytesIO(tar_bytes([("a.mp4", b"1" * 2000)])), max_video_bytes=1000)
    assert "limit 1000 bytes" in sample.error
    assert sample.video_bytes == b""


def test_links_and_folders_are_passed_over():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("a.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        folder = tarfile.TarInfo("folder.mp4")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert scan(buffer.getvalue()) == []


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.mp4", ("a", "mp4")),
        ("dir.x/a.cam0.MP4", ("dir.x/a.cam0", "mp4")),
        ("./a.mp4", ("./a", "mp4")),
        ("noextension", None),
        ("dir.x/noextension", None),
        ("a.", ("a", "")),
        ("dir/.hidden.mp4", None),
        ("._a.mp4", None),
    ],
)
def test_member_names_split_at_the_last_dot(name, parts):
    assert split_member_name(name) == parts


def test_long_names_of_foreign_tars_are_read():
    (sample,) = scan(tar_bytes([("d" * 150 + "/" + "k" * 120 + ".mp4", b"1")]))
    assert sample.key.endswith("k" * 120)


def test_scanning_keeps_one_sample_in_memory(tmp_path):
    path = tmp_path / "big.tar"
    write_shard(path, ((fake_clip(i)[0], bytes([i]) * (2 << 20), "mp4") for i in range(30)))
    with Place.of(path).open_stream() as stream:
        tracemalloc.start()
        count = sum(1 for _ in scan_shard(stream))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 30
    assert peak < 16 << 20
