"""What is typed while one agent leaves and the next one begins is answered once."""

import asyncio
from typing import Any

import pytest
from livekit import rtc

from agent_worker.call.typed_words import TOPIC, TypedWords, typist
from agent_worker.failures import Failures
from tests.unit.fakes import turns, until
from tests.worker.answering import Answer
from tests.worker.fakes_call import FakeParticipant, FakeRoom, FakeText

ALICE = FakeParticipant("alice")


class Taker:
    """What a session brings to a room: it reads each text, in a task of its own."""

    def __init__(self) -> None:
        """Nothing was typed."""
        self.heard: list[tuple[str, str, str | None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def take(self, reader: Any, identity: str) -> None:
        """See `RoomIO`."""
        self._tasks.append(asyncio.create_task(self._read(reader, identity)))

    async def _read(self, reader: Any, identity: str) -> None:
        self.heard.append((await reader.read_all(), identity, typist()))


@pytest.fixture
def room() -> FakeRoom:
    """A room with one person in it."""
    return FakeRoom(ALICE)


@pytest.fixture
def typed(room: FakeRoom) -> TypedWords:
    """What stands between the room and a session."""
    words = TypedWords(room.as_room, Failures())
    words.start()
    return words


async def test_who_typed_is_known_to_whatever_comes_of_it(room: FakeRoom, typed: TypedWords) -> None:
    """The session takes texts as ever; the code that works on one can tell whose it is, other code cannot."""
    taker = Taker()
    room.register_text_stream_handler(TOPIC, taker.take)
    assert room.type("Hello", ALICE)
    await turns()
    assert taker.heard == [("Hello", "alice", "alice")]
    assert typist() is None
    assert not typed.has_kept


async def test_what_is_typed_before_the_session_has_the_call_is_kept_for_it(room: FakeRoom, typed: TypedWords) -> None:
    """In order, as often as it was typed; without what the other agent has answered; later texts come as ever."""
    taker = Taker()
    typed.keep()
    for text in ("yes", "and", "yes"):
        assert room.type(text, ALICE)
    room.register_text_stream_handler(TOPIC, taker.take)
    assert room.type("more", ALICE)
    await turns()
    assert taker.heard == []
    assert typed.has_kept
    await typed.release(["yes"])
    assert room.type("later", ALICE)
    await turns()
    assert [text for text, *_ in taker.heard] == ["and", "yes", "more", "later"]
    assert {who for *_, who in taker.heard} == {"alice"}


async def test_a_session_that_takes_no_text_gets_none(room: FakeRoom, typed: TypedWords) -> None:
    """Its text input is off: nobody takes what is typed from then on."""
    typed.keep()
    assert room.type("Hello", ALICE)
    await typed.release()
    assert not room.type("Hello?", ALICE)


async def test_an_application_that_reads_the_topic_itself_is_left_alone(room: FakeRoom) -> None:
    """There is one handler for a topic."""
    taker = Taker()
    room.register_text_stream_handler(TOPIC, taker.take)
    typed = TypedWords(room.as_room, Failures())
    typed.start()
    typed.keep()
    assert room.type("Hello", ALICE)
    await turns()
    assert [text for text, *_ in taker.heard] == ["Hello"]
    await typed.release()
    assert room.type("Hello?", ALICE)


async def test_a_second_handler_is_refused_as_ever(room: FakeRoom, typed: TypedWords) -> None:
    """LiveKit's room raises, and whoever registers expects that; other topics are not touched."""
    taker = Taker()
    typed.keep()
    room.register_text_stream_handler("mine", taker.take)
    room.register_text_stream_handler(TOPIC, taker.take)
    with pytest.raises(ValueError, match="already set"):
        room.register_text_stream_handler(TOPIC, taker.take)


async def test_a_text_that_breaks_off_costs_only_itself(room: FakeRoom) -> None:
    """Its sender has gone."""

    class Broken(FakeText):
        async def read_all(self) -> str:
            """Break off."""
            message = "gone"
            raise rtc.StreamError(message)

    failures = Failures()
    typed, taker = TypedWords(room.as_room, failures), Taker()
    typed.start()
    typed.keep()
    room.register_text_stream_handler(TOPIC, taker.take)
    room.text_handlers[TOPIC](Broken("x"), "alice")
    assert room.type("Hello", ALICE)
    await typed.release()
    await turns()
    assert [text for text, *_ in taker.heard] == ["Hello"]
    assert failures.counts == {"typed": 1}


# In a call


async def test_the_agent_that_leaves_takes_no_more_text(answer: Answer) -> None:
    """What is typed then is the successor's; what was typed a moment before is answered here first."""
    async with answer(FakeRoom(ALICE), greeting="") as running:
        await running.session_is_calm()
        taken: list[str] = []

        async def answering(text: str) -> None:
            taken.append(text)
            running.session._update_user_state("speaking")
            await asyncio.sleep(0.05)
            running.session._update_user_state("listening")

        answers: list[asyncio.Task[None]] = []

        def take(reader: Any, _identity: str) -> None:
            answers.append(asyncio.create_task(answering(reader._text)))

        running.room.register_text_stream_handler(TOPIC, take)
        running.call.handover_asked.set()
        await until(lambda: running.room.type("Are you there?", ALICE) and bool(taken))
        await until(lambda: TOPIC not in running.room.text_handlers)
        assert running.job.ended == []
        assert not running.room.type("Hello?", ALICE)
        assert await running.ended() == "handed over"
