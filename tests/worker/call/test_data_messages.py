"""What participants send each other by topic, as the conversation keeps it."""

import asyncio
import base64
import hashlib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent_worker.call import data_messages, held_data
from agent_worker.call.arrivals import who
from agent_worker.call.data_messages import DataMessages
from agent_worker.settings import CallSettings, RoomSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.tenure.conversation import CallConversation
from conversation_actors import DataMessage, InvalidInputError, Message
from tests.support.fakes import turns, until
from tests.support.sessions.answering import Answer, crash, texts
from tests.support.sessions.fakes_call import FakeInfo, FakeParticipant, FakeRoom, FakeStream, World

COMMAND, FILES = "commands", "files.pdf"
ALICE_SENDS = b'{"do": "hold"}'


class Followed:
    """A room whose data messages are followed."""

    def __init__(self, room: FakeRoom, call: CallConversation, data: DataMessages) -> None:
        """By an agent that has the conversation."""
        self.room, self.call, self.data = room, call, data
        self.alice = room.remote_participants["alice"]

    @property
    def kept(self) -> list[DataMessage]:
        """What is in the conversation."""
        return [item for item in self.call.items if isinstance(item, DataMessage)]

    async def settled(self) -> list[DataMessage]:
        """The same, when all that came is durable."""
        await self.data.until_read(10)
        await self.call.flush()
        return self.kept

    def stream(self, kind: str, topic: str = COMMAND, **told: Any) -> FakeStream:
        """Alice begins to send something that somebody takes."""
        stream = self.room.stream(kind, self.alice, topic, **told)
        assert stream is not None
        return stream


Follow = Callable[..., Any]


@pytest.fixture
def follow(world: World) -> Follow:
    """Follow a room, as an agent that has the conversation."""

    async def begin(
        room: FakeRoom | None = None, holder: str = "job-1", *, call: CallConversation | None = None, **settings: Any
    ) -> Followed:
        room = room or FakeRoom(FakeParticipant("alice"))
        if call is None:
            replaces = None if holder == "job-1" else "job-1"
            call = world.call(holder, Assignment(conversation_id="c", replaces=replaces), settings=CallSettings())
            assert await call.open()
        settings = {"data_topics": (COMMAND, "files.*"), **settings}
        data = DataMessages(room.as_room, call, RoomSettings(**settings), lambda one: who(one, room.as_room))
        data.watch()
        return Followed(room, call, data)

    return begin


# What is kept


async def test_a_command_is_kept_with_who_sent_it(follow: Follow, world: World) -> None:
    """As an item of its own kind, which any process reads."""
    followed = await follow()
    followed.room.send(ALICE_SENDS, COMMAND, followed.alice)
    [item] = await followed.settled()
    other = await world.cluster.handle()
    assert [one for one in other.items if isinstance(one, DataMessage)] == [item]
    told = item.to_dict()
    assert {name: told[name] for name in told if name not in {"id", "created_at"}} == {
        "type": "data_message",
        "topic": COMMAND,
        "kind": "packet",
        "participant": {"identity": "alice", "device": followed.alice.sid},
        "size": len(ALICE_SENDS),
        "sha256": hashlib.sha256(ALICE_SENDS).hexdigest(),
        "text": ALICE_SENDS.decode(),
    }


