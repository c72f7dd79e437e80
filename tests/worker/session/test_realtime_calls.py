"""A call with a realtime model is a call like any other: greeted once, resumed, and not ended by its provider."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

import aiohttp
import pytest
from livekit.agents import APIConnectOptions, function_tool
from livekit.agents.llm import FunctionCall, FunctionCallOutput, InputTranscriptionCompleted
from livekit.plugins import openai
from openai import AsyncOpenAI

from agent_worker.call.opening import NOT_FINISHED
from agent_worker.offline import OfflineServer
from agent_worker.offline.realtime_behaviour import RealtimeRequest
from agent_worker.offline.script import Reply
from agent_worker.session.notes import TRANSCRIPT
from tests.support.fakes import turns, until
from tests.support.sessions.answering import BACK, Answer, assistant, crash, seed, texts, user
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.realtime_calls import (
    Concierge,
    Loudspeaker,
    Microphone,
    answer_guest,
    obedient,
    reconnecting,
)

CALL = FunctionCall(id="item_1/fnc_0", call_id="call_1", name="book", arguments="{}")
OUTPUT = FunctionCallOutput(id="item_1/out", call_id="call_1", name="book", output="In Kiel.", is_error=False)


class Held(OfflineServer):
    """A provider that takes its time over an answer."""

    may_answer: asyncio.Event

    async def __aenter__(self) -> Self:
        """Listen, and answer nothing yet."""
        self.may_answer = asyncio.Event()
        await super().__aenter__()
        return self

    async def respond(self, request: RealtimeRequest) -> Reply:
        """Answer when it may."""
        reply = await super().respond(request)
        await self.may_answer.wait()
        return reply


async def test_a_realtime_agent_greets_once_and_says_that_it_is_back(
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


async def test_a_realtime_model_speaks_our_lines(
    answer: Answer, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """The application wants a greeting, and has no voice for it but the model's."""
    room, agent = FakeRoom(), Concierge(models, http, is_greeting=False)
    async with answer(room, agent=agent, greeting="Good day.", output=Loudspeaker()) as running:
        room.enter(FakeParticipant("alice"))
        await running.is_known("Good day.")
        assert len(models.responses) == 1


