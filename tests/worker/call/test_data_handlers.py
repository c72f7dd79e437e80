"""Data messages beside an application that reads the same topics, and a conversation that does not answer."""

import asyncio
from typing import Any

import pytest

from agent_worker.call import held_data
from conversation_actors import InvalidInputError
from tests.support.fakes import turns, until
from tests.support.sessions.fake_room import FakeInfo, FakeParticipant, FakeRoom, FakeStream
from tests.support.sessions.fakes_call import World
from tests.support.sessions.following_data import COMMAND, FILES, FollowData

# The application's own handlers


class Reader:
    """An application that reads a topic."""

    def __init__(self) -> None:
        """Nothing has come."""
        self.got: list[tuple[list[Any], str]] = []
        self.errors: list[Exception] = []
        self.readers: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, reader: Any, identity: str) -> None:
        """See `rtc.Room.register_byte_stream_handler`."""
        self.readers.append(reader)
        task = asyncio.create_task(self._read(reader, identity))
        self._tasks.add(task)

    async def _read(self, reader: Any, identity: str) -> None:
        chunks: list[Any] = []
        self.got.append((chunks, identity))
        try:
            async for chunk in reader:
                chunks += [chunk]
        except ConnectionError as error:
            self.errors.append(error)


@pytest.mark.parametrize("kind", ["text", "byte"])
async def test_an_application_reads_the_same_stream(follow_data: FollowData, kind: str) -> None:
    """Part by part, as it comes, as if nobody else did."""
    followed, reader = await follow_data(), Reader()
    register = getattr(followed.room, f"register_{kind}_stream_handler")
    register(COMMAND, reader.take)
    parts = ["one", "two"] if kind == "text" else [b"one", b"two"]
    stream = followed.stream(kind, name="n", attributes={"a": "b"})
    stream.send(parts[0])
    await until(lambda: bool(reader.got) and bool(reader.got[0][0]))
    stream.send(parts[1]).end()
    [item] = await followed.settled()
    assert reader.got == [(parts, "alice")]
    assert (reader.readers[0].info.topic, reader.readers[0].info.attributes) == (COMMAND, {"a": "b"})
    assert item.text == "onetwo"


async def test_an_application_reads_all_of_a_text_at_once(follow_data: FollowData) -> None:
    """By `read_all`; what broke off raises there as ever."""
    followed, readers = await follow_data(), []
    followed.room.register_text_stream_handler(COMMAND, lambda reader, _identity: readers.append(reader))
    followed.stream("text").send("one", "two").end()
    followed.stream("text").send("one").break_off()
    assert await readers[0].read_all() == "onetwo"
    with pytest.raises(ConnectionError):
        await readers[1].read_all()
    assert [item.interrupted for item in await followed.settled()] == [False, True]


async def test_an_application_that_reads_no_further_costs_nothing(follow_data: FollowData) -> None:
    """It closes its reader, or raises in its handler; the message is kept."""
    followed, readers = await follow_data(), []
    followed.room.register_byte_stream_handler(COMMAND, lambda reader, _identity: readers.append(reader))
    stream = followed.stream("byte").send(b"one")
    await turns()
    readers[0].close()
    assert [chunk async for chunk in readers[0]] == []
    stream.send(b"two").end()

    def broken(_reader: Any, _identity: str) -> None:
        message = "the application's own"
        raise RuntimeError(message)

    followed.room.unregister_byte_stream_handler(COMMAND)
    followed.room.register_byte_stream_handler(COMMAND, broken)
    unread = FakeStream(FakeInfo(COMMAND))
    with pytest.raises(RuntimeError, match="the application's own"):
        followed.room.byte_handlers[COMMAND](unread, "alice")
    unread.send(b"three").end()
    assert [item.text for item in await followed.settled()] == ["onetwo", "three"]
    assert not followed.call.failures.counts


async def test_an_applications_stream_handlers_come_and_go_as_ever(follow_data: FollowData) -> None:
    """A second one for a topic is refused; without one the topic is read all the same."""
    followed, reader = await follow_data(), Reader()
    room = followed.room
    room.register_byte_stream_handler(COMMAND, reader.take)
    with pytest.raises(ValueError, match="already set"):
        room.register_byte_stream_handler(COMMAND, reader.take)
    room.unregister_byte_stream_handler(COMMAND)
    followed.stream("byte").send(b"unread").end()
    room.register_byte_stream_handler(COMMAND, reader.take)
    followed.stream("byte").send(b"read").end()
    assert [item.text for item in await followed.settled()] == ["unread", "read"]
    assert reader.got == [([b"read"], "alice")]


async def test_a_described_topic_is_kept_where_the_application_reads_it(follow_data: FollowData) -> None:
    """LiveKit gives a stream to nobody who has not named its topic."""
    followed, reader = await follow_data(), Reader()
    assert followed.room.stream("byte", followed.alice, FILES) is None
    followed.room.register_byte_stream_handler(FILES, reader.take)
    followed.stream("byte", FILES).send(b"x").end()
    [item] = await followed.settled()
    assert (item.topic, reader.got) == (FILES, [([b"x"], "alice")])
    followed.room.unregister_byte_stream_handler(FILES)
    assert followed.room.stream("byte", followed.alice, FILES) is None


