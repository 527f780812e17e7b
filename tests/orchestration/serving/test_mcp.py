"""An assistant asks the app by the Model Context Protocol, with the protocol's own client."""

import asyncio

import pytest

from tests.orchestration.serving.app_process import RunningApp
from tests.orchestration.serving.narrate.narrations import client_of, no_narrator, send

pytest.importorskip("mcp")


def ask(app: RunningApp, tool: str, **arguments):
    from mcp import Client

    async def whole():
        async with Client(f"{app.url}/mcp") as client:
            tools = [one.name for one in (await client.list_tools()).tools]
            return tools, await client.call_tool(tool, arguments)

    return asyncio.run(whole())


def test_tools_are_told_and_what_is_missing_is_an_error_with_its_reason(bare_app):
    tools, answer = ask(bare_app, "search", plus=["a red circle"])
    assert tools == ["search", "narrations", "narration"]
    assert answer.is_error and "Search needs an encoder" in answer.content[0].text
    assert not ask(bare_app, "narrations")[1].is_error
    assert "no such narration" in ask(bare_app, "narration", id="x")[1].content[0].text
    assert "limit: Input should be" in ask(bare_app, "search", plus=["a"], limit=0)[1].content[0].text


def test_the_doorkeeper_stands_before_it(tmp_path, small_shards):
    with client_of(small_shards, tmp_path / "data", narrator=no_narrator(tmp_path)) as client:
        assert send(client).status_code == 201
        assert client.post("/mcp", headers={"origin": "http://elsewhere"}, json={}).status_code == 403
        assert client.post("/mcp", headers={"host": "elsewhere"}, json={}).status_code == 400
