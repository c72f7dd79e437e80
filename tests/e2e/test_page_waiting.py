"""Who opens the page too early, or while a server is away: an agent comes without a reload, and gets what was typed."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_worker.offline.transcript import bundled, load
from tests.e2e import application, late_application
from tests.e2e.calls import UTTERANCE
from tests.e2e.scene import Scene
from tests.support.browser import chromium_missing, open_page
from tests.support.livekit_server import LiveKitServer
from tests.support.programs import Program
from tests.support.servers import free_port, wait_until

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(240),
    pytest.mark.skipif(chromium_missing() is not None, reason=str(chromium_missing())),
]
_MILLISECONDS = UTTERANCE * 1000
_CALL = load(bundled())
"""What `dev --offline` follows."""


@dataclass
class Developer:
    """Somebody who has started a worker, and has its page in a bookmark: its tokens are open, its port is fixed."""

    server: LiveKitServer
    process: Program
    address: str

    @asynccontextmanager
    async def page(self, room: str) -> "AsyncIterator[Page]":
        """The page of a room, as soon as it can be opened."""
        async with open_page() as tab:
            url = f"{self.address}?room={room}"

            async def is_open() -> bool:
                assert self.process.process.poll() is None, self.process.log()
                answer = await tab.request.get(url, fail_on_status_code=False) if await self._listens() else None
                return answer is not None and answer.ok

            await wait_until(is_open, "the page", patience=UTTERANCE)
            await tab.goto(url)
            yield tab

    async def _listens(self) -> bool:
        port = int(re.findall(r":(\d+)/", self.address)[0])
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    def told(self) -> list[str]:
        """What the terminal shows that no log has written."""
        return [line for line in self.process.log().splitlines() if not re.match(r"[\d:T.Z +-]+ [A-Z]+ ", line)]


@asynccontextmanager
async def developer(scene: Scene, server: LiveKitServer, directory: Path, *, late: float) -> AsyncIterator[Developer]:
    """A worker of ``dev --offline`` that is registered `late` by so many seconds."""
    port = free_port()
    environment = {
        **scene.environment,
        **server.env,
        application.NOTES: str(directory / "notes"),
        application.NAME: f"agent-{secrets.token_hex(4)}",
        late_application.LATE: str(late),
        "AGENT_OPEN_TOKENS": "1",
        "AGENT_PAGE_PORT": str(port),
        "CONVERSATION_TENANT": secrets.token_hex(8),
    }
    process = Program(
        directory / "dev", environment, "-m", "agent_worker", "dev", "--offline", "tests.e2e.late_application"
    )
    scene.workers.append(process)
    yield Developer(server, process.launch(), f"http://127.0.0.1:{port}/")
    process.terminate()
    assert await process.wait_ended() == 0


async def say(tab: "Page", text: str) -> None:
    """Type something, and send it."""
    await tab.fill("#text", text)
    await tab.click("#send")


async def caption(tab: "Page", words: str, *, speaker: str = "agent") -> None:
    """Wait until somebody's words are there to read."""
    lines = tab.locator(f"#captions li[data-speaker={speaker}]").filter(has_text=words)
    await lines.first.wait_for(timeout=_MILLISECONDS)


@pytest.mark.long
async def test_a_page_that_is_opened_long_before_the_worker_is_registered(
    scene: Scene, own_livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    """Half a minute: it waits as long; then its agent comes by itself, once, and answers what was typed."""
    late = 30.0
    async with developer(scene, own_livekit_server, tmp_path, late=late) as one, one.page("early") as tab:
        await _comes_early(one, tab)
        started = time.monotonic()
        await tab.wait_for_selector("#status[data-state=connected]", timeout=_MILLISECONDS + late * 1000)
        scene.record(f"registered {late:g} s late: the page waited for its agent", time.monotonic() - started)
        await caption(tab, _CALL.turns[0].reply[-20:])
        first, second = one.told()[:2]
        assert first.startswith("Starting the agent")
        assert second.startswith("Still starting") or second == f"Talk to the agent: {one.address}"
        await _has_one_agent_and(tab, lines=1)


async def test_a_page_that_is_opened_too_early_and_whose_livekit_server_starts_anew(
    scene: Scene, own_livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    """Killed before the worker is registered and again behind it: the page comes back, and so does an agent."""
    async with developer(scene, own_livekit_server, tmp_path, late=5.0) as one, one.page("anew") as tab:
        await _comes_early(one, tab)
        for number in range(2):
            own_livekit_server.kill()
            await tab.wait_for_selector("#status:is([data-state=retrying], [data-state=reconnecting])")
            if number:
                await say(tab, _CALL.turns[number].user)
            own_livekit_server.start()
            back = time.monotonic()
            await tab.wait_for_selector("#status[data-state=connected]", timeout=_MILLISECONDS)
            scene.record(f"LiveKit started anew ({number}): the page waited for its agent", time.monotonic() - back)
            await caption(tab, _CALL.turns[number].reply[-20:])
            await _has_one_agent_and(tab, lines=number + 1)


async def _comes_early(one: Developer, tab: "Page") -> None:
    """Join, type something, and look again behind a refresh: the page says what it waits for, and the line is there."""
    await tab.click("#join")
    await say(tab, _CALL.turns[0].user)
    status = tab.locator("#status", has_text="its worker is not registered yet")
    await status.wait_for(timeout=_MILLISECONDS)
    assert not any(line.startswith("Talk to the agent") for line in one.told())
    await tab.reload()
    await status.wait_for(timeout=_MILLISECONDS)
    await caption(tab, _CALL.turns[0].user, speaker="you")


async def _has_one_agent_and(tab: "Page", *, lines: int) -> None:
    assert await tab.locator("#people [data-role=agent]").count() == 1
    assert await tab.locator("#captions li[data-speaker=you]").count() == lines
