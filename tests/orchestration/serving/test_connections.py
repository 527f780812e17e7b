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
    patience_s = PATIENCE_S


async def slow(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(4):
        await asyncio.sleep(PATIENCE_S / 2)
        await send({"type": "http.response.body", "body": b"part ", "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server whose answers take longer than it waits for requests."""
    config = uvicorn.Config(slow, port=0, http=ImpatientConnection, log_config=None, lifespan="off")
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


def test_headers_without_end_are_refused_and_not_kept(bare_app):
    large = BEGUN + b"a" * (1 << 20) + b"\r\n\r\n"
    many = BEGUN + b"".join(b"\r\nX-%d: a" % number for number in range(50_000)) + b"\r\n\r\n"
    for request in (large, many):
        assert raw(bare_app, request)[:12] in (b"HTTP/1.1 400", b"")  # it may be closed before all is sent
    assert bare_app.get("/").status_code == 200
