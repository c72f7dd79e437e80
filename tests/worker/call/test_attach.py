"""A session in a call: greeted, resumed, handed over, deposed, ended; with a real session and a real owner."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import (
    ConversationItemAddedEvent,
    UserInputTranscribedEvent,
)
from livekit.agents.llm import AgentHandoff, ChatContext

from agent_worker.call.attach import attach
from agent_worker.call.opening import JOB_CRASHED, NOT_FINISHED, ROOM_LOST, WORKER_GONE, open_conversation
from agent_worker.example.agent import SupportAgent
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import Reply
from agent_worker.session.notes import TRANSCRIPT
from agent_worker.tenure.conversation import LEASE
from conversation_actors import LeaseHeldError
from tests.support.fakes import until
from tests.support.sessions.answering import (
    AGAIN,
    BACK,
    GREETING,
    Answer,
    crash,
    gone_for,
    seed,
    texts,
    user,
)
from tests.support.sessions.fake_conversation import FakeConversation, FunctionScript
from tests.support.sessions.fake_livekit import fake_job
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World
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
