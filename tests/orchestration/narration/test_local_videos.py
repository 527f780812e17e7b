"""A video is where a decoder can open it: its own file, or a copy that is whole and of the video that was looked at."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.settings import DecodeConfig, SceneConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.narration.local_videos import local_path
from mama_ray.orchestration.narration.videos import FoundVideo, find_videos, look_at_video
from mama_ray.storage.places import storage_errors
from tests.data.video.video_factory import make_video


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("mama_ray.storage.retries.time.sleep", lambda _: None)


class Server(ThreadingHTTPServer):
    """A web server of one video, with faults."""

    def __init__(self, video: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.video, self.tells_length = video, True
        self.num_cut = self.num_damaged = self.num_refused = 0
        """How many of the next answers break off, have another byte, are an error."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/far.mp4"


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        video, server = self._answer(), cast(Server, self.server)
        if "Range" not in self.headers:  # the file system asks whether it is there
            pass
        elif video and server.num_cut:
            server.num_cut -= 1
            video = video[: len(video) // 2]
        elif video and server.num_damaged:
            server.num_damaged -= 1
            video = video[:-1] + bytes([video[-1] ^ 1])
        self.wfile.write(video)

    def _answer(self) -> bytes:
        server = cast(Server, self.server)
        if server.num_refused:
            server.num_refused -= 1
            self.send_error(503)
            return b""
        self.send_response(200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(server.video)))
        self.end_headers()
        return server.video

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(video: bytes) -> Iterator[Server]:
    with Server(video) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def path_of(found: FoundVideo, sha256: str | None = None) -> str:
    with storage_errors(found.uri):
        return local_path(found.uri, found.num_bytes, found.modified_ns, DecodeConfig(), sha256=sha256)


def test_a_video_that_changed_is_refused(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(make_video(num_frames=8))
    (found,) = find_videos([str(path)])
    path.write_bytes(make_video(num_frames=16))
    with pytest.raises(UserError, match="was changed while it was narrated"):
        local_path(found.uri, found.num_bytes, found.modified_ns, DecodeConfig())
    path.unlink()
    with pytest.raises(UserError, match="a video is gone"):
        local_path(found.uri, found.num_bytes, found.modified_ns, DecodeConfig())


def test_a_remote_video_is_fetched_once_within_the_bound(tmp_path):
    import fsspec

    data = make_video(num_frames=16)
    fsspec.filesystem("memory").pipe("/videos/far.mp4", data)
    (found,) = find_videos(["memory://videos/far.mp4"])
    assert (found.video_id, found.num_bytes) == ("far", len(data))
    path = local_path(found.uri, found.num_bytes, found.modified_ns, DecodeConfig())
    assert Path(path).read_bytes() == data
    assert local_path(found.uri, found.num_bytes, found.modified_ns, DecodeConfig()) == path
    assert look_at_video(found, DecodeConfig(), SceneConfig()).num_frames == 16
    with pytest.raises(DecodeError, match="too large"):
        local_path(found.uri, found.num_bytes, found.modified_ns, DecodeConfig(max_bytes=10))


def test_a_connection_that_breaks_off_is_made_again():
    with serving(make_video()) as server:
        (found,) = find_videos([server.address])
        server.num_cut = 2
        assert Path(path_of(found)).read_bytes() == server.video


def test_a_server_that_breaks_off_every_time_is_told_in_one_line():
    with serving(make_video()) as server:
        (found,) = find_videos([server.address])
        server.num_cut = 100
        with pytest.raises(UserError, match=r"the storage failed: got http://127.*far.mp4.*(not completed|bytes came)"):
            path_of(found)


def test_a_server_that_is_down_for_a_moment_has_not_lost_its_video():
    with serving(make_video()) as server:
        (found,) = find_videos([server.address])
        server.num_refused = 3
        assert Path(path_of(found)).read_bytes() == server.video


def test_a_server_that_does_not_tell_a_length_is_refused_in_words():
    with serving(make_video()) as server:
        server.tells_length = False
        with pytest.raises(UserError, match="does not tell its length: got http.*far.mp4; fetch the video to a disk"):
            find_videos([server.address])


def test_a_copy_with_other_bytes_is_fetched_once_more_and_then_of_another_video():
    with serving(make_video()) as server:
        (found,) = find_videos([server.address])
        sha256 = look_at_video(found, DecodeConfig(), SceneConfig()).sha256
        (other,) = find_videos([server.address + "?again"])  # so that the copy is no more of this one
        path_of(other)
        server.num_damaged = 1
        assert Path(path_of(found, sha256)).read_bytes() == server.video
        assert server.num_damaged == 0
        path_of(other)
        server.video = server.video[:-1] + b"x"
        with pytest.raises(UserError, match="a video was changed while it was narrated: got http.*far.mp4"):
            path_of(found, sha256)
