"""Callers who hear the agent later than they talk to it: their browser takes its time to subscribe."""

import pytest

from tests.e2e.calls import CALL, UTTERANCE, hear
from tests.e2e.scene import Scene
from tests.support.servers import wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("agent", ["eager", "hasty"])
async def test_an_agent_interrupted_before_anybody_hears_it_is_heard_afterwards(scene: Scene, agent: str) -> None:
    """A line typed into the greeting that nobody hears yet interrupts it; the answer is audible all the same."""
    line = CALL.turns[0]
    await scene.worker("--entrypoint", f"tests.e2e.plain_agents:{agent}")
    async with scene.caller(is_deaf=True) as caller:
        present = await caller.wait_agent(UTTERANCE)

        async def has_a_track() -> bool:
            return bool(caller.rtc_room.remote_participants[present.identity].track_publications)

        await wait_until(has_a_track, "the agent's track", patience=UTTERANCE)
        sent = await caller.chat(line.user)

        async def was_read() -> bool:
            return line.user in (await scene.stored()).by_user()

        await wait_until(was_read, "the typed line to be stored", patience=UTTERANCE)
        caller.listen()
        await hear(caller, line.reply, after=sent)
