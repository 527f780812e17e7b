"""What a connection may cost: no endless headers, no endless wait for them."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from mama_ray.orchestration.serving.connections import BoundedConnection
from tests.orchestration.serving.app_process import RunningApp, raw

PATIENCE_S = 1.0  # more than a busy machine takes to send a request
BEGUN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Never: "


class ImpatientConnection(BoundedConnection):
    patience_s, unread_s = PATIENCE_S, 2 * PATIENCE_S

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)


LARGE = b"a" * (1 << 22)  # more than the system keeps for who does not read
has_ended = threading.Event()


async def answer(scope, receive, send) -> None:
    """Answer slowly, or with much."""
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(LARGE))]})
        for start in range(0, len(LARGE), 1 << 16):
            part = LARGE[start : start + (1 << 16)]
            await send({"type": "http.response.body", "body": part, "more_body": start + len(part) < len(LARGE)})
        has_ended.set()
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(4):
        await asyncio.sleep(PATIENCE_S / 2)
        await send({"type": "http.response.body", "body": b"part ", "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server whose answers take longer than it waits for requests."""
    config = uvicorn.Config(answer, port=0, http=ImpatientConnection, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def address(port: int) -> RunningApp:
    return RunningApp(process=None, port=port, log_file=None)


@pytest.mark.parametrize("sent", [b"", b"G", BEGUN])
def test_a_connection_without_a_whole_request_is_closed_without_an_answer(port, sent):
    assert raw(address(port), sent) == b""


def test_a_byte_now_and_then_wins_no_time(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(BEGUN)
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"a")
                time.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_an_answer_may_take_longer_and_another_request_follows_on_the_same_connection(port):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            assert client.get("/").text == "part part part part end"


@contextlib.contextmanager
def asking_for_much(port: int) -> Iterator[socket.socket]:
    has_ended.clear()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        yield connection


def test_an_answer_of_which_nothing_is_read_is_given_up(port):
    with asking_for_much(port) as connection:
        assert has_ended.wait(20)  # and with it the place that the request takes
        num_bytes = 0
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                num_bytes += len(part)
    assert num_bytes < len(LARGE)


def test_an_answer_that_is_read_slowly_comes_whole(port):
    num_bytes, began_s = 0, time.monotonic()
    with asking_for_much(port) as connection:
        while num_bytes < len(LARGE):
            part = connection.recv(len(LARGE) // 16, socket.MSG_WAITALL)
            assert part, f"closed after {num_bytes} bytes"
            num_bytes += len(part)
            time.sleep(PATIENCE_S / 4)
    assert time.monotonic() - began_s > ImpatientConnection.unread_s


def test_headers_without_end_are_refused_and_not_kept(bare_app):
    large = BEGUN + b"a" * (1 << 20) + b"\r\n\r\n"
    many = BEGUN + b"".join(b"\r\nX-%d: a" % number for number in range(50_000)) + b"\r\n\r\n"
    for request in (large, many):
        assert raw(bare_app, request)[:12] in (b"HTTP/1.1 400", b"")  # it may be closed before all is sent
    assert bare_app.get("/").status_code == 200
