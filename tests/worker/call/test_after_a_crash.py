"""What the caller hears of a crash: that the agent is back, and the answer that is owed."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from livekit.agents import (
    Agent,
)
from livekit.agents.llm import FunctionCall

from agent_worker.call import starting
from agent_worker.call.opening import NOT_FINISHED
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply
from agent_worker.offline.transcript import Transcript
from agent_worker.session.notes import TRANSCRIPT
from agent_worker.session.restoration import INTERRUPTED_OUTPUT
from agent_worker.session.serialise import to_fields
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import LEASE
from conversation_actors import LeaseHeldError, item_from_dict
from tests.support.fakes import until
from tests.support.sessions.answering import (
    BACK,
    GREETING,
    LATE,
    Answer,
    assistant,
    crash,
    seed,
    texts,
    user,
)
from tests.support.sessions.fake_conversation import FunctionScript
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World


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
