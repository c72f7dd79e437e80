"""The last line: said once, to somebody who is there, before the application ends the call; never where it goes on."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from livekit import api, rtc
from livekit.agents import Agent, ModelSettings, RunContext, function_tool
from livekit.agents.voice.io import TimedString
from livekit.protocol.room import RoomParticipantIdentity

from agent_worker.call import farewell
from agent_worker.call.ending import JOB_TASK
from agent_worker.call.person_notes import PersonNotes
from agent_worker.call.speaking import Speaking
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.timing import TIMING
from tests.support.fakes import turns, until
from tests.support.sessions.answering import Answer, Running, assistant, seed, texts
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.fakes_realtime import FakeRealtime
from tests.support.sessions.fakes_room import FunctionScript
from tests.support.sessions.realtime_calls import Loudspeaker
from tests.support.sessions.room_service import ENDED, Asked, end_room
from tests.worker.call.test_speaking import spoken

LINE = {"en": "Goodbye, {name}.", "de": "Auf Wiederhören, {name}."}
SAID = "Goodbye, Ada."


def ada(**told: Any) -> FakeParticipant:
    """The caller."""
    return FakeParticipant("alice", name="Ada", **told)


async def closed(running: Running) -> None:
    """Wait until the session has closed; its agent's activity is over then, and the event may be past already."""
    await until(lambda: running.session.current_speech is None and not running.session._started)


async def as_job(running: Running) -> None:
    """Close the session as LiveKit does when a job ends."""

    async def close() -> None:
        await asyncio.wait_for(running.session.aclose(), timeout=10.0)

    await asyncio.create_task(close(), name=JOB_TASK)


async def shut_session_down(running: Running) -> None:
    """What LiveKit's own tool for it does."""
    running.session.shutdown()
    running.session.shutdown(drain=False)


async def close_session(running: Running) -> None:
    """Wait for the session's end."""
    await running.session.aclose()


async def shut_job_down(running: Running) -> None:
    """LiveKit closes the session for that."""
    running.job.context.shutdown("the caller is done")
    await as_job(running)


async def all_of_it(running: Running) -> None:
    """One behind the other, without a pause."""
    running.session.shutdown()
    await shut_job_down(running)


End = Callable[[Running], Awaitable[None]]
ENDS: tuple[End, ...] = (shut_session_down, close_session, shut_job_down, all_of_it)


@pytest.mark.parametrize("end", ENDS)
async def test_the_last_line_is_said_before_the_session_ends(answer: Answer, end: End) -> None:
    """Once, whichever way the application ends it, and it is a part of the talk."""
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        await end(running)
        await closed(running)
        await running.call.flush()
        assert running.heard.lines == [SAID]
        assert texts(running.call.items) == [SAID]
        await end_room_quietly(running)
        assert running.heard.lines == [SAID]


async def end_room_quietly(running: Running) -> None:
    """What comes behind a session's end finds nothing left to say."""
    running.job.context.shutdown("done")
    await running.session.aclose()


