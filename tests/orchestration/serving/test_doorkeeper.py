"""Who is let in, and how many at a time, without a server's process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware

from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.security import Doorkeeper
from tests.orchestration.serving.empty_app import app_without_clips

TOKEN = "0123456789abcdef"


def guarded_app() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/api/secret", lambda: "told")
    app.add_middleware(Doorkeeper, pages=Pages(), token=TOKEN, max_upload_bytes=1 << 20)
    return app


def asked(app, method: str, path: str, **more) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


@pytest.mark.parametrize("host", ["127.0.0.1/static/app.css?", "127.0.0.1?", "127.0.0.1#", "me@127.0.0.1", "", "[::1"])
def test_a_host_with_more_than_name_and_port_is_none_of_ours(host):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert asked(guarded_app(), "GET", "/api/secret", headers={**bearer, "host": host}).status_code == 400
    assert asked(guarded_app(), "GET", "/api/secret", headers={**bearer, "host": "[::1]:8765"}).json() == "told"


@pytest.mark.parametrize(
    ("listens_on", "host", "status"),
    [
        ("0.0.0.0", "192.168.1.5:8765", 200),
        ("::", "[fd00:0::1]:8765", 200),
        ("0.0.0.0", "evil.example", 400),
        ("0.0.0.0", "192.168.1.5.evil.example", 400),
        ("127.0.0.1", "192.168.1.5", 400),
        ("fd00::1", "[fd00:0:0::1]", 200),
    ],
)
def test_an_address_is_ours_where_the_app_listens_on_all_of_them_and_a_name_is_not(listens_on, host, status):
    app = FastAPI()
    app.add_api_route("/", lambda: "told")
    app.add_middleware(Doorkeeper, pages=Pages(), token=None, hosts=[listens_on], max_upload_bytes=1)
    assert asked(app, "GET", "/", headers={"host": host}).status_code == status


def test_cookies_of_other_apps_of_the_machine_do_not_hide_ours():
    given = asked(guarded_app(), "POST", "/login", data={"token": TOKEN})
    ours = given.headers["set-cookie"].partition(";")[0]
    cookies = {"cookie": f'theirs={{"a": 1}}; {ours}'}
    assert asked(guarded_app(), "GET", "/api/secret", headers=cookies).json() == "told"


def test_a_form_of_the_token_that_is_too_large_or_broken_is_refused_and_no_fault_of_ours():
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"token=" + b"a" * 4096

    form = {"content-type": "application/x-www-form-urlencoded"}
    assert asked(guarded_app(), "POST", "/login", content=endless(), headers=form).status_code == 413
    told = asked(guarded_app(), "POST", "/login", content=b"token=" + b"a" * (1 << 14), headers=form)
    assert (told.status_code, told.json()["detail"]) == (413, "larger than the limit of 8 KiB")
    broken = {"content-type": "multipart/form-data; boundary=b"}
    assert asked(guarded_app(), "POST", "/login", content=b"no form", headers=broken).status_code == 400


def test_an_answer_to_what_nobody_foresaw_is_protected_as_all_are(tmp_path: Path):
    app = app_without_clips(tmp_path)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("inside")

    answer = asked(app, "GET", "/broken", headers={"accept": "text/html"})
    assert answer.status_code == 500
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "inside" not in answer.text


def test_a_browser_that_is_closed_during_an_upload_is_no_fault_and_leaves_nothing(tmp_path: Path):
    app, answers = app_without_clips(tmp_path, narrator="any"), []
    scope = {
        "type": "http", "method": "POST", "path": "/api/uploads", "query_string": b"name=a.mp4", "scheme": "http",
        "headers": [(b"host", b"127.0.0.1")], "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def leave() -> dict:
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        answers.append(message)

    asyncio.run(app(scope, leave, send))
    assert answers[0]["status"] == 400
    assert not list((tmp_path / "narrations").iterdir())


def test_requests_beyond_the_limit_are_asked_to_come_again_and_then_let_in():
    async def run() -> list[int]:
        goes_on, has_begun = asyncio.Event(), asyncio.Event()

        async def slow(scope, receive, send) -> None:
            has_begun.set()
            await goes_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        door = Doorkeeper(slow, pages=Pages(), token=None, max_upload_bytes=1, max_clients=1)
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            first = asyncio.create_task(client.get("/"))
            await has_begun.wait()
            second = await client.get("/")
            goes_on.set()
            third = await client.get("/") if (await first).status_code == 200 else second
            return [first.result().status_code, second.status_code, third.status_code]

    assert asyncio.run(run()) == [200, 503, 200]


def from_address(door: Doorkeeper, host: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(door, client=(host, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    ("stranger", "neighbour", "other"),
    [
        ("fe80::7:1%2", "fe80::7:2", "10.0.0.2"),
        ("fd00:0:0:1::1", "fd00:0:0:1::2", "fd00:0:0:2::1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.2"),
    ],
)
def test_forms_of_the_token_that_never_end_take_no_place_of_others_and_are_given_up(stranger, neighbour, other):
    async def trickles() -> AsyncIterator[bytes]:
        while True:
            yield b"a"
            await asyncio.sleep(0.01)

    async def run() -> list[int]:
        door = Doorkeeper(
            guarded_app(), pages=Pages(), token=TOKEN, max_upload_bytes=1, max_clients=1, login_within_s=0.5
        )
        form = {"content-type": "application/x-www-form-urlencoded"}
        async with from_address(door, stranger) as slow_one, from_address(door, other) as client:
            slow = [asyncio.create_task(slow_one.post("/login", content=trickles(), headers=form)) for _ in range(8)]
            await asyncio.sleep(0.1)
            async with from_address(door, neighbour) as third:
                late = await third.post("/login", data={"token": TOKEN})
            others = [await client.get("/login"), await client.post("/login", data={"token": TOKEN})]
            known = await client.get("/api/secret", headers={"authorization": f"Bearer {TOKEN}"})
            given_up = {answer.status_code for answer in await asyncio.gather(*slow)}
            after = await slow_one.post("/login", data={"token": TOKEN})
            return [
                late.status_code,
                *[one.status_code for one in others],
                known.status_code,
                *given_up,
                after.status_code,
            ]

    assert asyncio.run(run()) == [503, 200, 303, 200, 408, 303]


def test_strangers_who_do_not_read_what_is_open_to_them_take_no_place_of_others():
    async def run() -> int:
        door = Doorkeeper(guarded_app(), pages=Pages(), token=TOKEN, max_upload_bytes=1, max_clients=1)
        scope = {"type": "http", "method": "GET", "path": "/static/app.css", "headers": [(b"host", b"127.0.0.1")]}
        is_stuck = asyncio.Event()

        async def never_read(message: dict) -> None:
            is_stuck.set()
            await asyncio.Event().wait()

        more = {"query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("10.0.0.1", 1)}
        stranger = asyncio.create_task(door(scope | more, asyncio.Event().wait, never_read))
        await is_stuck.wait()
        async with from_address(door, "10.0.0.2") as client:
            answer = await client.get("/api/secret", headers={"authorization": f"Bearer {TOKEN}"})
        stranger.cancel()
        return answer.status_code

    assert asyncio.run(run()) == 200


def test_a_body_that_stops_coming_frees_its_place_and_an_answer_that_takes_long_is_waited_for():
    async def read_all(scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        left = asyncio.ensure_future(receive())  # as an answer in events watches for its client's leave
        await asyncio.sleep(0.3)
        assert not left.done()
        left.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def stops() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.Event().wait()

    async def run() -> list[int]:
        inner = ExceptionMiddleware(read_all)
        door = Doorkeeper(inner, pages=Pages(), token=None, max_upload_bytes=9, max_clients=1, patience_s=0.1)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://127.0.0.1") as client:
            return [(await client.post("/", content=body)).status_code for body in (stops(), b"whole", stops())]

    assert asyncio.run(run()) == [408, 200, 408]


def test_a_request_that_fails_frees_its_place():
    async def run() -> list[int]:
        async def broken(scope, receive, send) -> None:
            raise RuntimeError("inside")

        door = Doorkeeper(broken, pages=Pages(), token=None, max_upload_bytes=1, max_clients=1)
        transport = httpx.ASGITransport(door, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [(await client.get("/")).status_code for _ in range(3)]

    assert asyncio.run(run()) == [500, 500, 500]
