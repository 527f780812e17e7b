"""A proxy before an S3 server that spoils requests by turns, as object stores, their front ends and networks do."""

import asyncio
import collections
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

KINDS = ("500", "503 SlowDown", "reset before", "reset after", "silence")
SILENCE_S = 60.0  # longer than any client waits for a byte
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
    "<RequestId>spoiled</RequestId><HostId>proxy</HostId></Error>"
)
_CONDITIONS = {"If-Match", "If-None-Match"}
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"}


class FaultyProxy:
    """Forwards requests to `upstream`, a URL, and spoils about one in `every`: which ones is a matter of the seed, the
    kinds take turns. `faults` counts them by kind, and by kind and what was asked."""

    def __init__(self, upstream: str, *, seed: int = 0, every: int = 20) -> None:
        self._upstream, self._every = upstream, every
        self._chance = random.Random(seed)
        self.faults: collections.Counter[str] = collections.Counter()
        self.num_requests = self._num_faults = 0
        self.endpoint: str | None = None

    def choose(self, request: web.BaseRequest) -> str | None:
        """Return the kind of fault that this request meets, or None."""
        if self._chance.randrange(self._every):
            return None
        self._num_faults += 1
        return KINDS[self._num_faults % len(KINDS)]

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        """Return what this request gets in the place of an answer, or None."""
        return None

    async def serve(self, is_ready: threading.Event) -> None:
        """Serve on a free port of loopback until `stop`."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            # Bytes pass as they are: S3's signatures cover them.
            runner = web.ServerRunner(web.Server(self._handle, auto_decompress=False), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
            is_ready.set()
            await self._stop.wait()
            await runner.cleanup()

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.content.read()  # request.read() takes no more than a megabyte
        self.num_requests += 1
        if (refusal := self.refuse(request)) is not None:
            return refusal
        kind = self.choose(request)
        if kind is None:
            return await self._forward(request, body)
        self.faults.update([kind, f"{kind}: {asked(request)}"])
        if kind == "500":
            return _error(500, "InternalError", "We encountered an internal error. Please try again.")
        if kind == "503 SlowDown":
            return _error(503, "SlowDown", "Please reduce your request rate.")
        if kind == "404 NoSuchUpload":
            return _error(404, "NoSuchUpload", "The specified upload does not exist.")
        if kind == "silence":
            await asyncio.sleep(SILENCE_S)
        if kind == "reset after":
            await self._forward(request, body)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        url = URL(self._upstream + request.raw_path, encoded=True)
        headers = _passed_on(request.headers)
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            content = await answer.read()
        is_bare = request.method == "HEAD" or answer.status == 204
        return web.Response(status=answer.status, headers=_passed_on(answer.headers), body=None if is_bare else content)


class Unconditional(FaultyProxy):
    """Spoils nothing, but knows no conditions of a PUT: it passes over them, or refuses them."""

    def __init__(self, upstream: str, *, refuses: bool) -> None:
        super().__init__(upstream)
        self._refuses = refuses

    def choose(self, request: web.BaseRequest) -> str | None:
        return None

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        if self._refuses and not _CONDITIONS.isdisjoint(request.headers):
            return _error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
        return None

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        kept = {name: value for name, value in request.headers.items() if name not in _CONDITIONS}
        return await super()._forward(request.clone(headers=kept), body)


class Refusing(FaultyProxy):
    """Answers every GET and HEAD of some names with one error, from a number of them on; calm until it is told."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._below = ".tar"
        self._refused_from: int | None = None
        self._answer = (403, "AccessDenied")
        self.num_passed = self.num_refused = 0

    def refuse_from(self, status: int, code: str, *, below: str = ".tar", passes: int = 0) -> None:
        """Let `passes` more GETs of names with `below` in them through, and no further one."""
        self._answer, self._below = (status, code), below
        self.num_passed = self.num_refused = 0
        self._refused_from = passes

    def be_calm(self) -> None:
        """Let everything through again, and count the GETs of shards anew."""
        self._below, self._refused_from, self.num_passed = ".tar", None, 0

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        """Return the error that this request meets, or None."""
        if request.method not in ("GET", "HEAD") or self._below not in request.path:
            return None
        if self._refused_from is not None and self.num_passed >= self._refused_from:
            self.num_refused += 1
            return _error(*self._answer, f"refused: {self._answer[1]}")
        self.num_passed += request.method == "GET"
        return None


def asked(request: web.BaseRequest) -> str:
    """Return in words what a request asks of S3."""
    if request.method == "POST" and "uploadId" in request.query:
        return "CompleteMultipartUpload"
    return request.method


_Proxy = TypeVar("_Proxy", bound=FaultyProxy)


@contextmanager
def serving(proxy: _Proxy) -> Iterator[_Proxy]:
    """Run a proxy in a thread; its `endpoint` is set."""
    is_ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(is_ready)), daemon=True)
    thread.start()
    assert is_ready.wait(60)
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join(60)


def _passed_on(headers) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_CONNECTION}


def _error(status: int, code: str, message: str) -> web.Response:
    return web.Response(status=status, text=_ERROR.format(code=code, message=message), content_type="application/xml")
