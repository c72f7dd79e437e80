"""A session in a call: greeted, resumed, handed over, deposed, ended; with a real session and a real owner."""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import (
    Agent,
    CloseReason,
    ConversationItemAddedEvent,
    RunContext,
    UserInputTranscribedEvent,
    function_tool,
)
from livekit.agents.llm import AgentHandoff, ChatContext, FunctionCall

from agent_worker.call import life, starting
from agent_worker.call.attach import attach
from agent_worker.call.late_joining import LateJoining
from agent_worker.call.opening import JOB_CRASHED, NOT_FINISHED, ROOM_LOST, WORKER_GONE, open_conversation
from agent_worker.call.quiet import Quiet
from agent_worker.call.speaking import Speaking
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from agent_worker.offline.transcript import Transcript
from agent_worker.session.notes import TRANSCRIPT
from agent_worker.session.recorder import Recorder, belongs_in_history
from agent_worker.session.restoration import INTERRUPTED_OUTPUT
from agent_worker.session.serialise import to_fields
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import LEASE, CallConversation
from conversation_actors import LeaseHeldError, item_from_dict
from tests.support.fakes import turns, until
from tests.support.sessions.answering import (
    AGAIN,
    BACK,
    GREETING,
    LATE,
    Answer,
    Running,
    assistant,
    crash,
    gone_for,
    seed,
    texts,
    user,
    vanish,
)
from tests.support.sessions.fakes_call import POST, FakeParticipant, FakeRoom, World, fake_job
from tests.support.sessions.fakes_room import FakeConversation, FunctionScript
from tests.worker.conftest import SessionFactory

# Greetings


async def test_a_greeting_is_said_once(answer: Answer) -> None:
    """To somebody new, when the agent listens; it is a part of the talk."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice)) as first:
        await first.hears(GREETING)
        await first.is_known(GREETING)
        assert GREETING in [item.text_content for item in first.session.history.messages()]
        await crash(first)
    async with answer(FakeRoom(FakeParticipant("alice")), "job-2") as second:
        await second.session_is_calm()
        assert second.heard.lines == []


async def test_who_comes_later_is_greeted_then(answer: Answer) -> None:
    """And who comes back after the grace is welcomed."""
    async with answer(FakeRoom(), grace=0.01) as running:
        await running.session_is_calm()
        alice = running.room.enter(FakeParticipant("alice"))
        await running.hears(GREETING)
        running.room.exit(alice)
        await gone_for(running.call, 0.01)
        running.room.enter(FakeParticipant("alice"))
        await running.hears(GREETING, AGAIN)


async def test_a_greeting_in_the_callers_language(answer: Answer) -> None:
    """Where there is one."""
    lines = {"en": GREETING, "de": "Guten Tag."}
    async with answer(FakeRoom(FakeParticipant("alice", attributes={"language": "de-AT"})), greeting=lines) as running:
        await running.hears("Guten Tag.")


async def test_an_empty_greeting_is_not_said(answer: Answer) -> None:
    """An empty greeting is none."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await running.session_is_calm()
        assert running.heard.lines == []
        assert GREETING not in texts(running.call.items)


# After a crash


async def test_the_caller_hears_that_the_agent_is_back(answer: Answer) -> None:
    """In a word, which is not a part of the talk; when all is answered, nothing more is said."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice)) as first:
        await first.hears(GREETING)
        await first.is_known(GREETING)
        await crash(first)
    async with answer(FakeRoom(alice), "job-2") as second:
        await second.hears(BACK)
        assert BACK not in texts(second.call.items)
        assert BACK not in [item.text_content for item in second.session.history.messages()]
        await second.session_is_calm()
        assert [item.type for item in second.call.items].count("message") == 1


async def test_a_message_without_an_answer_is_answered(answer: Answer, world: World, transcript: Transcript) -> None:
    """The agent died while it thought."""
    turn = transcript.turns[0]
    alice = await seed(world, user(turn.user))
    async with answer(FakeRoom(alice), "job-2") as running:
        await running.hears(BACK, turn.reply)
        await running.is_known(turn.reply)
        assert texts(running.call.items) == [turn.user, turn.reply]


async def test_words_that_are_in_no_message_are_answered(answer: Answer, world: World, transcript: Transcript) -> None:
    """The agent died before the caller's sentence was a message; now it is one, and is noted no longer."""
    first, second = transcript.turns[0], transcript.turns[1]
    noted = {TRANSCRIPT: {"text": second.user, "language": "en", "at": 1.0}}
    alice = await seed(world, user(first.user), assistant(first.reply), attributes=noted)
    async with answer(FakeRoom(alice), "job-2") as running:
        await until(lambda: second.reply in texts(running.call.items))
        said = [step.say for step in second.steps if step.say]
        await running.hears(BACK, *said, second.reply)
        assert texts(running.call.items) == [first.user, first.reply, second.user, *said, second.reply]
        await until(lambda: TRANSCRIPT not in running.call.attributes)


