"""Callers who hear the agent later than they talk to it: their browser takes its time to subscribe."""

from collections.abc import Iterator, Mapping

import pytest

from tests.e2e.calls import CALL, UTTERANCE, dispatch, hear
from tests.e2e.scene import Scene, SharedWorker, shared_worker
from tests.support.caller import Caller
from tests.support.servers import wait_until
from tests.support.workers import OfflineModels

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def worker(
    worker_environment: Mapping[str, str], models: OfflineModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorker]:
    """The worker of both agents."""
    directory, environment = tmp_path_factory.mktemp("first"), {**worker_environment, **models.environment}
    with shared_worker(directory, environment, "tests.e2e.plain_agents:speaking_first") as started:
        yield started


@pytest.mark.parametrize("agent", ["eager", "hasty"])
async def test_an_agent_interrupted_before_anybody_hears_it_is_heard_afterwards(
    scene: Scene, worker: SharedWorker, agent: str
) -> None:
    """A line typed into the greeting that nobody hears yet interrupts it; the answer is audible all the same."""
    line = CALL.turns[0]
    by_token = dispatch(worker.agent_name, agent)
    async with Caller(scene.server, room=scene.room, dispatch=by_token, is_deaf=True) as caller:
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