async def test_the_farewell_is_in_the_language_of_whoever_is_there(answer: Answer) -> None:
    """And of the person, by name."""
    async with answer(FakeRoom(ada(attributes={"language": "de"})), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        await running.call.flush()
        await running.session.aclose()
        assert running.heard.lines == ["Auf Wiederhören, Ada."]


async def test_the_farewell_is_said_before_the_room_is_deleted(answer: Answer, asked: Asked) -> None:
    """Or the last caller is put out of it: that is how most applications hang up."""
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        await end_room()
        assert running.heard.lines == [SAID]
        assert asked == ENDED


@pytest.mark.parametrize(("others", "lines"), [([], [SAID]), ([FakeParticipant("bob")], [])])
async def test_who_is_put_out_is_told_if_nobody_stays(
    answer: Answer, asked: Asked, others: list[FakeParticipant], lines: list[str]
) -> None:
    """Else the call goes on with the others."""
    async with answer(FakeRoom(ada(), *others), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        async with api.LiveKitAPI("http://127.0.0.1:1", "key", "secret") as client:
            await client.room.remove_participant(RoomParticipantIdentity(room=running.room.name, identity="alice"))
        assert running.heard.lines == lines
        assert asked == [("remove_participant", "alice")]


async def test_a_room_is_not_deleted_whose_call_was_lost_while_the_line_was_said(
    answer: Answer, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes seconds: whose call it is then is asked once more."""
    original = Speaking.say_last
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()

        def say(speaking: Speaking, line: str) -> Any:
            running.call._upkeep.depose("the test says so")
            return original(speaking, line)

        monkeypatch.setattr(Speaking, "say_last", say)
        await end_room()
        assert asked == []


class Closing(Agent):
    """An agent that hangs up by a tool."""

    def __init__(self, end: Callable[[RunContext[None]], Awaitable[object]]) -> None:
        """`end`: how."""
        super().__init__(instructions="x")
        self._end = end

    @function_tool
    async def hang_up(self, context: RunContext[None]) -> str:
        """End the call."""
        await self._end(context)
        return "Thank you for calling."


def hangs_up(request: ChatRequest) -> Reply:
    """Call the tool, then read its output out."""
    last = request.messages[-1]
    return (
        Reply(str(last["content"])) if last["role"] == "tool" else Reply(calls=(RequestedCall("c1", "hang_up", "{}"),))
    )


async def test_a_tool_that_shuts_the_session_down_is_answered_first(answer: Answer) -> None:
    """The line is the last."""

    async def end(context: RunContext[None]) -> None:
        context.session.shutdown()

    async with (
        OfflineServer(FunctionScript(hangs_up)) as server,
        answer(FakeRoom(ada()), agent=Closing(end), on=server, greeting="", farewell=LINE) as running,
    ):
        await running.session_is_calm()
        running.session.generate_reply(user_input="Bye.")
        await closed(running)
        assert running.heard.lines == ["Thank you for calling.", SAID]


async def test_a_tool_that_deletes_the_room_waits_for_the_line(answer: Answer, asked: Asked) -> None:
    """And not the line for the tool."""

    async def end(_context: RunContext[None]) -> None:
        await end_room()

    async with (
        OfflineServer(FunctionScript(hangs_up)) as server,
        answer(FakeRoom(ada()), agent=Closing(end), on=server, greeting="", farewell=LINE) as running,
    ):
        await running.session_is_calm()
        running.session.generate_reply(user_input="Bye.")
        await until(lambda: asked == ENDED)
        assert running.heard.lines == [SAID]


async def test_the_farewell_is_not_noted_as_an_answer(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the person is noted before it."""
    order: list[str] = []
    original = PersonNotes.stop
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()

        def stopped(self: PersonNotes) -> None:
            order.extend(running.heard.lines)
            order.append("stopped")
            original(self)

        monkeypatch.setattr(PersonNotes, "stop", stopped)
        await running.session.aclose()
        assert order[0] == "stopped"
        assert running.heard.lines == [SAID]


async def test_a_model_that_speaks_says_the_farewell(answer: Answer) -> None:
    """Where nobody else has a voice."""
    model = FakeRealtime("Goodbye, Ada.")
    async with answer(
        FakeRoom(ada()), agent=spoken(model), greeting="", farewell=LINE, output=Loudspeaker()
    ) as running:
        await running.session_is_calm()
        await running.session.aclose()
        assert SAID in str(model.asked[0])


async def test_an_agent_that_hangs_up_as_it_enters_says_it_in_a_successor_too(
    answer: Answer, world: World, asked: Asked
) -> None:
    """Its own first lines were heard already, and are left out there; this one is no first line."""

    class Brief(Agent):
        async def on_enter(self) -> None:
            """Say what is to be said, and hang up."""
            self.session.say("Your parcel has come.")
            await end_room()

    caller = await seed(world, assistant("Your parcel has come."))
    caller.name = "Ada"
    async with answer(
        FakeRoom(caller), "job-2", agent=Brief(instructions="x"), greeting="", back_line="", farewell=LINE
    ) as running:
        await until(lambda: asked == ENDED)
        assert running.heard.lines == [SAID]


# Where nothing is said


async def nobody(running: Running) -> None:
    """The caller has left."""
    running.room.exit(next(iter(running.room.remote_participants.values())))


async def handed_over(running: Running) -> None:
    """Another agent has the call."""
    running.call.handover_asked.set()
    await running.ended()


async def deposed(running: Running) -> None:
    """Another agent took it."""
    running.call._upkeep.depose("the test says so")
    await running.ended()


async def lost(running: Running) -> None:
    """The room is gone."""
    running.room.is_connected = False
    running.room.emit("disconnected", rtc.DisconnectReason.SIGNAL_CLOSE)


@pytest.mark.parametrize("before", [nobody, handed_over, deposed, lost])
@pytest.mark.parametrize("end", ENDS)
async def test_nobody_is_told_whose_call_goes_on_or_who_has_gone(answer: Answer, before: End, end: End) -> None:
    """By this job; and the session ends at once."""
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE, linger=60.0) as running:
        await running.session_is_calm()
        await before(running)
        await end(running)
        await closed(running)
        assert running.heard.lines == []


async def test_a_job_that_is_told_to_leave_says_nothing(answer: Answer) -> None:
    """Its worker ends, and the next agent has the call."""
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        await as_job(running)
        assert running.heard.lines == []


async def test_without_a_line_nothing_is_put_in_between(answer: Answer) -> None:
    """What the application calls is LiveKit's own."""
    async with answer(FakeRoom(ada()), greeting="") as running:
        assert "shutdown" not in vars(running.session)
        await running.session.aclose()
        assert running.heard.lines == []


async def test_a_voice_that_hangs_does_not_delay_the_end(
    answer: Answer, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The call ends without the line, and the log says so."""
    world.timing = replace(world.timing, farewell=0.05)

    class Hanging(Agent):
        async def transcription_node(
            self, text: AsyncIterable[str | TimedString], model_settings: ModelSettings
        ) -> AsyncIterator[str]:
            """Never get to the end of anything."""
            assert model_settings is not None
            await asyncio.Event().wait()
            async for part in text:
                yield part

    async with answer(FakeRoom(ada()), agent=Hanging(instructions="x"), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        async with asyncio.timeout(10.0):
            await running.session.aclose()
        assert running.heard.lines == []
        assert running.call.failures.counts["farewell"] == 1
        assert "a background task failed" in caplog.text


async def test_a_session_that_is_busy_for_ever_is_shut_down(answer: Answer, world: World) -> None:
    """A tool that hangs is not waited for, except by LiveKit."""
    world.timing = replace(world.timing, farewell=0.05, farewell_quiet=0.05)
    release = asyncio.Event()

    async def hang(_context: RunContext[None]) -> None:
        await release.wait()

    async with (
        OfflineServer(FunctionScript(hangs_up)) as server,
        answer(FakeRoom(ada()), agent=Closing(hang), on=server, greeting="", farewell=LINE) as running,
    ):
        await running.session_is_calm()
        running.session.generate_reply(user_input="Bye.")
        await until(lambda: running.session.agent_state == "thinking")
        running.session.shutdown(drain=False)
        await until(lambda: running.session._closing_task is not None)
        release.set()
        await closed(running)


async def test_a_mistake_in_between_ends_the_call_all_the_same(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is; it is counted."""

    def broken(_self: farewell.Farewell) -> str:
        message = "private words"
        raise TypeError(message)

    monkeypatch.setattr(farewell.Farewell, "_line", broken)
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        await running.session.aclose()
        await closed(running)
        assert running.call.failures.counts["farewell"] >= 1


async def test_a_call_that_is_deposed_while_the_line_waits_says_nothing(answer: Answer, world: World) -> None:
    """The next agent is there already."""
    async with answer(FakeRoom(ada()), greeting="", farewell=LINE) as running:
        await running.session_is_calm()
        assert world.clients
        running.session.shutdown()
        running.call._upkeep.depose("the test says so")
        await closed(running)
        await turns()
        assert running.heard.lines == []


def test_the_bounds_are_shorter_than_what_livekit_waits_for() -> None:
    """It gives up on a session's end after a minute."""
    assert TIMING.farewell_quiet + TIMING.farewell <= 30