async def test_words_that_are_in_a_message_are_not_said_again(
    answer: Answer, world: World, transcript: Transcript
) -> None:
    """The agent died between the message and the removal of the note."""
    turn = transcript.turns[0]
    noted = {TRANSCRIPT: {"text": turn.user, "language": "en", "at": 1.0}}
    alice = await seed(world, user(turn.user), assistant(turn.reply), attributes=noted)
    async with answer(FakeRoom(alice), "job-2") as running:
        await running.hears(BACK)
        assert texts(running.call.items) == [turn.user, turn.reply]


async def test_a_tool_call_that_was_interrupted_is_answered(
    answer: Answer, world: World, transcript: Transcript
) -> None:
    """The model is told that its outcome is unknown, and speaks."""
    call = FunctionCall(id="item_9/fnc_0", call_id="c9", name="look_up_order", arguments='{"order_id": "A-1042"}')
    alice = await seed(world, user("Where is A-1042?"), assistant("One moment."), call)

    def decide(request: ChatRequest) -> Reply:
        assert request.messages[-1]["content"] == INTERRUPTED_OUTPUT
        return Reply("I'll look again.")

    async with OfflineServer(FunctionScript(decide)) as server, answer(FakeRoom(alice), "job-2", on=server) as running:
        await running.hears(BACK, "I'll look again.")
        assert len(transcript.turns) > 1
        await running.is_known("I'll look again.")
        outputs = [item.to_dict()["output"] for item in running.call.items if item.type == "function_call_output"]
        assert outputs == [INTERRUPTED_OUTPUT]


async def test_two_devices_hear_once_that_the_agent_is_back(answer: Answer, world: World) -> None:
    """Both have lost the agent; it speaks to both."""
    handle = await world.cluster.handle()
    alice, bob = FakeParticipant("alice"), FakeParticipant("bob")
    for one in (alice, bob):
        await handle.join(one.identity, device_id=one.sid)
    async with answer(FakeRoom(alice, bob), "job-2") as running:
        await running.hears(BACK)


async def test_without_a_line_the_answer_comes_all_the_same(
    answer: Answer, world: World, transcript: Transcript
) -> None:
    """An empty line is none."""
    turn = transcript.turns[0]
    alice = await seed(world, user(turn.user))
    async with answer(FakeRoom(alice), "job-2", back_line="") as running:
        await running.hears(turn.reply)


async def test_what_was_unanswered_at_a_handover_is_answered(answer: Answer, world: World) -> None:
    """The other one may have had to go before it could; nothing is said about that."""
    alice = await seed(world, user("Hello?"))
    planned = Assignment(conversation_id="c", replaces="job-0", is_planned=True)
    async with answer(FakeRoom(alice), "job-1", assignment=planned) as running:
        await until(lambda: bool(running.heard.lines))
        assert BACK not in running.heard.lines


async def test_a_planned_handover_is_silent(answer: Answer, world: World) -> None:
    """Nobody has noticed anything."""
    alice = await seed(world, user("Hello?"), assistant("Good morning."))
    planned = Assignment(conversation_id="c", replaces="job-0", is_planned=True)
    async with answer(FakeRoom(alice), "job-1", assignment=planned) as running:
        await running.session_is_calm()
        assert running.heard.lines == []


async def test_a_successor_does_not_begin_before_it_has_the_call(answer: Answer, world: World) -> None:
    """Two agents are in the room: the one that stands by asks no model; then it knows all, hears, and speaks."""
    alice = FakeParticipant("alice")
    first = world.call("job-1")
    await first.open()
    first.record(item_from_dict(to_fields(user("Before"))))
    planned = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    script = FunctionScript(lambda _request: Reply("Here I am."))
    async with (
        OfflineServer(script) as server,
        answer(
            FakeRoom(alice), "job-2", assignment=planned, on=server, agent=Eager(), waits=False, greeting=""
        ) as running,
    ):
        await asyncio.wait_for(first.handover_asked.wait(), LATE)
        assert running.session.agent_state == "initializing"
        first.record(item_from_dict(to_fields(user("Last words"))))
        await first.hand_over()
        await asyncio.wait_for(running.starting, LATE)
        await until(lambda: running.heard.lines == ["Here I am."])
        await running.is_known("Here I am.")
        assert texts(running.call.items) == ["Before", "Last words", "Here I am."]
    [request] = server.requests
    assert [message["content"] for message in request["messages"]] == ["x", "Before", "Last words"]


