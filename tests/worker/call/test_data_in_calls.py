"""Data messages in whole calls: through a crash, a handover, and for two roles."""

import asyncio
from dataclasses import replace

import pytest

from agent_worker.call.data_messages import DataMessages
from agent_worker.settings import CallSettings
from agent_worker.tenure.assignment import Assignment
from conversation_actors import DataMessage, Message
from tests.support.fakes import until
from tests.support.sessions.answering import Answer, crash, texts
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom, FakeStream
from tests.support.sessions.fakes_call import World
from tests.support.sessions.following_data import ALICE_SENDS, COMMAND, FollowData


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings as a job has them."""
    monkeypatch.setenv("AGENT_DATA_TOPICS", COMMAND)


@pytest.mark.usefixtures("topics")
async def test_a_successor_has_them_and_its_model_does_not(answer: Answer) -> None:
    """They are in the conversation, between the words, and in no history of LiveKit's; nothing is unreadable."""
    alice = FakeParticipant("alice")
    room = FakeRoom(alice)
    async with answer(room, greeting="Hello there.") as running:
        await running.is_known("Hello there.")
        room.send(ALICE_SENDS, COMMAND, alice)
        await until(lambda: any(isinstance(item, DataMessage) for item in running.call.items))
        await crash(running)
    async with answer(FakeRoom(alice), "job-2") as running:
        assert running.attached.restored.unreadable == 0
        [item] = [item for item in running.call.items if isinstance(item, DataMessage)]
        assert item.participant == {"identity": "alice", "device": alice.sid}
        assert item.payload == ALICE_SENDS
        assert all(one.type != "data_message" for one in running.session.history.items)
        assert "Hello there." in texts(running.call.items)


async def test_nothing_is_touched_where_no_topic_is_kept(answer: Answer) -> None:
    """The default."""
    room = FakeRoom(FakeParticipant("alice"))
    async with answer(room, greeting="") as running:
        room.send(b"x", COMMAND, room.remote_participants["alice"])
        assert room.byte_handlers == {}
        assert "register_byte_stream_handler" not in vars(room)
        assert not any(isinstance(item, DataMessage) for item in running.call.items)


@pytest.mark.usefixtures("topics")
async def test_in_a_handover_no_data_message_is_lost_or_doubled(world: World, follow_data: FollowData) -> None:
    """Both jobs get what is sent then: the one that leaves keeps it until it goes, the other what came behind that."""
    alice = FakeParticipant("alice")
    old = await follow_data(FakeRoom(alice))
    old.room.send(b"next", COMMAND, alice)
    await old.settled()
    assignment = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    successor = world.call("job-2", assignment, settings=CallSettings())
    await successor.open()
    new = await follow_data(FakeRoom(alice), call=successor)

    def send(*text: str) -> None:
        for room in (old.room, new.room):
            for one in text:
                room.send(one.encode(), COMMAND, alice)

    def stream(stream_id: str) -> list[FakeStream]:
        return [one.stream("byte", stream_id=stream_id) for one in (old, new)]

    send("next", "next")
    both, late = stream("both"), stream("late")
    for one in both:
        one.send(b"a file").end()
    await until(lambda: len(old.kept) == 4)
    old.data.stop()
    send("next", "stop")
    for one in late:
        one.send(b"another file").end()
    successor.ready()
    await until(old.call.handover_asked.is_set)
    await old.call.hand_over()
    await successor.wait_open()
    assert [item.text for item in new.kept] == ["next", "next", "next", "a file"]
    new.data.start()
    send("go on")
    kept = [item.text for item in await new.settled()]
    assert kept == ["next", "next", "next", "a file", "next", "stop", "another file", "go on"]


@pytest.mark.usefixtures("topics")
async def test_a_handover_waits_for_a_file_that_is_being_sent(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next agent has not got its beginning."""
    alice, asked, is_read = FakeParticipant("alice"), asyncio.Event(), list[bool]()
    room, wait = FakeRoom(alice), DataMessages.until_read
    async with answer(room, greeting="") as running:

        async def waits(data: DataMessages, seconds: float) -> None:
            asked.set()
            await wait(data, seconds)
            is_read.append(not data._reading)

        monkeypatch.setattr(DataMessages, "until_read", waits)
        await running.session_is_calm()
        stream = room.stream("byte", alice, COMMAND)
        assert stream is not None
        stream.send(b"half ")
        running.call.handover_asked.set()
        await asked.wait()
        stream.send(b"and half").end()
        await until(lambda: bool(running.job.ended))
        [item] = [item for item in running.call.items if isinstance(item, DataMessage)]
    assert is_read == [True]
    assert (item.text, item.interrupted) == ("half and half", False)


@pytest.mark.usefixtures("topics")
async def test_a_handover_does_not_wait_for_ever(answer: Answer, world: World) -> None:
    """A stream that does not end is given up."""
    world.timing = replace(world.timing, room_stream=0.01)
    alice = FakeParticipant("alice")
    room = FakeRoom(alice)
    async with answer(room, greeting="") as running:
        await running.session_is_calm()
        stream = room.stream("byte", alice, COMMAND)
        assert stream is not None
        running.call.handover_asked.set()
        await until(lambda: bool(running.job.ended))
        await until(lambda: stream.is_closed)
        assert not any(isinstance(item, DataMessage) for item in running.call.items)


async def test_each_of_two_roles_keeps_its_own_copy(
    follow_data: FollowData, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two agents in a room get the same stream: neither takes the place of what the other has kept."""
    followed = await follow_data()
    other = await world.cluster.handle()
    followed.stream("byte", stream_id="one").send(b"x").end()
    await followed.settled()
    monkeypatch.setattr(followed.call._standing, "role", "translator")
    followed.stream("byte", stream_id="one").send(b"x").end()
    assert [item.text for item in await followed.settled()] == ["x"]
    await until(lambda: [item.to_dict().get("agent_role") for item in other.items] == [None, "translator"])


def test_words_and_data_messages_are_told_apart() -> None:
    """A message's participant is in its extra, a data message's is a field: either has the property."""
    said = Message(role="user", content="x", extra={"participant": {"identity": "alice", "device": None}})
    sent = DataMessage(topic="t", kind="packet", size=0, participant={"identity": "alice", "device": None})
    assert said.participant == sent.participant


async def test_a_removed_data_message_is_not_recorded_again_after_a_loss(follow_data: FollowData) -> None:
    """Though the conversation loses everything, and is told what came."""
    followed = await follow_data()
    for words in (b"secret", b"hold"):
        followed.room.send(words, COMMAND, followed.alice)
    secret, hold = await followed.settled()
    followed.call.remove(secret.id)
    await followed.settled()
    followed.data.held.record_again(is_afresh=True)
    assert [item.text for item in await followed.settled()] == [hold.text]