async def test_the_same_command_sent_twice_is_kept_twice(follow: Follow) -> None:
    """Somebody has meant it twice."""
    followed = await follow()
    for _ in range(2):
        followed.room.send(b"next", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["next", "next"]


async def test_the_sender_is_named_as_the_person_of_the_conversation(follow: Follow) -> None:
    """A server is nobody; who has left already is known by what LiveKit calls it."""
    phone = FakeParticipant("alice", attributes={"person": "Alice Smith"})
    followed = await follow(FakeRoom(phone))
    followed.room.send(b"1", COMMAND, phone)
    followed.room.send(b"2", COMMAND, None)
    followed.room.exit(phone)
    followed.room.send(b"3", COMMAND, phone)
    assert [item.participant for item in await followed.settled()] == [
        {"identity": "Alice Smith", "device": phone.sid},
        None,
        {"identity": "alice", "device": None},
    ]


@pytest.mark.parametrize("topic", [None, "", "other", "Commands", "files", "lk.chat", "lk.agent.session"])
async def test_messages_of_unnamed_topics_are_not_kept(follow: Follow, topic: str | None) -> None:
    """Nor any of LiveKit's."""
    followed = await follow()
    followed.room.send(b"x", topic, followed.alice)
    for kind in ("text", "byte"):
        assert followed.room.stream(kind, followed.alice, topic or "") is None
    followed.room.send(b"y", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["y"]


async def test_a_text_is_kept_when_it_has_ended(follow: Follow) -> None:
    """Whole, with what its header told."""
    followed = await follow()
    stream = followed.stream("text", attributes={"reply": "7"}, mime_type="text/plain")
    stream.send("grö", "ße 👩‍👧")
    await turns()
    assert followed.kept == []
    stream.end()
    [item] = await followed.settled()
    assert (item.kind, item.text, item.size) == ("text_stream", "größe 👩‍👧", len("größe 👩‍👧".encode()))
    assert (item.mime_type, item.extra) == ("text/plain", {"attributes": {"reply": "7"}})


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", {"text": ""}),
        (b"plain\n", {"text": "plain\n"}),
        (b"\xff\xfe", {"data": base64.b64encode(b"\xff\xfe").decode()}),
        (b"a\x00b", {"data": base64.b64encode(b"a\x00b").decode()}),
        (b"x" * 100, {"text": "x" * 100}),
        (b"x" * 101, {}),
    ],
)
async def test_a_file_is_kept_byte_for_byte_where_it_is_small(
    follow: Follow, data: bytes, form: dict[str, str]
) -> None:
    """Else its size and digest; a packet is treated alike."""
    followed = await follow(data_bytes=100)
    followed.stream("byte", name="bill.pdf", mime_type="application/pdf").send(data[:50], data[50:]).end()
    followed.room.send(data, COMMAND, followed.alice)
    packet, stream = sorted(await followed.settled(), key=lambda item: item.kind != "packet")
    for item in (packet, stream):
        told = item.to_dict()
        assert {name: told[name] for name in ("text", "data") if name in told} == form
        assert (item.size, item.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert item.payload == (data if form else None)
    assert (stream.kind, stream.name, stream.mime_type) == ("byte_stream", "bill.pdf", "application/pdf")


async def test_a_file_of_forty_megabytes_takes_no_memory(follow: Follow) -> None:
    """Its digest is of all of it; of the file itself nothing stays."""
    followed, chunk, count = await follow(), b"\x00\x01" * 7500, 2667
    stream = followed.stream("byte")
    tracemalloc.start()
    for _ in range(count):
        stream.send(chunk)
        await asyncio.sleep(0)
    stream.end()
    [item] = await followed.settled()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert item.size == len(chunk) * count > 40_000_000
    assert item.sha256 == hashlib.sha256(chunk * count).hexdigest()
    assert (item.payload, item.interrupted) == (None, False)
    assert peak < 1 << 20


async def test_a_file_that_breaks_off_says_so(follow: Follow) -> None:
    """With what came of it."""
    followed = await follow()
    followed.stream("byte", name="a.txt").send(b"half of").break_off()
    [item] = await followed.settled()
    assert (item.interrupted, item.text, item.size) == (True, "half of", 7)


async def test_what_a_header_tells_is_bounded(follow: Follow, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sends it; and none of it is in the log."""
    followed = await follow(data_topics=("*",))
    followed.room.send(b"x", "private " * 1000, followed.alice)
    followed.room.register_byte_stream_handler("private " * 100, lambda _reader, _identity: None)
    long = "private words " * 1000
    stream = followed.stream(
        "byte", "private " * 100, name=long, mime_type=long, attributes={"a": long}, stream_id=long
    )
    stream.send(b"x").end()
    kept = await followed.settled()
    assert len(kept) == 2
    assert all(item.to_stored().size < 2000 for item in kept)
    assert "private" not in caplog.text


async def test_one_that_the_conversation_takes_no_whole_is_kept_by_its_facts(follow: Follow) -> None:
    """The setting may be larger than what an item may be."""
    followed = await follow(data_bytes=4 << 20)
    data = bytes(range(256)) * 1000
    followed.room.send(data, COMMAND, followed.alice)
    [item] = await followed.settled()
    assert (item.size, item.payload) == (len(data), None)
    assert item.sha256 == hashlib.sha256(data).hexdigest()


async def test_a_sender_cannot_take_the_place_of_another_ones_message(follow: Follow) -> None:
    """Though the senders choose the ids of their streams, and some choose always the same."""
    followed = await follow(FakeRoom(FakeParticipant("alice"), FakeParticipant("mallory")))
    mallory = followed.room.remote_participants["mallory"]
    followed.stream("byte", stream_id="one").send(b"alice").end()
    taken = followed.room.stream("byte", mallory, COMMAND, stream_id="one")
    assert taken is not None
    taken.send(b"mallory").end()
    followed.stream("byte", stream_id="one", timestamp=2).send(b"alice again").end()
    assert [item.text for item in await followed.settled()] == ["alice", "mallory", "alice again"]


async def test_streams_at_one_time_are_bounded(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is not kept, which is counted; the application gets it."""
    monkeypatch.setattr(data_messages, "MAX_STREAMS", 2)
    followed, taken = await follow(), []
    streams = [followed.stream("byte") for _ in range(3)]
    assert [stream.is_closed for stream in streams] == [False, False, True]
    followed.room.register_byte_stream_handler(COMMAND, lambda reader, _identity: taken.append(reader))
    assert taken == [followed.stream("byte")]
    assert followed.call.failures.counts["data"] == 2
    for stream in streams[:2]:
        stream.end()
    assert len(await followed.settled()) == 2


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
async def test_an_application_reads_the_same_stream(follow: Follow, kind: str) -> None:
    """Part by part, as it comes, as if nobody else did."""
    followed, reader = await follow(), Reader()
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


async def test_an_application_reads_all_of_a_text_at_once(follow: Follow) -> None:
    """By `read_all`; what broke off raises there as ever."""
    followed, readers = await follow(), []
    followed.room.register_text_stream_handler(COMMAND, lambda reader, _identity: readers.append(reader))
    followed.stream("text").send("one", "two").end()
    followed.stream("text").send("one").break_off()
    assert await readers[0].read_all() == "onetwo"
    with pytest.raises(ConnectionError):
        await readers[1].read_all()
    assert [item.interrupted for item in await followed.settled()] == [False, True]


async def test_an_application_that_reads_no_further_costs_nothing(follow: Follow) -> None:
    """It closes its reader, or raises in its handler; the message is kept."""
    followed, readers = await follow(), []
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


async def test_an_applications_stream_handlers_come_and_go_as_ever(follow: Follow) -> None:
    """A second one for a topic is refused; without one the topic is read all the same."""
    followed, reader = await follow(), Reader()
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


async def test_a_described_topic_is_kept_where_the_application_reads_it(follow: Follow) -> None:
    """LiveKit gives a stream to nobody who has not named its topic."""
    followed, reader = await follow(), Reader()
    assert followed.room.stream("byte", followed.alice, FILES) is None
    followed.room.register_byte_stream_handler(FILES, reader.take)
    followed.stream("byte", FILES).send(b"x").end()
    [item] = await followed.settled()
    assert (item.topic, reader.got) == (FILES, [([b"x"], "alice")])
    followed.room.unregister_byte_stream_handler(FILES)
    assert followed.room.stream("byte", followed.alice, FILES) is None


async def test_a_topic_that_was_read_before_is_left_alone(follow: Follow, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says that its streams are not kept; packets are."""
    room, reader = FakeRoom(FakeParticipant("alice")), Reader()
    room.register_byte_stream_handler(COMMAND, reader.take)
    followed = await follow(room)
    followed.stream("byte").send(b"x").end()
    await until(lambda: reader.got == [([b"x"], "alice")])
    followed.room.send(b"y", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["y"]
    assert "streams of a topic are not kept: the application read it before attach()" in caplog.messages


async def test_topics_of_others_are_not_touched(follow: Follow) -> None:
    """LiveKit's own readers get LiveKit's own streams."""
    followed, readers = await follow(data_topics=("*",)), []
    followed.room.register_text_stream_handler("lk.chat", lambda reader, _identity: readers.append(reader))
    assert readers == [followed.stream("text", "lk.chat")]


# Where the conversation does not answer, and at the end


async def test_what_comes_while_redis_is_away_is_kept_then(
    monkeypatch: pytest.MonkeyPatch, follow: Follow, world: World
) -> None:
    """In order, once."""
    followed = await follow()
    world.store.is_down = True
    for number in range(3):
        followed.room.send(str(number).encode(), COMMAND, followed.alice)
    await turns()
    world.store.is_down = False
    assert [item.text for item in await followed.settled()] == ["0", "1", "2"]


async def test_payloads_that_wait_are_bounded(follow: Follow, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that only their facts wait."""
    monkeypatch.setattr(held_data, "MAX_UNSURE_BYTES", 25)
    followed = await follow()
    world.store.is_down = True
    for _ in range(3):
        followed.room.send(b"x" * 10, COMMAND, followed.alice)
    world.store.is_down = False
    assert [item.text for item in await followed.settled()] == ["x" * 10, "x" * 10, ""]
    await until(lambda: followed.data.held.are_durable)
    followed.room.send(b"y" * 10, COMMAND, followed.alice)
    assert (await followed.settled())[-1].text == "y" * 10


async def test_a_conversation_that_lost_everything_is_told_again(follow: Follow, world: World) -> None:
    """What this job still holds."""
    followed = await follow()
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


async def test_a_data_message_that_was_taken_out_is_not_told_again(follow: Follow) -> None:
    """The application has taken one out of the conversation, which loses everything behind that."""
    followed = await follow()
    for payload in (b"first", b"second"):
        followed.room.send(payload, COMMAND, followed.alice)
    first, _ = await followed.settled()
    followed.call.remove(first.id)
    await followed.call.flush()
    assert followed.call._standing.handle is not None
    await followed.call._standing.handle.clear_history()
    followed.data.held.record_again(is_afresh=True)
    assert [item.text for item in await followed.settled()] == ["second"]


async def test_a_refused_data_message_costs_only_itself(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and not quoted."""
    followed = await follow()
    with monkeypatch.context() as patch:
        error = InvalidInputError("no", field="x")
        patch.setattr(followed.call, "record", lambda _item: (_ for _ in ()).throw(error))
        followed.room.send(b"x", COMMAND, followed.alice)
    followed.room.send(b"y", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["y"]
    assert followed.call.failures.counts["data"] == 1


async def test_a_job_that_leaves_keeps_nothing_more(follow: Follow) -> None:
    """The application goes on reading, also what it had begun to."""
    followed, reader = await follow(), Reader()
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


# In calls


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
async def test_in_a_handover_no_data_message_is_lost_or_doubled(world: World, follow: Follow) -> None:
    """Both jobs get what is sent then: the one that leaves keeps it until it goes, the other what came behind that."""
    alice = FakeParticipant("alice")
    old = await follow(FakeRoom(alice))
    old.room.send(b"next", COMMAND, alice)
    await old.settled()
    assignment = Assignment(conversation_id="c", replaces="job-1", is_planned=True)
    successor = world.call("job-2", assignment, settings=CallSettings())
    await successor.open()
    new = await follow(FakeRoom(alice), call=successor)

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
    follow: Follow, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two agents in a room get the same stream: neither takes the place of what the other has kept."""
    followed = await follow()
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


async def test_a_removed_data_message_is_not_recorded_again_after_a_loss(follow: Follow) -> None:
    """Though the conversation loses everything, and is told what came."""
    followed = await follow()
    for words in (b"secret", b"hold"):
        followed.room.send(words, COMMAND, followed.alice)
    secret, hold = await followed.settled()
    followed.call.remove(secret.id)
    await followed.settled()
    followed.data.held.record_again(is_afresh=True)
    assert [item.text for item in await followed.settled()] == [hold.text]