async def test_what_was_unanswered_is_answered_with_the_line(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """In one reply, once; the agent's instructions stay in force, and are there once."""
    alice = await seed(world, assistant("Good evening."), user("Is there a pool?"))
    agent = Concierge(models, http)
    async with answer(FakeRoom(alice), "job-2", agent=agent, output=Loudspeaker()) as running:
        await running.is_known(f"{BACK} You said Is there a pool?.")
        await running.session_is_calm()
        [asked] = models.responses
        assert asked.messages[0]["content"].startswith("You are the concierge of a hotel.\nSay exactly this first")


async def test_words_that_were_in_no_message_become_one_and_are_answered(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """They become a message of the caller first."""
    noted = {TRANSCRIPT: {"text": "Is there a pool?", "language": "en", "at": 1.0}}
    alice = await seed(world, assistant("Good evening."), attributes=noted)
    agent = Concierge(models, http)
    async with answer(FakeRoom(alice), "job-2", agent=agent, output=Loudspeaker()) as running:
        await running.is_known(f"{BACK} You said Is there a pool?.")
        assert texts(running.call.items)[1] == "Is there a pool?"
        assert [one["content"] for one in models.responses[-1].messages[1:]] == ["Good evening.", "Is there a pool?"]


async def test_a_provider_session_that_ends_is_begun_anew_with_all_that_was_said(
    answer: Answer, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """The plugin begins a new session with the provider: it has all that was said, and the call goes on.

    OpenAI's guide "Realtime conversations", "Session lifecycle events": a session has a maximum duration.
    """
    alice, microphone = FakeParticipant("alice"), Microphone()
    async with answer(
        FakeRoom(alice), agent=Concierge(models, http), greeting="", output=Loudspeaker(), microphone=microphone
    ) as running:
        await running.is_known("Good evening.")
        microphone.say("Hello")
        await running.is_known("You said Hello.")
        async with reconnecting(running):
            await models.expire()
        microphone.say("A table for two")
        await running.is_known("A table for two is booked.")
        said = ["Good evening.", "Hello", "You said Hello.", "A table for two", "A table for two is booked."]
        assert texts(running.call.items) == said
        assert [one.get("content") for one in models.responses[-1].messages[1:5]] == said[:4]
        assert not running.job.ended


async def test_what_the_provider_has_not_answered_is_asked_again(answer: Answer, http: aiohttp.ClientSession) -> None:
    """Its session ended between the caller's words and the answer: the next session is asked for it, once."""
    alice, microphone = FakeParticipant("alice"), Microphone()
    held = Held(obedient(answer_guest))
    async with (
        held,
        answer(
            FakeRoom(alice), agent=Concierge(held, http, is_greeting=False), greeting="", output=Loudspeaker(),
            microphone=microphone,
        ) as running,
    ):  # fmt: skip
        microphone.say("Hello")
        await running.is_known("Hello")
        await until(lambda: len(held.responses) == 1)
        await held.hang_up()
        held.may_answer.set()
        await running.is_known("You said Hello.")
        await running.session_is_calm()
        assert len(held.responses) == 2
        assert texts(running.call.items) == ["Hello", "You said Hello."]


class Slow(Concierge):
    """Has a tool that takes its time."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Nothing is booked yet."""
        super().__init__(*arguments, **named)
        self.booked, self.may_book = 0, asyncio.Event()

    @function_tool
    async def book(self, table: str) -> str:  # type: ignore[override]  # a tool's class names its agent's
        """Book a table.

        Args:
            table: For how many.
        """
        self.booked += 1
        await self.may_book.wait()
        return f"A table for {table} is booked."


@pytest.mark.skipif(
    "turn_started_at" not in InputTranscriptionCompleted.__dataclass_fields__,
    reason="LiveKit 1.6.5 does not tell a provider's new session of a call whose tool runs: the model repeats it",
)
async def test_a_running_tool_counts_as_an_answer_in_a_new_provider_session(
    answer: Answer, models: OfflineServer, http: aiohttp.ClientSession, world: World
) -> None:
    """The provider's session ended meanwhile: the new one is told what the tool gives, and asked for nothing before."""
    world.timing = replace(world.timing, room_lost=0.0)
    agent, microphone = Slow(models, http, is_greeting=False), Microphone()
    async with answer(
        FakeRoom(FakeParticipant("alice")), agent=agent, greeting="", output=Loudspeaker(), microphone=microphone
    ) as running:
        microphone.say("A table for two")
        await until(lambda: agent.booked == 1)
        async with reconnecting(running):
            await models.hang_up()
        await turns()
        agent.may_book.set()
        await running.is_known("A table for two is booked.")
        await running.session_is_calm()
        assert (agent.booked, len(models.responses)) == (1, 2)


async def test_a_provider_that_is_gone_has_the_next_agent_called(answer: Answer, http: aiohttp.ClientSession) -> None:
    """The session fails, and the job ends so that the next agent is called."""
    alice = FakeParticipant("alice")
    server = OfflineServer(obedient(answer_guest))
    async with server:
        agent = Concierge(server, http, conn_options=APIConnectOptions(max_retry=0))
        async with answer(FakeRoom(alice), agent=agent, greeting="", output=Loudspeaker()) as running:
            await running.is_known("Good evening.")
            await server.hang_up()
            assert await running.ended() == NOT_FINISHED


async def test_a_conversation_that_opens_late_reaches_the_provider(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """What was said before is put in front of what the provider has already."""
    alice, microphone = await seed(world, user("Where is it?"), CALL, OUTPUT, assistant("Here.")), Microphone()
    world.may_open.clear()
    agent = Concierge(models, http, is_greeting=False)
    async with answer(
        FakeRoom(alice), "job-2", agent=agent, output=Loudspeaker(), microphone=microphone, back_line=""
    ) as running:
        microphone.say("Hello")
        await until(lambda: "You said Hello." in [one.text_content for one in running.session.history.messages()])
        world.may_open.set()
        await running.is_known("You said Hello.")
        microphone.say("Again")
        await running.is_known("You said Again.")
        told = [one.get("content") for one in models.responses[-1].messages[1:]]
        assert told == ["Where is it?", None, "In Kiel.", "Here.", "Hello", "You said Hello.", "Again"]


async def test_a_model_that_writes_has_a_voice_beside_it(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """The voice says that the agent is back, which is no part of the talk; the model answers what is unanswered."""
    alice = await seed(world, assistant("Good evening."), user("Is there a pool?"))
    async with AsyncOpenAI(base_url=models.base_url, api_key="any", max_retries=0) as client:
        voice = openai.TTS(model="tts-1", client=client, response_format="pcm")
        agent = Concierge(models, http, voice=voice, modalities=["text"])
        async with answer(FakeRoom(alice), "job-2", agent=agent, output=Loudspeaker()) as running:
            await running.is_known("You said Is there a pool?.")
            assert texts(running.call.items) == ["Good evening.", "Is there a pool?", "You said Is there a pool?."]
            assert models.spoken[0] == BACK
            assert len(models.responses) == 1


async def test_a_greeting_of_the_entrypoint_is_not_said_again(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """The model is not asked for it, and whoever awaits it goes on; here, the test is the entrypoint."""
    alice = await seed(world, assistant("Good evening."))
    agent = Concierge(models, http, is_greeting=False)
    async with answer(FakeRoom(alice), "job-2", agent=agent, output=Loudspeaker(), back_line="") as running:
        await running.session.generate_reply(instructions="Greet the guest.")
        await running.session_is_calm()
        assert not models.responses


async def test_late_transcripts_keep_livekits_order_in_the_next_job(
    answer: Answer, world: World, models: OfflineServer, http: aiohttp.ClientSession
) -> None:
    """A provider may tell what was heard behind its answer: the next agent has LiveKit's order of the two.

    LiveKit dates the transcript back since 1.6.8; then it is not answered again.
    """
    alice, microphone = FakeParticipant("alice"), Microphone()
    models.behaviour = replace(models.behaviour, transcripts="late", transcript_delay=timedelta(seconds=0.3))
    async with answer(
        FakeRoom(alice), agent=Concierge(models, http), greeting="", output=Loudspeaker(), microphone=microphone
    ) as running:
        await running.is_known("Good evening.")
        microphone.say("Hello")
        await running.is_known("You said Hello.")
        await running.is_known("Hello")
        told = [one.text_content for one in running.session.history.messages()]
        is_dated_back = "turn_started_at" in InputTranscriptionCompleted.__dataclass_fields__
        said = ["Hello", "You said Hello."] if is_dated_back else ["You said Hello.", "Hello"]
        assert told == ["Good evening.", *said]
        await crash(running)
    async with answer(FakeRoom(alice), "job-2", agent=Concierge(models, http), output=Loudspeaker()) as running:
        await until(lambda: len(running.session.history.messages()) > len(told))
        back = [one.text_content for one in running.session.history.messages()]
        assert back[: len(told)] == told
        assert not is_dated_back or back[len(told) :] == [BACK]
        assert [one["content"] for one in models.responses[-1].messages[1:]] == told[:3]