class Eager(Agent):
    """Speaks as soon as it can."""

    def __init__(self) -> None:
        """As an application has it."""
        super().__init__(instructions="x")

    async def on_enter(self) -> None:
        """Ask the model for a greeting."""
        await self.session.generate_reply(instructions="Greet the caller.")


async def test_a_successor_that_does_not_get_the_call_does_not_begin(answer: Answer, world: World) -> None:
    """Another one was faster: its job ends, and its session has never started."""
    first = world.call("job-1")
    await first.open()
    planned = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    async with answer(FakeRoom(), "job-2", assignment=planned, waits=False) as running:
        await asyncio.wait_for(first.handover_asked.wait(), LATE)
        handle = await world.cluster.handle()
        await handle.acquire_lease(LEASE, holder="job-3", duration=timedelta(minutes=1), replacing="job-1")
        await world.agents.start("c", "job-3", valid_for=timedelta(minutes=1), group="", details=b"{}")
        with pytest.raises(LeaseHeldError):
            await running.starting
        assert running.job.ended == [NOT_FINISHED]
        assert running.session.agent_state == "initializing"


async def test_a_history_that_cannot_be_given_leaves_nobody_alone(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is worth more than what was said in it."""

    async def broken(*_arguments: Any, **_named: Any) -> None:
        message = "broken"
        raise ValueError(message)

    monkeypatch.setattr(starting, "restore", broken)
    planned = Assignment(conversation_id="c", replaces="job-0", is_planned=True)
    async with answer(FakeRoom(), "job-1", assignment=planned) as running:
        await running.session_is_calm()
        assert running.call.failures.counts["restore"] == 1


# How it ends


async def test_a_deposed_agent_leaves_at_once_and_not_cleanly(answer: Answer, world: World) -> None:
    """Not cleanly, should nobody have taken over after all; it records and releases nothing more."""
    async with answer(FakeRoom(FakeParticipant("alice"))) as running:
        await running.hears(GREETING)
        await running.call.flush()
        handle = await world.cluster.handle()
        await handle.acquire_lease(LEASE, holder="job-2", duration=timedelta(minutes=1), replacing="job-1")
        assert await running.ended() == NOT_FINISHED
        before = running.attached.recorder.recorded
        await running.session.generate_reply(user_input="Are you there?")
        assert running.attached.recorder.recorded == before
        running.room.enter(FakeParticipant("bob"))
        await turns()
        assert "bob" not in (await handle.snapshot(fresh=True)).participants


async def opened(successor: CallConversation) -> None:
    """Return when a successor that could listen at once has the call."""
    successor.ready()
    await successor.open()
    await successor.wait_open()


async def test_a_handover_waits_until_the_agent_has_spoken(answer: Answer, world: World) -> None:
    """The successor gets the lease behind the last word, with that word in the conversation; nothing is said twice."""
    answered, asked = asyncio.Event(), asyncio.Event()
    reply = "one two three four five six seven eight nine ten"
    script = FunctionScript(lambda _request: Reply(reply))
    planned = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    async with (
        OfflineServer(script, chunk_pause=timedelta(milliseconds=30)) as slow,
        answer(FakeRoom(FakeParticipant("alice")), on=slow, greeting="") as running,
    ):
        running.session.on("agent_state_changed", lambda event: answered.set() if event.new_state == "speaking" else 0)
        speech = running.session.generate_reply(user_input="Count")
        await asyncio.wait_for(answered.wait(), LATE)
        successor = world.call("job-2", planned)
        opening = asyncio.create_task(opened(successor))
        await asyncio.wait_for(running.call.handover_asked.wait(), LATE)
        asked.set()
        assert not speech.done()
        assert not opening.done()
        await speech
        await asyncio.wait_for(opening, LATE)
        assert texts(successor.items) == ["Count", reply]
        assert await running.ended() == "handed over"
        assert not running.call.deposed.is_set()
        before = running.attached.recorder.recorded
        await running.session.generate_reply(user_input="Still there?")
        assert running.attached.recorder.recorded == before


async def test_a_handover_waits_for_the_caller_too(
    answer: Answer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever speaks is let finish, however often it was looked."""
    world.timing = replace(world.timing, room_quiet=0.0)
    looks: list[bool] = []
    is_busy = Quiet.is_busy

    def looked_at(self: Any) -> bool:
        looks.append(is_busy.__get__(self))
        return looks[-1]

    monkeypatch.setattr(Quiet, "is_busy", property(looked_at))
    planned = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    async with answer(FakeRoom(), greeting="") as running:
        await running.session_is_calm()
        running.session._update_user_state("speaking")
        opening = asyncio.create_task(opened(world.call("job-2", planned)))
        await asyncio.wait_for(running.call.handover_asked.wait(), LATE)
        await until(lambda: len(looks) >= 5)
        assert all(looks)
        assert not opening.done()
        assert running.job.ended == []
        running.session._update_user_state("listening")
        await asyncio.wait_for(opening, LATE)


ELSEWHERE = replace(POST, room="room-2", agent_identity="agent-2")


async def test_an_empty_room_is_left_for_another(answer: Answer, world: World) -> None:
    """The caller calls again, into another room: the agent that waits for them here lets go at once."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=60.0) as running:
        await running.hears(GREETING)
        running.room.exit(alice)
        second = world.call("job-2", post=ELSEWHERE)
        assert await asyncio.wait_for(second.open(), LATE)
        assert await running.ended() == "the call goes on in another room"
        assert texts(second.items) == [GREETING]
        assert not running.call.deposed.is_set()


async def test_with_somebody_in_the_room_the_call_goes_on_there(answer: Answer, world: World) -> None:
    """An agent in another room is refused at once, as often as it asks; not any more when everybody has gone."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=60.0) as running:
        await running.hears(GREETING)
        for holder in ("job-2", "job-3"):
            with pytest.raises(LeaseHeldError):
                await asyncio.wait_for(world.call(holder, post=ELSEWHERE).open(), LATE)
        assert running.job.ended == []
        await running.session.generate_reply(user_input="Are you still there?")
        await running.is_known("Are you still there?")
        running.room.exit(alice)
        assert await asyncio.wait_for(world.call("job-4", post=ELSEWHERE).open(), LATE)
        assert await running.ended() == "the call goes on in another room"


async def test_a_job_that_is_ending_refuses_nobody(answer: Answer, world: World) -> None:
    """Another room's agent waits for the moment that its end takes, and has the call."""
    async with answer(FakeRoom(), linger=0.02) as running:
        assert await running.ended() == "nobody is in the room"
        opening = asyncio.create_task(world.call("job-2", post=ELSEWHERE).open())
        await asyncio.wait_for(running.call.redialled.wait(), LATE)
        beaten = world.agents.asked
        await until(lambda: world.agents.asked > beaten + 10)
        assert not opening.done()
        await running.call.release()
        assert await asyncio.wait_for(opening, LATE)


async def test_who_does_not_see_its_room_does_not_leave_it(answer: Answer, world: World) -> None:
    """The connection is lost for a moment: somebody may be there."""
    async with answer(FakeRoom(), linger=60.0) as running:
        await running.session_is_calm()
        running.room.change_connection(is_connected=False)
        with pytest.raises(LeaseHeldError):
            await asyncio.wait_for(world.call("job-2", post=ELSEWHERE).open(), LATE)
        assert running.job.ended == []


async def closed(running: Running, reason: CloseReason) -> None:
    """Close the session, and return when all who were told of it have done what they do."""
    told = asyncio.Event()
    running.session.on("close", lambda _event: told.set())
    running.session._close_soon(reason=reason)
    await asyncio.wait_for(told.wait(), LATE)
    await turns()


async def test_a_session_that_failed_calls_the_next_agent(answer: Answer) -> None:
    """The caller is still there, and a new process may have more luck."""
    async with answer(FakeRoom(FakeParticipant("alice"))) as running:
        await running.hears(GREETING)
        running.session._close_soon(reason=CloseReason.ERROR)
        assert await running.ended() == NOT_FINISHED


@pytest.mark.parametrize("reason", [CloseReason.USER_INITIATED, CloseReason.JOB_SHUTDOWN, CloseReason.TASK_COMPLETED])
async def test_a_session_that_was_closed_on_purpose_ends_nothing_more(answer: Answer, reason: CloseReason) -> None:
    """Whoever closed it knows what comes next."""
    async with answer(FakeRoom(FakeParticipant("alice"))) as running:
        await running.hears(GREETING)
        await closed(running, reason)
        assert running.job.ended == []


async def test_a_room_without_anybody_for_a_while_ends_the_call_cleanly(answer: Answer) -> None:
    """Cleanly: there is nobody to take over for."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=0.05) as running:
        await running.hears(GREETING)
        running.room.exit(alice)
        assert await running.ended() == "nobody is in the room"


async def test_a_room_that_nobody_comes_to_is_left(answer: Answer) -> None:
    """As one that everybody has left."""
    async with answer(FakeRoom(), linger=0.05) as running:
        assert await running.ended() == "nobody is in the room"


async def test_who_comes_back_in_time_finds_the_agent_there(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same one, with the same session: nobody waits any more for the time to be up."""
    alice = FakeParticipant("alice")
    calls: list[Any] = []
    start = life.Call.start

    def noted(self: Any) -> None:
        calls.append(self)
        start(self)

    monkeypatch.setattr(life.Call, "start", noted)
    async with answer(FakeRoom(alice), linger=60.0) as running:
        await running.hears(GREETING)
        running.room.exit(alice)
        waiting = calls[0]._lingering
        assert waiting is not None
        await turns()
        running.room.enter(FakeParticipant("alice"))
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert calls[0]._lingering is None
        assert running.job.ended == []


async def test_a_session_that_closed_with_its_caller_waits_for_somebody_to_come_back(answer: Answer) -> None:
    """LiveKit's default: the job waits for a while; who comes back gets the next agent."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=60.0) as running:
        await running.hears(GREETING)
        running.room.exit(alice)
        await closed(running, CloseReason.PARTICIPANT_DISCONNECTED)
        assert running.job.ended == []
        running.room.enter(FakeParticipant("alice"))
        assert await running.ended() == NOT_FINISHED


async def test_a_session_that_closed_with_its_caller_for_good(answer: Answer) -> None:
    """Nobody comes back: a clean end."""
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=0.05) as running:
        await running.hears(GREETING)
        running.room.exit(alice)
        running.session._close_soon(reason=CloseReason.PARTICIPANT_DISCONNECTED)
        assert await running.ended() == "nobody is in the room"


# A conversation that opens late


@pytest.mark.parametrize("ahead", [0.0, 7200.0, -7200.0])
async def test_what_was_said_before_a_late_opening_is_put_in_front(
    answer: Answer, world: World, transcript: Transcript, ahead: float
) -> None:
    """Whatever the clocks say of it; the next request to the model has it in order, behind the instructions."""
    old = transcript.turns[0]
    now = time.time() + ahead
    said = [user(old.user), assistant(old.reply)]
    for number, message in enumerate(said):
        message.created_at = now + number
    await seed(world, *said)
    world.may_open.clear()
    async with answer(FakeRoom(), greeting="") as running:
        assert not running.call.is_open
        turn = transcript.turns[1]
        await running.session.run(user_input=turn.user)
        world.may_open.set()
        await until(lambda: old.user in [item.text_content for item in running.session.history.messages()])
        await running.session.generate_reply(user_input="And now?")
        await running.call.flush()
        assert [item.type for item in running.session.history.items[:3]] == ["message", "message", "agent_handoff"]
        spoken = [item.text_content for item in running.session.history.messages()]
        assert spoken[:3] == [old.user, old.reply, turn.user]
        assert texts(running.call.items)[:3] == [old.user, old.reply, turn.user]


async def test_the_model_sees_the_instructions_first(answer: Answer, world: World, server: OfflineServer) -> None:
    """Also when older items came behind them in time."""
    old = user("Long ago")
    old.created_at = 1.0
    await seed(world, old)
    world.may_open.clear()
    async with answer(FakeRoom(), greeting="") as running:
        await running.session_is_calm()
        world.may_open.set()
        await until(lambda: "Long ago" in [item.text_content for item in running.session.history.messages()])
        await running.session.generate_reply(user_input="Now")
    sent = server.requests[-1]["messages"]
    assert [message["role"] for message in sent[:1]] == ["system"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["Long ago", "Now"]


async def test_opened_before_the_session_starts_it_waits_for_it(
    answer: Answer, world: World, server: OfflineServer
) -> None:
    """Between the budget's end and the session's start there is no history to put anything into."""
    await seed(world, user("Long ago"))
    world.may_open.clear()

    async def open_now() -> None:
        known = len(world.cluster._handles)
        world.may_open.set()
        await until(lambda: len(world.cluster._handles) > known)
        await turns()

    async with answer(FakeRoom(), greeting="", before_start=open_now) as running:
        await until(lambda: "Long ago" in [item.text_content for item in running.session.history.messages()])
        await running.session.generate_reply(user_input="Now")
    sent = server.requests[-1]["messages"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["Long ago", "Now"]


async def test_a_greeting_waits_for_a_conversation_that_opens_late(answer: Answer, world: World) -> None:
    """Said when it can be noted."""
    world.may_open.clear()
    async with answer(FakeRoom(FakeParticipant("alice"))) as running:
        await running.session_is_calm()
        assert running.heard.lines == []
        world.may_open.set()
        await running.hears(GREETING)


async def test_a_call_that_was_interrupted_before_is_told_late(answer: Answer, world: World) -> None:
    """Recorded as everywhere."""
    call = FunctionCall(id="item_9/fnc_0", call_id="c9", name="look_up_order", arguments="{}")
    await seed(world, user("Hi"), call)
    world.may_open.clear()
    async with answer(FakeRoom(), greeting="") as running:
        await running.session_is_calm()
        world.may_open.set()
        await until(lambda: any(item.type == "function_call_output" for item in running.call.items))


async def test_a_tool_that_runs_while_it_opens_is_not_interrupted(answer: Answer, world: World) -> None:
    """Its call is recorded, its output is not there yet: the one who runs it is this session."""
    world.may_open.clear()
    release = asyncio.Event()

    class Slow(Agent):
        def __init__(self) -> None:
            super().__init__(instructions="x")

        @function_tool
        async def search(self, context: RunContext[None]) -> str:
            """Search for long."""
            assert context is not None
            await release.wait()
            return "found"

    def decide(request: ChatRequest) -> Reply:
        done = any(message["role"] == "tool" for message in request.messages)
        return Reply("Found it.") if done else Reply("", (RequestedCall("c1", "search", "{}"),))

    async with (
        OfflineServer(FunctionScript(decide)) as server,
        answer(FakeRoom(), agent=Slow(), on=server, greeting="") as running,
    ):
        speech = running.session.generate_reply(user_input="Search")
        await until(lambda: running.attached.recorder.recorded >= 3)
        world.may_open.set()
        await asyncio.wait_for(running.call.wait_open(), LATE)
        await running.call.flush()
        release.set()
        await speech
        await running.is_known("Found it.")
    outputs = [item.to_dict()["output"] for item in running.call.items if item.type == "function_call_output"]
    assert outputs == ["found"]


# A conversation that is lost


async def test_a_conversation_that_is_gone_is_told_the_talk(
    answer: Answer, world: World, transcript: Transcript
) -> None:
    """All that the session has, in order, as it was; the caller hears nothing of it."""
    first, second = transcript.turns[0], transcript.turns[1]
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice)) as running:
        await running.hears(GREETING)
        await running.session.run(user_input=first.user)
        await running.is_known(first.reply)
        await running.call.flush()
        before = [item.to_dict() for item in running.call.items]
        await vanish(world)
        running.call.note("x", 1)
        await until(lambda: "x" in running.call.attributes)
        assert [item.to_dict() for item in (await world.cluster.handle()).items] == before
        await running.session.run(user_input=second.user)
        await running.is_known(second.reply)
        told = [item.id for item in running.session.history.items if belongs_in_history(item)]
        assert sorted(item.id for item in running.call.items) == sorted(told)
        assert running.call.participants["alice"].devices == (alice.sid,)
        said = [step.say for step in second.steps if step.say]
        assert running.heard.lines == [GREETING, first.reply, *said, second.reply]
        await crash(running)
    async with answer(FakeRoom(alice), "job-2") as after:
        await after.hears(BACK)
        assert texts(after.call.items)[-1] == second.reply


async def test_a_tool_that_runs_while_it_is_lost_is_told_with_its_output(answer: Answer, world: World) -> None:
    """Its call was known before it ran, and is again; and both are, when it is done, once."""
    release = asyncio.Event()

    class Slow(Agent):
        def __init__(self) -> None:
            super().__init__(instructions="x")

        @function_tool
        async def search(self, context: RunContext[None]) -> str:
            """Search for long."""
            assert context is not None
            await release.wait()
            return "found"

    def decide(request: ChatRequest) -> Reply:
        done = any(message["role"] == "tool" for message in request.messages)
        return Reply("Found it.") if done else Reply("", (RequestedCall("c1", "search", "{}"),))

    async with (
        OfflineServer(FunctionScript(decide)) as server,
        answer(FakeRoom(), agent=Slow(), on=server, greeting="") as running,
    ):
        speech = running.session.generate_reply(user_input="Search")
        await until(lambda: "function_call" in [item.type for item in running.call.items])
        await vanish(world)
        running.call.note("x", 1)
        await until(lambda: "x" in running.call.attributes)
        assert "function_call" in [item.type for item in running.call.items]
        release.set()
        await speech
        await running.is_known("Found it.")
    kinds = [item.type for item in running.call.items]
    assert [kind for kind in kinds if kind.startswith("function")] == ["function_call", "function_call_output"]


# What goes wrong in the background


async def test_what_ends_a_call_is_tried_again(answer: Answer, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at the end of a call leaves no job behind; it is counted."""
    world.timing = replace(world.timing, room_retry=0.002)
    broken_once(monkeypatch, life.Call, "_end")
    alice = FakeParticipant("alice")
    async with answer(FakeRoom(alice), linger=0.02, greeting="") as running:
        await running.session_is_calm()
        running.room.exit(alice)
        assert await running.ended() == "nobody is in the room"
        assert running.call.failures.counts["linger"] == 1


@pytest.mark.parametrize("task", ["deposition", "handover", "redials"])
async def test_an_error_does_not_end_what_follows_the_call(
    answer: Answer, world: World, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Whatever it met once: the agent leaves when it is deposed, or asked to."""
    world.timing = replace(world.timing, room_retry=0.002)
    broken_once(monkeypatch, *{"deposition": (Recorder, "stop")}.get(task, (CallConversation, "hand_over")))
    async with answer(FakeRoom(), linger=60.0, greeting="") as running:
        await running.session_is_calm()
        if task == "deposition":
            handle = await world.cluster.handle()
            await handle.acquire_lease(LEASE, holder="job-2", duration=timedelta(minutes=1), replacing="job-1")
        elif task == "handover":
            running.call.handover_asked.set()
        else:
            running.call.redialled.set()
        await running.ended()
        assert running.call.failures.counts[task] == 1


def broken_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Have a method raise what no program of ours raises, at its first call."""
    original = getattr(owner, name)
    calls: list[int] = []

    def broken(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            message = "private words"
            raise TypeError(message)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, broken)


@pytest.mark.parametrize("task", ["say", "catch_up", "resume"])
async def test_an_error_in_what_is_done_once_does_not_end_the_call(
    answer: Answer,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    task: str,
) -> None:
    """The call goes on without it; that is counted, without the error's text."""

    async def broken(*_arguments: Any) -> None:
        message = "private words"
        raise TypeError(message)

    if task == "catch_up":
        monkeypatch.setattr(LateJoining, "restore", broken)
    else:
        monkeypatch.setattr(Speaking, task, broken)
    alice = await seed(world, user("Hello?")) if task == "resume" else FakeParticipant("alice")
    if task == "catch_up":
        world.may_open.clear()
    async with answer(FakeRoom(alice), "job-2" if task == "resume" else "job-1") as running:
        world.may_open.set()
        await until(lambda: running.call.failures.counts.get(task) == 1)
        assert running.job.ended == []
    assert "private words" not in caplog.text


# The job


METADATA = '{"conversation_id": "c"}'


@pytest.mark.usefixtures("job_environment")
async def test_a_job_opens_its_conversation(world: World) -> None:
    """As the agent, with its job's id; what it left is told to whoever finds it dead."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        conversation = await open_conversation(job.context)
        assert (conversation.id, conversation.holder, conversation.is_open) == ("c", "job-1", True)
        record = await world.agents.find("c")
        assert record is not None
        assert (record.holder, record.details["agent_name"]) == ("job-1", "support")
        assert record.details["agent_identity"] == "agent-1"
        await job.shut_down("")


@pytest.mark.usefixtures("job_environment")
@pytest.mark.parametrize(
    ("reason", "is_over"),
    [
        ("nobody is in the room", True),
        ("handed over", True),
        ("", True),
        (NOT_FINISHED, False),
        (JOB_CRASHED, False),
        (ROOM_LOST, False),
        (WORKER_GONE, False),
    ],
)
async def test_the_lease_is_given_back_when_the_call_is_over(world: World, reason: str, *, is_over: bool) -> None:
    """And only then: a worker that finds lease and heartbeat calls the next agent."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        await open_conversation(job.context)
        await job.shut_down(reason)
    handle = await world.cluster.handle()
    assert (LEASE not in handle.leases) == is_over
    assert (await world.agents.find("c") is None) == is_over


@pytest.mark.usefixtures("job_environment")
async def test_a_second_job_of_a_call_ends_itself_and_releases_nothing(world: World) -> None:
    """It has nothing to say here, and takes nothing away at its end."""
    with fake_job(FakeRoom(), metadata=METADATA) as job:
        await open_conversation(job.context)
        with fake_job(FakeRoom(), metadata=METADATA, job_id="job-2") as second:
            with pytest.raises(LeaseHeldError):
                await open_conversation(second.context)
            assert len(second.ended) == 1
            assert "job-1" in second.ended[0]
            await second.shut_down(second.ended[0])
        handle = await world.cluster.handle()
        assert handle.leases[LEASE].holder == "job-1"
        assert await world.agents.find("c") is not None
        await job.shut_down("")


def test_livekit_still_calls_a_crash_as_we_know_it() -> None:
    """A new version of LiveKit that calls it otherwise would end calls that are not over."""
    import inspect

    from livekit.agents.ipc import job_proc_lazy_main

    source = inspect.getsource(job_proc_lazy_main)
    assert all(f'"{reason}"' in source for reason in (JOB_CRASHED, ROOM_LOST, WORKER_GONE))


async def test_a_plain_conversation_has_no_call_around_it(server: OfflineServer, new_session: SessionFactory) -> None:
    """As in a terminal: restored and recorded, nobody is followed."""
    session, room = await new_session(server), FakeRoom(FakeParticipant("alice"))
    attached = await attach(session, SupportAgent(), FakeConversation(), room=room.as_room)
    assert attached.restored.items == 0
    assert room._events == {}


# Whom the agent listens to


class FakeRoomIO:
    """The part of LiveKit's `RoomIO` that links the session to one participant."""

    def __init__(self) -> None:
        """Nobody is listened to."""
        self.linked_participant: Any = None
        self.linked: list[str] = []

    def set_participant(self, identity: str) -> None:
        """Listen to somebody."""
        self.linked_participant = SimpleNamespace(identity=identity)
        self.linked.append(identity)

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_the_agent_listens_to_whoever_speaks(answer: Answer) -> None:
    """While nobody else does; and to somebody at all, when the one who was listened to has gone."""
    alice, bob = FakeParticipant("alice"), FakeParticipant("bob")
    robot = FakeParticipant("robot", kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
    async with answer(FakeRoom(alice, bob), greeting="") as running:
        await running.session_is_calm()
        room_io = FakeRoomIO()
        room_io.linked_participant = alice
        running.session._room_io = cast("Any", room_io)
        # what a session with a room tells when it starts
        started = ConversationItemAddedEvent(item=AgentHandoff(new_agent_id="a"))
        running.session.emit("conversation_item_added", started)
        running.room.emit("active_speakers_changed", [robot])
        running.room.emit("active_speakers_changed", [alice])
        running.room.emit("active_speakers_changed", [bob, alice])
        assert room_io.linked == []
        running.room.emit("active_speakers_changed", [bob])
        assert room_io.linked == ["bob"]
        running.session._user_state = "speaking"
        running.room.emit("active_speakers_changed", [alice])
        assert room_io.linked == ["bob"]
        running.session._user_state = "listening"
        running.room.exit(bob)
        assert room_io.linked == ["bob", "alice"]
        running.session._room_io = None


async def test_a_speaker_that_cannot_be_followed_raises_nothing(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler of LiveKit's room must not."""
    async with answer(FakeRoom(FakeParticipant("alice")), greeting="") as running:
        await running.session_is_calm()
        running.room.emit("active_speakers_changed", [FakeParticipant("alice")])
        running.room.emit("active_speakers_changed", [object()])
    assert "the speaker was not followed" in caplog.text


async def test_no_word_of_a_whole_call_is_logged(
    answer: Answer, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the whole life of a call."""
    caplog.set_level(logging.DEBUG)
    alice = await seed(world, user("private words"), attributes={TRANSCRIPT: {"text": "private words too"}})
    script = FunctionScript(lambda _request: Reply("private words as well"))
    async with OfflineServer(script) as server, answer(FakeRoom(alice), "job-2", on=server) as running:
        await running.hears(BACK, "private words as well")
        running.room.exit(alice)
    ours = [record for record in caplog.records if record.name.startswith(("agent_worker", "conversation_actors"))]
    assert "private words" not in " ".join(f"{record.getMessage()} {record.__dict__}" for record in ours)


async def test_what_was_heard_is_noted_until_it_is_a_message(answer: Answer) -> None:
    """In the conversation, where a successor finds it."""
    async with answer(FakeRoom(), greeting="") as running:
        await running.session_is_calm()
        heard = UserInputTranscribedEvent(transcript="Where is", is_final=True)
        running.session.emit("user_input_transcribed", heard)
        await until(lambda: TRANSCRIPT in running.call.attributes)
        assert running.call.attributes[TRANSCRIPT]["text"] == "Where is"
        running.session._conversation_item_added(user("Where is"))
        await until(lambda: TRANSCRIPT not in running.call.attributes)


def test_the_context_that_livekit_keeps_is_ordered_by_time() -> None:
    """Why time stamps are mended before anything is merged: LiveKit sorts by them."""
    context = ChatContext([user("a")])
    late = user("b")
    late.created_at = 1.0
    assert [item.text_content for item in context.merge(ChatContext([late])).messages()] == ["b", "a"]
