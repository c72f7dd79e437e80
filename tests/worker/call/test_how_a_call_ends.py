"""How a call ends: by a successor, by an empty room, by a session that closes; and what goes wrong meanwhile."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from livekit.agents import (
    CloseReason,
)

from agent_worker.call import life
from agent_worker.call.ending import Ending
from agent_worker.call.late_joining import LateJoining
from agent_worker.call.opening import NOT_FINISHED
from agent_worker.call.quiet import Quiet
from agent_worker.call.speaking import Speaking
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import Reply
from agent_worker.session.recorder import Recorder
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import LEASE, CallConversation
from conversation_actors import LeaseHeldError
from tests.support.fakes import turns, until
from tests.support.sessions.answering import (
    GREETING,
    LATE,
    Answer,
    Running,
    seed,
    texts,
    user,
)
from tests.support.sessions.fake_conversation import FunctionScript
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import POST, World

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


# What goes wrong in the background


async def test_what_ends_a_call_is_tried_again(answer: Answer, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at the end of a call leaves no job behind; it is counted."""
    world.timing = replace(world.timing, room_retry=0.002)
    broken_once(monkeypatch, Ending, "end")
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
