"""Tasks that an agent with a realtime model waits for: they go on in a successor as with any model."""

import aiohttp
from livekit.agents import AgentTask, function_tool

from agent_worker.offline import OfflineServer
from agent_worker.session.had_the_word import TASKS
from tests.support.fakes import until
from tests.support.sessions.answering import BACK, Answer, crash, texts
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom
from tests.support.sessions.realtime_calls import Concierge, Loudspeaker, Microphone


class Asking(AgentTask[str]):
    """Asks, and takes what it is told by its tool."""

    def __init__(self, host: "Host") -> None:
        """Speak with the host's model."""
        super().__init__(instructions="Ask the guest.", llm=host.llm, chat_ctx=host.chat_ctx)

    async def on_enter(self) -> None:
        """Ask."""
        await self.session.generate_reply(instructions="Greet the guest.")

    @function_tool
    async def book(self, table: str) -> None:
        """Take the answer.

        Args:
            table: It.
        """
        self.complete(table)


class Host(Concierge):
    """Asks twice as it enters."""

    async def on_enter(self) -> None:
        """Ask."""
        self.answers: list[str] = []
        for _ in range(2):
            self.answers.append(await Asking(self))
        await self.session.generate_reply(instructions="Greet the guest.")


async def test_the_second_task_of_a_realtime_agent_goes_on_without_asking_again(
    answer: Answer,
    models: OfflineServer,
    http: aiohttp.ClientSession,
) -> None:
    """With what was said before, also in the first; its question is not asked again, and the results are there."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    host = Host(models, http)
    async with answer(FakeRoom(alice), agent=host, greeting="", output=Loudspeaker(), microphone=microphone) as running:
        await running.is_known("Good evening.")
        microphone.say("A table for two")
        await until(lambda: texts(running.call.items).count("Good evening.") == 2)
        microphone.say("Hello")
        await running.is_known("You said Hello.")
        await until(lambda: len((running.call.attributes.get(TASKS) or {}).get("done", ())) == 1)
        await running.session_is_calm()
        await crash(running)
    for number in (2, 3):
        host, microphone = Host(models, http), Microphone()
        async with answer(
            FakeRoom(alice), f"job-{number}", agent=host, greeting="", output=Loudspeaker(), microphone=microphone
        ) as running:
            await until(lambda number=number: texts(running.call.items).count(BACK) == number - 1)  # type: ignore[misc]
            assert host.answers == ["two"]
            assert isinstance(running.session.current_agent, Asking)
            await running.session_is_calm()
            if number == 2:
                await crash(running)
                continue
            microphone.say("A table for two")
            await until(lambda: texts(running.call.items).count("Good evening.") == 3)
            assert host.answers == ["two", "two"]
            assert texts(running.call.items) == [
                "Good evening.", "A table for two", "Good evening.", "Hello", "You said Hello.", BACK, BACK,
                "A table for two", "Good evening.",
            ]  # fmt: skip
            assert running.call.failures.counts == {}
