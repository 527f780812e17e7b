"""A place is one value for a file or folder of any storage; what is written there is whole or not there."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from mama_ray.errors import UserError
from mama_ray.storage import large_copy, places
from mama_ray.storage.places import Place, absolute_uri, join_uri, whole_file
from mama_ray.storage.s3 import AT_WORK, s3_client
from mama_ray.storage.small_files import MAX_JSON_BYTES, FileTooLarge
from tests.storage.s3_faults import FaultyProxy, asked, serving


@pytest.fixture(params=["disk", "s3", "fsspec"])
def folder(request, tmp_path) -> Place:
    """A folder that is not there yet, on each kind of storage."""
    if request.param == "disk":
        return Place.of(tmp_path / "folder")
    if request.param == "fsspec":
        return Place.of(f"local://{tmp_path}/folder")
    return Place.of(f"s3://{request.getfixturevalue('s3_bucket')}/{tmp_path.name}/folder")


def test_what_was_written_is_read_listed_and_deleted(folder):
    (folder / "a.json").write_whole('{"one": 1}')
    (folder / "deep/b").write_whole(b"bytes")
    (folder / "c").write_whole(lambda stream: [stream.write(b"from "), stream.write(b"a function")])
    assert (folder / "a.json").read_json() == {"one": 1}
    assert ((folder / "deep/b").read_bytes(), (folder / "c").read_text()) == (b"bytes", "from a function")
    assert [place.name for place in folder.files()] == ["a.json", "c"]
    assert folder.files(recursive=True) == [folder / "a.json", folder / "c", folder / "deep/b"]
    assert ((folder / "a.json").is_file(), folder.exists(), folder.is_file()) == (True, True, False)
    with (folder / "deep/b").open_file() as file:
        assert file.read_at(3, 1) == b"yte"
    (folder / "c").delete_file()
    assert not (folder / "c").exists()
    folder.delete_folder()
    assert folder.files(recursive=True) == []


def test_a_local_copy_holds_what_the_folder_holds(folder):
    (folder / "deep/b").write_whole(b"bytes")
    with folder.local() as local:
        assert (local / "deep/b").read_bytes() == b"bytes"
    assert local.exists() == folder.is_local


def test_json_that_is_missing_or_damaged_is_none(folder):
    assert (folder / "gone.json").read_json() is None
    (folder / "half.json").write_whole('{"one": ')
    assert (folder / "half.json").read_json() is None


def test_json_that_is_too_large_is_told_and_not_taken_for_missing(tmp_path):
    place = Place.of(tmp_path / "large.json")
    place.write_whole(f'{{"text": "{"a" * MAX_JSON_BYTES}"}}')
    with pytest.raises(FileTooLarge, match=r"large\.json"):
        place.read_json()


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(folder):
    place = folder / "file"
    place.write_whole("old")

    def fail(stream):
        stream.write(b"half of the n")
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        place.write_whole(fail)
    with pytest.raises(ValueError, match="cut off"), place.open_whole() as stream:
        fail(stream)
    assert (place.read_text(), folder.files()) == ("old", [place])


def test_what_is_still_written_when_the_program_ends_is_written(s3_bucket):
    place = Place.of(f"s3://{s3_bucket}/late")
    program = (
        "import sys, threading, time\nfrom mama_ray.storage.places import Place\n"
        f"place = Place.of({place.uri!r})\n"
        "threading.Thread(target=lambda: (time.sleep(1), place.write_whole('whole'))).start()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert place.read_text() == "whole"


class InterruptAt:
    """Raises KeyboardInterrupt in this thread as `Place` comes to its n-th line, as Ctrl-C may."""

    def __init__(self, number: int) -> None:
        self._lines_left = number

    def __call__(self, frame, event: str, argument: object):
        if frame.f_code.co_filename != places.__file__:
            return None
        if event == "line":
            self._lines_left -= 1
            if self._lines_left == 0:
                raise KeyboardInterrupt
        return self


def test_a_write_that_is_interrupted_anywhere_leaves_a_whole_file_or_none(folder):
    (folder / "other").write_whole("so that there is a folder")
    usual, num_interrupted = sys.gettrace(), 0
    for number in range(1, 100):
        place = folder / f"file-{number}"
        sys.settrace(InterruptAt(number))
        try:
            place.write_whole("whole")
            break
        except KeyboardInterrupt:
            num_interrupted += 1
        finally:
            sys.settrace(usual)
        assert not place.exists() or place.read_text() == "whole", f"interrupted at line {number}"
    assert 3 < num_interrupted < 99


def test_names_that_are_no_utf8_do_not_hide_the_others(tmp_path, caplog):
    (tmp_path / "below").mkdir()
    for path in ("b", "a", "below/c"):
        (tmp_path / path).write_text(path)
    wanted = [(info.path, info.type, info.size, info.mtime_ns) for info in Place.of(tmp_path).entries(recursive=True)]
    for name in (b"bad\xe4", b"below/bad\xe4"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    found = [(info.path, info.type, info.size, info.mtime_ns) for info in Place.of(tmp_path).entries(recursive=True)]
    assert [(path, kind, size) for path, kind, size, _ in found] == [one[:3] for one in wanted]
    assert "2 names that are no UTF-8 are left out" in caplog.text
    assert [place.name for place in Place.of(tmp_path).files()] == ["a", "b"]


def test_a_file_by_name_is_whole_or_not_there(tmp_path):
    path = tmp_path / "weights"

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert [found.read_text() for found in tmp_path.iterdir()] == ["whole"]


def test_two_writers_of_one_file_leave_the_whole_text_of_one(tmp_path):
    place, texts = Place.of(tmp_path / "file"), ["a" * 100_000, "b" * 100_000]
    threads = [
        threading.Thread(target=lambda text=text: [place.write_whole(text) for _ in range(20)]) for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.read_text() in texts
    assert place.parent.files() == [place]


def test_a_place_is_pickled_by_its_uri_and_equal_to_itself_elsewhere(folder):
    again = copy.copy(folder / "x")  # by the way that pickle takes
    assert (again, hash(again), str(again)) == (folder / "x", hash(folder / "x"), f"{folder.uri}/x")
    assert len(pickle.dumps(folder)) < 300  # no filesystem in it
    again.write_whole("seen from both")
    assert (folder / "x").read_text() == "seen from both"


def test_paths_and_uris_name_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = Place.of(tmp_path / "a/b")
    assert wanted == Place.of("a/b") == Place.of(f"file://{tmp_path}/a/b") == Place.of(f"{tmp_path}/a/b/")
    assert (Place.of("s3://b/c/").uri, Place.of("s3://b/c/")) == ("s3://b/c", Place.of("s3://b/c"))
    assert absolute_uri("file:///a") == "file:///a"  # as it stands in the configs of earlier runs
    assert wanted == Place.of("a") / "b" and wanted.parent == Place.of("a") and wanted.name == "b"
    assert isinstance(wanted.filesystem, pafs.LocalFileSystem)
    assert (absolute_uri("a"), absolute_uri("s3://b/c")) == (str(tmp_path / "a"), "s3://b/c")
    assert (Place.of("~/x").path, join_uri("s3://b/", "c", "d")) == (str(Path.home() / "x"), "s3://b/c/d")


def test_a_storage_that_lists_with_a_leading_slash_gives_the_same_places(tmp_path):
    folder = Place.of(f"memory://{tmp_path.name}/folder")
    (folder / "deep/x.txt").write_whole("found")
    (file,) = folder.files(recursive=True)
    assert (file, file.read_text()) == (folder / "deep/x.txt", "found")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/x",
        "s3://key:sec/ret@bucket/x",
        "s3://bucket/x?secret_key=secret",
        "https://host/x.tar?sv=1&sig=secret",
        "https://host/x.tar?X-Amz-Signature=secret&n=1",
        "abfs://c/x?account_key=secret",
        "s3://bucket/x#token=secret",
        "file://me:secret@host/x",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    with pytest.raises(UserError, match="credentials inside a URI") as refused:
        Place.of(uri)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("endpoint", ["http://me:sec/ret@host:9000", "http://host:9000/?sig=sec/ret"])
def test_credentials_in_the_endpoint_are_refused_and_not_repeated(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UserError, match="credentials inside the endpoint of S3") as refused:
        Place.of("s3://bucket/x")
    assert "sec" not in str(refused.value) and "host" in str(refused.value)


class Counting(FaultyProxy):
    """Spoils nothing and remembers what was asked."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.asked: list[str] = []

    def choose(self, request):
        self.asked.append(asked(request))


