"""A call with a realtime model is a call like any other: greeted once, resumed, and not ended by its provider."""

from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
import pytest_asyncio

from agent_worker.offline import OfflineServer
from agent_worker.offline.realtime_behaviour import RealtimeBehaviour
from agent_worker.offline.script import Reply, RequestedCall
from tests.unit.fakes import until
from tests.worker.answering import BACK, Answer, crash, texts
from tests.worker.fakes_call import FakeParticipant, FakeRoom, World
from tests.worker.realtime_calls import Concierge, Microphone, obedient
from tests.worker.test_speaking import Loudspeaker


def _answers(said: str) -> Reply:
    if said == "A table for two":
        return Reply(calls=(RequestedCall("call_1", "book", '{"table": "two"}'),))
    return Reply(f"You said {said}.")


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """The models' connections."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture
async def models() -> AsyncIterator[OfflineServer]:
    """Where the models are."""
    async with OfflineServer(obedient(_answers)) as server:
        yield server


async def test_it_greets_once_and_comes_back(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """The successor says that it is back, once, knows what was said, and uses its tools."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    async with answer(
        FakeRoom(alice), agent=Concierge(models, http), greeting="", output=Loudspeaker(), microphone=microphone
    ) as running:
        await running.is_known("Good evening.")
        microphone.say("Hello")
        await running.is_known("You said Hello.")
        assert texts(running.call.items) == ["Good evening.", "Hello", "You said Hello."]
        await crash(running)
    microphone = Microphone()
    async with answer(
        FakeRoom(alice), "job-2", agent=Concierge(models, http), output=Loudspeaker(), microphone=microphone
    ) as running:
        await running.is_known(BACK)
        microphone.say("A table for two")
        await running.is_known("A table for two is booked.")
        assert texts(running.call.items) == [
            "Good evening.", "Hello", "You said Hello.", BACK, "A table for two", "A table for two is booked.",
        ]  # fmt: skip
        roles = [one["role"] for one in models.responses[-1].messages]
        assert roles == ["system", "assistant", "user", "assistant", "assistant", "user", "assistant", "tool"]
