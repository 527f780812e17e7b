"""How many requests are worked on at a time."""

import asyncio

import httpx

from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.security import Doorkeeper


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


def test_a_request_that_fails_frees_its_place():
    async def run() -> list[int]:
        async def broken(scope, receive, send) -> None:
            raise RuntimeError("inside")

        door = Doorkeeper(broken, pages=Pages(), token=None, max_upload_bytes=1, max_clients=1)
        transport = httpx.ASGITransport(door, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [(await client.get("/")).status_code for _ in range(3)]

    assert asyncio.run(run()) == [500, 500, 500]