async def test_a_topic_that_was_read_before_is_left_alone(
    follow_data: FollowData, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says that its streams are not kept; packets are."""
    room, reader = FakeRoom(FakeParticipant("alice")), Reader()
    room.register_byte_stream_handler(COMMAND, reader.take)
    followed = await follow_data(room)
    followed.stream("byte").send(b"x").end()
    await until(lambda: reader.got == [([b"x"], "alice")])
    followed.room.send(b"y", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["y"]
    assert "streams of a topic are not kept: the application read it before attach()" in caplog.messages


async def test_topics_of_others_are_not_touched(follow_data: FollowData) -> None:
    """LiveKit's own readers get LiveKit's own streams."""
    followed, readers = await follow_data(data_topics=("*",)), []
    followed.room.register_text_stream_handler("lk.chat", lambda reader, _identity: readers.append(reader))
    assert readers == [followed.stream("text", "lk.chat")]


# Where the conversation does not answer, and at the end


async def test_what_comes_while_redis_is_away_is_kept_then(
    monkeypatch: pytest.MonkeyPatch, follow_data: FollowData, world: World
) -> None:
    """In order, once."""
    followed = await follow_data()
    world.store.is_down = True
    for number in range(3):
        followed.room.send(str(number).encode(), COMMAND, followed.alice)
    await turns()
    world.store.is_down = False
    assert [item.text for item in await followed.settled()] == ["0", "1", "2"]


async def test_payloads_that_wait_are_bounded(
    follow_data: FollowData, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that only their facts wait."""
    monkeypatch.setattr(held_data, "MAX_UNSURE_BYTES", 25)
    followed = await follow_data()
    world.store.is_down = True
    for _ in range(3):
        followed.room.send(b"x" * 10, COMMAND, followed.alice)
    world.store.is_down = False
    assert [item.text for item in await followed.settled()] == ["x" * 10, "x" * 10, ""]
    await until(lambda: followed.data.held.are_durable)
    followed.room.send(b"y" * 10, COMMAND, followed.alice)
    assert (await followed.settled())[-1].text == "y" * 10


async def test_a_conversation_that_lost_everything_is_told_again(follow_data: FollowData, world: World) -> None:
    """What this job still holds."""
    followed = await follow_data()
    followed.room.send(b"first", COMMAND, followed.alice)
    await followed.settled()
    await until(lambda: followed.data.held.are_durable)
    followed.data.held.record_again(is_afresh=False)
    assert followed.call._standing.handle is not None
    await followed.call._standing.handle.clear_history()
    followed.data.held.record_again(is_afresh=False)  # what is known to be durable is not lost: it has left
    assert await followed.settled() == []
    followed.data.held.record_again(is_afresh=True)
    assert [item.text for item in await followed.settled()] == ["first"]


async def test_a_data_message_that_was_taken_out_is_not_told_again(follow_data: FollowData) -> None:
    """The application has taken one out of the conversation, which loses everything behind that."""
    followed = await follow_data()
    for payload in (b"first", b"second"):
        followed.room.send(payload, COMMAND, followed.alice)
    first, _ = await followed.settled()
    followed.call.remove(first.id)
    await followed.call.flush()
    assert followed.call._standing.handle is not None
    await followed.call._standing.handle.clear_history()
    followed.data.held.record_again(is_afresh=True)
    assert [item.text for item in await followed.settled()] == ["second"]


async def test_a_refused_data_message_costs_only_itself(
    follow_data: FollowData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and not quoted."""
    followed = await follow_data()
    with monkeypatch.context() as patch:
        error = InvalidInputError("no", field="x")
        patch.setattr(followed.call, "record", lambda _item: (_ for _ in ()).throw(error))
        followed.room.send(b"x", COMMAND, followed.alice)
    followed.room.send(b"y", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["y"]
    assert followed.call.failures.counts["data"] == 1


async def test_a_job_that_leaves_keeps_nothing_more(follow_data: FollowData) -> None:
    """The application goes on reading, also what it had begun to."""
    followed, reader = await follow_data(), Reader()
    followed.room.register_byte_stream_handler(FILES, reader.take)
    begun, alone = followed.stream("byte", FILES), followed.stream("byte")
    await turns()
    followed.data.stop()
    followed.room.send(b"x", COMMAND, followed.alice)
    assert followed.room.stream("byte", followed.alice, COMMAND) is None
    begun.send(b"1").end()
    followed.stream("byte", FILES).send(b"2").end()
    await until(lambda: reader.got == [([b"1"], "alice"), ([b"2"], "alice")])
    await until(lambda: alone.is_closed)
    assert await followed.settled() == []
