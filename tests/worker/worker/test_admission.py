"""A worker that LiveKit's server would refuse for ever is told so once, at its start."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import SecretStr

from agent_worker.settings import LiveKitSettings
from agent_worker.worker.admission import check_admission
from conversation_actors import InvalidInputError
from tests.support.servers import free_port


@asynccontextmanager
async def livekit_that_answers(status: int) -> AsyncIterator[str]:
    """A server that answers every request alike; its URL."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _settings(url: str) -> LiveKitSettings:
    return LiveKitSettings(url=url, api_key="key", api_secret=SecretStr("s" * 32))


async def test_a_key_that_is_refused_is_one_sentence() -> None:
    """It names the server and the two variables, and no secret."""
    async with livekit_that_answers(401) as url:
        with pytest.raises(InvalidInputError) as error:
            await check_admission(_settings(url))
    assert str(error.value).startswith(f"api_key: {url} refuses LIVEKIT_API_KEY and LIVEKIT_API_SECRET")
    assert "ssss" not in str(error.value)


async def test_a_key_that_is_taken_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said."""
    caplog.set_level(logging.INFO, "agent_worker")
    async with livekit_that_answers(200) as url:
        await check_admission(_settings(url))
    assert not caplog.records


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_another_refusal_is_a_line_in_the_log(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A proxy that is not ready, a key that may not list rooms: the worker tries by itself."""
    async with livekit_that_answers(status) as url:
        await check_admission(_settings(url))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_server_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """It may come later: one line tells that it is waited for."""
    await check_admission(_settings(f"ws://127.0.0.1:{free_port()}"))
    assert ["waited for" in record.message for record in caplog.records] == [True]
    assert [record.__dict__["reason"] for record in caplog.records] == ["nobody listens there"]
