"""The caller's page in a real browser: a call that outlives a reload and the agent's death."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from agent_worker.development.agent_calls import AgentCalls
from agent_worker.development.develop import ensure_agent
from agent_worker.development.page import PageServer
from agent_worker.development.stored_lines import StoredConversations
from agent_worker.settings import LiveKitSettings
from agent_worker.worker.rooms import Rooms
from conversation_actors import Heartbeats
from tests.e2e.calls import BACK, CALL, GREETING, UTTERANCE
from tests.e2e.scene import Scene
from tests.support.browser import DESKTOP, PHONE, chromium_missing, open_page
from tests.support.processes import kill
from tests.support.servers import wait_until

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
    async with (
        Heartbeats(scene.settings) as heartbeats,
        Rooms(livekit) as rooms,
        StoredConversations(scene.settings) as conversations,
    ):

        async def bring_agent(room: str) -> None:
            await ensure_agent(room, scene.agent_name, heartbeats, rooms)

        calls = AgentCalls(bring_agent, lambda: True)
        server = PageServer(
            *livekit.require(),
            scene.agent_name,
            key="a-key",
            on_join=calls.joining,
            on_missing=calls.missing,
            read=conversations.read,
        )
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


async def photograph(page: "Page", directory: Path, what: str) -> None:
    """Keep what the page looks like: on a desktop, a phone and the narrowest screen, light and dark."""
    for name, (width, height), scheme in (
        ("desktop", DESKTOP, "light"),
        ("dark", DESKTOP, "dark"),
        ("phone", PHONE, "light"),
        ("narrow", (320, 640), "light"),
        ("narrow-dark", (320, 640), "dark"),
    ):
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.screenshot(path=directory / f"page-{what}-{name}.png")
    await page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    await page.emulate_media(color_scheme="light")


async def test_reload_and_death_of_the_agent(common_scene: Scene, tmp_path: Path) -> None:
    """Reloaded, it is the same person in the same call, greeted once; and it reads on when the agent is replaced.

    What was said before is there again, behind a reload of the page, and of one whose agent was killed.
    """
    async with caller_page(common_scene) as page:
        await page.click("#join")
        await caption(page, GREETING)
        await say(page, CALL.turns[0].user)
        await caption(page, CALL.turns[0].reply[-20:])
        before, agent = await identity(page), await common_scene.agent()
        await photograph(page, tmp_path, "call")
        await page.reload()
        await page.wait_for_selector("#status[data-state=connected]", timeout=_MILLISECONDS)
        await say(page, CALL.turns[1].user)
        await caption(page, CALL.turns[1].reply[-20:])
        assert await identity(page) == before
        assert await common_scene.agent() == agent
        assert await times_captioned(page, GREETING) == 1
        assert await times_captioned(page, CALL.turns[0].reply) == 1
        await caption(page, CALL.turns[0].user, speaker="you")

        async def is_answered() -> bool:
            # an answer is in the history when it has been spoken to its end
            return (await common_scene.stored()).said[-1] == ("assistant", CALL.turns[1].reply)

        await wait_until(is_answered, "the answer to be in the history", patience=UTTERANCE)
        kill(agent[1])
        await caption(page, BACK)
        await page.reload()
        await caption(page, CALL.turns[1].reply)
        await photograph(page, tmp_path, "killed")
        await say(page, CALL.turns[2].user)
        await caption(page, CALL.turns[2].reply[-20:])
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(3))
    assert list(kept.participants) == [before]
    # the agent may see the second reload's devices come and go in either order
    assert kept.participants[before].reconnect_count in {1, 2}


async def test_typed_at_the_moment_of_the_agents_death(common_scene: Scene, tmp_path: Path) -> None:
    """The next agent comes by itself, and answers what was typed to the dead one, behind a reload and without one.

    LiveKit shows the dead agent for seconds, and takes what is sent to it.
    """
    async with caller_page(common_scene) as page:
        await page.click("#join")
        await caption(page, GREETING)
        await say(page, CALL.turns[0].user)
        await caption(page, CALL.turns[0].reply[-20:])
        await common_scene.settled()
        dead, pid = await common_scene.agent()
        killed = kill(pid)
        await page.reload()
        await page.wait_for_selector("#status[data-state=connected]", timeout=_MILLISECONDS)
        await say(page, CALL.turns[1].user)
        await photograph(page, tmp_path, "dead")
        await caption(page, CALL.turns[1].reply[-20:])
        common_scene.record("typed behind a reload to a dead agent: answered after", time.monotonic() - killed)
        await photograph(page, tmp_path, "answered")
        await common_scene.settled()
        _, pid = await common_scene.agent(other_than=dead)
        killed = kill(pid)
        await say(page, CALL.turns[2].user)
        await caption(page, CALL.turns[2].reply[-20:])
        common_scene.record("typed to a dead agent: answered after", time.monotonic() - killed)
        assert await page.locator("#captions li[data-speaker=you]").count() == 3
        kept = await common_scene.stored()
    kept.assert_nothing_lost(range(3))
