"""What participants send each other by topic, as the conversation keeps it."""

import asyncio
import base64
import hashlib
import tracemalloc

import pytest

from agent_worker.call import data_messages
from conversation_actors import DataMessage
from tests.support.fakes import turns
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World
from tests.support.sessions.following_data import ALICE_SENDS, COMMAND, FollowData


async def test_a_command_is_kept_with_who_sent_it(follow_data: FollowData, world: World) -> None:
    """As an item of its own kind, which any process reads."""
    followed = await follow_data()
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


async def test_the_same_command_sent_twice_is_kept_twice(follow_data: FollowData) -> None:
    """Somebody has meant it twice."""
    followed = await follow_data()
    for _ in range(2):
        followed.room.send(b"next", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["next", "next"]


async def test_the_sender_is_named_as_the_person_of_the_conversation(follow_data: FollowData) -> None:
    """A server is nobody; who has left already is known by what LiveKit calls it."""
    phone = FakeParticipant("alice", attributes={"person": "Alice Smith"})
    followed = await follow_data(FakeRoom(phone))
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
async def test_messages_of_unnamed_topics_are_not_kept(follow_data: FollowData, topic: str | None) -> None:
    """Nor any of LiveKit's."""
    followed = await follow_data()
    followed.room.send(b"x", topic, followed.alice)
    for kind in ("text", "byte"):
        assert followed.room.stream(kind, followed.alice, topic or "") is None
    followed.room.send(b"y", COMMAND, followed.alice)
    assert [item.text for item in await followed.settled()] == ["y"]


async def test_a_text_is_kept_when_it_has_ended(follow_data: FollowData) -> None:
    """Whole, with what its header told."""
    followed = await follow_data()
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
    follow_data: FollowData, data: bytes, form: dict[str, str]
) -> None:
    """Else its size and digest; a packet is treated alike."""
    followed = await follow_data(data_bytes=100)
    followed.stream("byte", name="bill.pdf", mime_type="application/pdf").send(data[:50], data[50:]).end()
    followed.room.send(data, COMMAND, followed.alice)
    packet, stream = sorted(await followed.settled(), key=lambda item: item.kind != "packet")
    for item in (packet, stream):
        told = item.to_dict()
        assert {name: told[name] for name in ("text", "data") if name in told} == form
        assert (item.size, item.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert item.payload == (data if form else None)
    assert (stream.kind, stream.name, stream.mime_type) == ("byte_stream", "bill.pdf", "application/pdf")


async def test_a_file_of_forty_megabytes_takes_no_memory(follow_data: FollowData) -> None:
    """Its digest is of all of it; of the file itself nothing stays."""
    followed, chunk, count = await follow_data(), b"\x00\x01" * 7500, 2667
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


async def test_a_file_that_breaks_off_says_so(follow_data: FollowData) -> None:
    """With what came of it."""
    followed = await follow_data()
    followed.stream("byte", name="a.txt").send(b"half of").break_off()
    [item] = await followed.settled()
    assert (item.interrupted, item.text, item.size) == (True, "half of", 7)


async def test_what_a_header_tells_is_bounded(follow_data: FollowData, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sends it; and none of it is in the log."""
    followed = await follow_data(data_topics=("*",))
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


async def test_one_that_the_conversation_takes_no_whole_is_kept_by_its_facts(follow_data: FollowData) -> None:
    """The setting may be larger than what an item may be."""
    followed = await follow_data(data_bytes=4 << 20)
    data = bytes(range(256)) * 1000
    followed.room.send(data, COMMAND, followed.alice)
    [item] = await followed.settled()
    assert (item.size, item.payload) == (len(data), None)
    assert item.sha256 == hashlib.sha256(data).hexdigest()


async def test_a_sender_cannot_take_the_place_of_another_ones_message(follow_data: FollowData) -> None:
    """Though the senders choose the ids of their streams, and some choose always the same."""
    followed = await follow_data(FakeRoom(FakeParticipant("alice"), FakeParticipant("mallory")))
    mallory = followed.room.remote_participants["mallory"]
    followed.stream("byte", stream_id="one").send(b"alice").end()
    taken = followed.room.stream("byte", mallory, COMMAND, stream_id="one")
    assert taken is not None
    taken.send(b"mallory").end()
    followed.stream("byte", stream_id="one", timestamp=2).send(b"alice again").end()
    assert [item.text for item in await followed.settled()] == ["alice", "mallory", "alice again"]


async def test_streams_at_one_time_are_bounded(follow_data: FollowData, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is not kept, which is counted; the application gets it."""
    monkeypatch.setattr(data_messages, "MAX_STREAMS", 2)
    followed, taken = await follow_data(), []
    streams = [followed.stream("byte") for _ in range(3)]
    assert [stream.is_closed for stream in streams] == [False, False, True]
    followed.room.register_byte_stream_handler(COMMAND, lambda reader, _identity: taken.append(reader))
    assert taken == [followed.stream("byte")]
    assert followed.call.failures.counts["data"] == 2
    for stream in streams[:2]:
        stream.end()
    assert len(await followed.settled()) == 2
