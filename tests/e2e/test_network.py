"""A caller whose network goes away and comes back, on a second host of this machine."""

import asyncio

import pytest

from tests.e2e.calls import GREETING, hear, times_heard, turn
from tests.e2e.scene import Scene
from tests.support.distant import DistantCaller
from tests.support.livekit_server import LiveKitServer
from tests.support.netns import SecondHost

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

AWAY_SECONDS = 10.0


async def test_ten_seconds_without_network(
    scene: Scene, reachable_livekit_server: LiveKitServer, second_host: SecondHost
) -> None:
    """The call goes on where it was: the same agent, no second greeting, the history whole."""
    scene.server = reachable_livekit_server
    await scene.worker(**reachable_livekit_server.env)
    async with DistantCaller(reachable_livekit_server, room=scene.room, prefix=second_host.prefix) as caller:
        await reachable_livekit_server.create_dispatch(scene.agent_name, scene.room)
        await hear(caller, GREETING, after=0)
        await turn(caller, 0)
        before, _ = await scene.agent()
        second_host.cut()
        await asyncio.sleep(AWAY_SECONDS)  # the time is the subject
        second_host.mend()
        await turn(caller, 1)
        await turn(caller, 2)
        kept = await scene.stored()
    kept.assert_nothing_lost(range(3))
    assert (await scene.agent())[0] == before
    assert times_heard(caller, GREETING) == 1
    assert kept.participants["caller"].reconnect_count == 0
