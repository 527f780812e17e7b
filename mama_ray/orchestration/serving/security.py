"""Who may speak to the app, and how much: checked for every request before any route sees it.

A page of another site that a person visits can send requests to this machine's own address. So a request must name a
host that is ours (another name that leads here is a trap), a write must come from our own pages, and nothing that is
answered may be framed or embedded elsewhere. On other addresses every request must know the token.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mama_ray.orchestration.serving.job import ALL_ADDRESSES, LOOPBACK_HOSTS
from mama_ray.orchestration.serving.pages import Pages

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "MAMA_RAY_APP_TOKEN"
SMALLEST_TOKEN = 16
LOGIN_PATH = "/login"
_COOKIE = "mama_ray_app"
_READING = ("GET", "HEAD", "OPTIONS")
_SMALL_BODY = 1 << 20  # of everything but uploads: a query, a mark, an edited caption
# The form of the token is all that strangers may hold open: it is short, and its places are no one else's. So that one
# stranger does not keep out the others, an address has some of them.
_LOGIN_BODY = 8 << 10
_MAX_LOGINS, _LOGINS_OF_AN_ADDRESS = 256, 8
_OPEN_PATHS = (
    LOGIN_PATH,
    "/static/app.css",
    "/static/app.js",
    "/static/icon.svg",
)  # what the page that asks for the token needs
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PROTECTING_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with none at all a form of ours would come from the origin "null"
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in PROTECTING_HEADERS.items()]
# Nothing but a name and a port: with more in it, whoever puts it before a path reads another path than is served.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.IGNORECASE | re.ASCII)


class Doorkeeper:
    """ASGI middleware: host 400, token 401, origin 403, size 413, a body that stops coming 408,
    number of requests 503, and headers of every answer.

    Uploads are counted as they stream, whatever length they claim: a route that reads one past the limit gets an
    HTTPException of 413 from the next read, and has to leave nothing behind.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        pages: Pages,
        token: str | None,
        hosts: Iterable[str] = (),
        max_upload_bytes: int,
        upload_paths: Collection[str] = (),
        max_clients: int = 64,
        patience_s: float = 60.0,
        login_within_s: float = 10.0,
    ) -> None:
        """hosts: names beside the loopback ones, one of ALL_ADDRESSES for every IP address;
        upload_paths: beginnings of paths that may take large bodies;
        patience_s: how long the next part of a body is waited for;
        login_within_s: how long the whole form of the token, which a stranger sends.
        """
        self._patience_s, self._login_within_s = patience_s, login_within_s
        self._app, self._pages, self._token = app, pages, token
        self._hosts = {_comparable(host) for host in (*LOOPBACK_HOSTS, *hosts)}
        # The trap needs a name: no one else's DNS leads a browser that asks for an IP address.
        self._takes_any_address = not self._hosts.isdisjoint(ALL_ADDRESSES)
        self._max_upload_bytes, self._upload_paths = max_upload_bytes, tuple(upload_paths)
        self._max_clients, self._taken = max_clients, Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused, and hand on the rest."""
        if scope["type"] == "websocket":  # there is none; closed before it is accepted, it is answered with 403
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        protected = _with_headers(send)
        refusal = self._refusal(request)
        if refusal is not None:
            await _answer_and_close(refusal, scope, receive, protected)
            return
        places = Counter(self._places(request).keys())
        self._taken += places
        try:
            if _path_of(request) == LOGIN_PATH:
                await _answer_and_close(await self._login(request, receive), scope, receive, protected)
            else:
                await self._app(scope, self._bounded(request, receive), protected)
        finally:
            self._taken -= places

    def _refusal(self, request: Request) -> Response | None:
        host = _host_of(request)
        if host not in self._hosts and not (self._takes_any_address and _is_address(host)):
            return _told(400, "this is not a name of this app; name it in hosts, or ask by its address")
        if request.method not in _READING and not _is_from_here(request):
            return _told(403, "the request comes from a page of another site")
        if self._token is not None and not self._knows_token(request) and _path_of(request) not in _OPEN_PATHS:
            return self._ask_for_token(request)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit(request):
            return _told(413, _too_large(self._limit(request)))
        if any(self._taken[name] >= limit for name, limit in self._places(request).items()):
            return Response("busy; try again in a moment\n", 503, {"retry-after": "2"}, "text/plain")
        return None

    def _places(self, request: Request) -> dict[str, int]:
        """Return where a request takes a place, with how many there are; nowhere where it is answered at once."""
        if _path_of(request) in _OPEN_PATHS and request.method in _READING:
            return {}  # else strangers who do not read their answers would take the places of others
        if _path_of(request) != LOGIN_PATH:
            return {"clients": self._max_clients}
        return {"logins": _MAX_LOGINS, f"logins of {_network_of(request)}": _LOGINS_OF_AN_ADDRESS}

    def _limit(self, request: Request) -> int:
        if _path_of(request) == LOGIN_PATH:
            return _LOGIN_BODY
        is_upload = _path_of(request).startswith(self._upload_paths) if self._upload_paths else False
        return self._max_upload_bytes if is_upload else _SMALL_BODY

    def _bounded(self, request: Request, receive: Receive) -> Receive:
        limit, num_bytes, is_whole = self._limit(request), 0, False

        async def counted() -> Message:
            nonlocal num_bytes, is_whole
            if is_whole:  # what comes then is that the client leaves, which may take hours
                return await receive()
            try:
                async with asyncio.timeout(self._patience_s):
                    message = await receive()
            except TimeoutError as error:
                told = f"nothing more came for {self._patience_s:g} s"
                raise HTTPException(408, told, {"connection": "close"}) from error
            num_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if num_bytes > limit:
                raise HTTPException(413, _too_large(limit), {"connection": "close"})
            return message

        return counted

    def _knows_token(self, request: Request) -> bool:
        assert self._token is not None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _is_same(given.strip(), self._token):
            return True
        return _is_same(request.cookies.get(_COOKIE, ""), _cookie_value(self._token))

    def _ask_for_token(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": "the token is missing or wrong"}, 401, {"www-authenticate": "Bearer"})
        return self._pages.render(request, "login.html.j2", status=401, was_wrong=False)

    async def _login(self, request: Request, receive: Receive) -> Response:
        """Take the token from the form once; from then on the browser sends a cookie that is made of it."""
        if self._token is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return self._pages.render(request, "login.html.j2", was_wrong=False)
        try:
            async with asyncio.timeout(self._login_within_s):
                form = await Request(request.scope, self._bounded(request, receive)).form(max_files=0, max_fields=4)
        except TimeoutError:
            return _told(408, f"the form did not come within {self._login_within_s:g} s")
        except HTTPException as error:  # nobody behind this door would answer it
            return _told(error.status_code, str(error.detail))
        if not _is_same(str(form.get("token", "")).strip(), self._token):
            return self._pages.render(request, "login.html.j2", status=401, was_wrong=True)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(_COOKIE, _cookie_value(self._token), httponly=True, samesite="strict", secure=secure)
        return answer


async def _answer_and_close(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    answer.headers["connection"] = "close"  # what was refused may still be sending
    await answer(scope, receive, send)


def _told(status: int, reason: str) -> Response:
    return JSONResponse({"detail": reason}, status)


def _too_large(limit: int) -> str:
    return f"larger than the limit of {f'{limit >> 20} MiB' if limit >> 20 else f'{limit >> 10} KiB'}"


def _with_headers(send: Send) -> Send:
    """Add the protecting headers to an answer, where it has none of that name itself."""

    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            names = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _RAW_HEADERS if name not in names]
            message = {**message, "headers": headers}
        await send(message)

    return protected


def _host_of(request: Request) -> str:
    """Return the name in the Host header without its port; empty where there is none, or several, or no name."""
    given = request.headers.getlist("host")
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    return _comparable(found[1].strip("[]")) if found else ""


def _comparable(host: str) -> str:
    """Return a name in lower case, an address in its short form."""
    return str(ipaddress.ip_address(host)) if _is_address(host) else host.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _network_of(request: Request) -> str:
    """Return the address of who asks; of IPv6 the network, in which anybody has addresses without number."""
    host = request.client.host.partition("%")[0] if request.client is not None else ""
    if not _is_address(host):
        return host
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped is not None:
        return host
    return str(ipaddress.ip_network((host, 64), strict=False))


def _path_of(request: Request) -> str:
    """Return the path that is routed by; that of `request.url` is made of the Host header, too."""
    return request.scope["path"]


def _is_from_here(request: Request) -> bool:
    """Tell whether a write comes from one of our pages, or from no browser at all: those name no origin."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or origin == f"{request.url.scheme}://{request.headers.get('host', '')}"


def _cookie_value(token: str) -> str:
    """Return what a browser keeps in place of the token: it outlives a restart, and does not tell the token."""
    return hmac.new(token.encode(), b"mama_ray app cookie", hashlib.sha256).hexdigest()


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
