"""The caller's page in a real browser: a call that outlives a reload and the agent's death."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from agent_worker.development.develop import ensure_agent
from agent_worker.development.page import PageServer
from agent_worker.settings import LiveKitSettings
from agent_worker.worker.rooms import Rooms
from conversation_actors import Heartbeats
from tests.browser import chromium_missing, open_page
from tests.e2e.calls import BACK, CALL, GREETING, UTTERANCE
from tests.e2e.scene import Scene
from tests.servers import wait_until
from tests.workers import kill

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]
_MILLISECONDS = UTTERANCE * 1000


@asynccontextmanager
async def caller_page(scene: Scene) -> "AsyncIterator[Page]":
    """The page of this test's room, in a browser, as `dev` serves it."""
    if missing := chromium_missing():
        pytest.skip(missing)
    livekit = LiveKitSettings(
        url=scene.server.url,
        api_key=scene.server.api_key,
        api_secret=SecretStr(scene.server.api_secret),
        agent_name=scene.agent_name,
    )
    async with Heartbeats(scene.settings) as heartbeats, Rooms(livekit) as rooms:

        async def bring_agent(room: str) -> None:
            await ensure_agent(room, scene.agent_name, heartbeats, rooms)

        server = PageServer(*livekit.require(), scene.agent_name, key="a-key", on_join=bring_agent)
        async with server, open_page() as page:
            address, _, key = server.url.partition("#")
            await page.goto(f"{address}?room={scene.room}#{key}")
            yield page


async def caption(page: "Page", words: str, *, speaker: str = "agent") -> None:
    """Wait until somebody's words are there to read."""
    lines = page.locator(f"#captions li[data-speaker={speaker}]").filter(has_text=words)
    await lines.first.wait_for(timeout=_MILLISECONDS)


async def times_captioned(page: "Page", words: str) -> int:
    """How often the agent's captions have words."""
    return await page.locator("#captions li[data-speaker=agent]").filter(has_text=words).count()


async def say(page: "Page", text: str) -> None:
    """Type something, and send it."""
    await page.fill("#text", text)
    await page.click("#send")


async def identity(page: "Page") -> str:
    """Who the page is in the room."""
    told = await page.evaluate("() => window.callState.identity")
    assert isinstance(told, str)
    return told


async def test_reload_and_death_of_the_agent(common_scene: Scene) -> None:
    """Reloaded, it is the same person in the same call, greeted once; and it reads on when the agent is replaced."""
    async with caller_page(common_scene) as page:
        await page.click("#join")
        await caption(page, GREETING)
        await say(page, CALL.turns[0].user)
        await caption(page, CALL.turns[0].reply[-20:])
        before, agent = await identity(page), await common_scene.agent()
        await page.reload()
        await page.wait_for_selector("#status[data-state=connected]", timeout=_MILLISECONDS)
        await say(page, CALL.turns[1].user)
        await caption(page, CALL.turns[1].reply[-20:])
        assert await identity(page) == before
        assert await common_scene.agent() == agent
        assert await times_captioned(page, GREETING) == 0

        async def is_answered() -> bool:
            # an answer is in the history when it has been spoken to its end
            return (await common_scene.stored()).said[-1] == ("assistant", CALL.turns[1].reply)

        await wait_until(is_answered, "the answer to be in the history", patience=UTTERANCE)
        kill(agent[1])
        await caption(page, BACK)
        await say(page, CALL.turns[2].user)
        await caption(page, CALL.turns[2].reply[-20:])
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(3))
    assert list(kept.participants) == [before]
    assert kept.participants[before].reconnect_count == 1
