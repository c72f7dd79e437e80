"""An HTTP server's life, which the health endpoint, the caller's page and the offline models share."""

import aiohttp
import pytest
from aiohttp import web

from agent_worker.listening import Listening

HOST = "127.0.0.1"


def application() -> web.Application:
    """Says hello."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    return app


async def test_a_server_listens_from_its_entry_to_its_end() -> None:
    """On a free port where none is named; before and afterwards it has none."""
    listening = Listening(application(), host=HOST, port=0)
    with pytest.raises(RuntimeError, match="not running"):
        assert listening.port
    async with listening, aiohttp.ClientSession() as client:
        port = listening.port
        async with client.get(f"http://{HOST}:{port}/") as answer:
            assert await answer.text() == "hello"
    with pytest.raises(RuntimeError, match="not running"):
        assert listening.port


async def test_a_port_that_is_taken_leaves_nothing_behind() -> None:
    """The second server is not running afterwards, the first one goes on."""
    async with Listening(application(), host=HOST, port=0) as first:
        second = Listening(application(), host=HOST, port=first.port)
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()
        with pytest.raises(RuntimeError, match="not running"):
            assert second.port
        assert first.port