def test_a_small_file_is_one_request_and_a_folder_none(s3_server, s3_bucket, monkeypatch):
    with serving(Counting(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        place = Place.of(f"s3://{s3_bucket}/folder")
        (place / "deep").make_folder()
        (place / "deep/small").write_whole(b"few bytes")
        (place / "deep/written").write_whole(lambda stream: stream.write(b"a few more"))
        assert proxy.asked == ["PUT", "PUT"]


@pytest.mark.parametrize("num_bytes", [12 << 20, 10 << 20])
def test_an_object_too_large_for_one_copy_gets_its_name_by_parts(s3_bucket, tmp_path, monkeypatch, num_bytes):
    monkeypatch.setattr(large_copy, "MAX_COPY_BYTES", 9 << 20)
    monkeypatch.setattr(large_copy, "_PART_BYTES", 5 << 20)  # the least that S3 takes
    place = Place.of(f"s3://{s3_bucket}/{tmp_path.name}/index.parquet")
    content = os.urandom(num_bytes)
    with place.open_whole() as stream:
        stream.write(content)
    assert place.read_bytes() == content
    assert place.parent.files() == [place]
    head = s3_client(AT_WORK).head_object(Bucket=s3_bucket, Key=f"{tmp_path.name}/index.parquet")
    assert head["ETag"].endswith(f'-{-(-num_bytes // (5 << 20))}"')  # as of an upload of parts


def test_a_copy_by_parts_that_fails_leaves_neither_parts_nor_the_file(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(large_copy, "MAX_COPY_BYTES", 9 << 20)
    monkeypatch.setattr(large_copy, "_PART_BYTES", 4 << 20)  # less than S3 takes, which it says at the end
    place = Place.of(f"s3://{s3_bucket}/{tmp_path.name}/index.parquet")
    place.write_whole("old")
    with pytest.raises(OSError, match="EntityTooSmall"), place.open_whole() as stream:
        stream.write(bytes(12 << 20))
    assert (place.read_text(), place.parent.files()) == ("old", [place])
    assert not s3_client(AT_WORK).list_multipart_uploads(Bucket=s3_bucket).get("Uploads")
