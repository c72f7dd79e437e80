"""What is typed while one agent leaves and the next one begins is answered once."""

import asyncio
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, function_tool, stt
from livekit.agents.types import NOT_GIVEN
from livekit.agents.voice.io import AudioInput
from livekit.plugins import deepgram

from agent_worker.call.typed_words import TOPIC, TypedWords, typist
from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from agent_worker.offline.script import ChatRequest, Reply, RequestedCall
from tests.support.fakes import turns, until
from tests.support.sessions.answering import Answer
from tests.support.sessions.fake_conversation import FunctionScript
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom, FakeText

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
        text = await reader.read_all()
        self.heard.append((text, identity, typist(text)))


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
    assert typist("Hello") is None
    assert not typed.has_kept


@pytest.mark.parametrize(
    ("text", "is_heard", "who"),
    [
        ("Hello", True, "alice"),
        (" [typed]\nHello ", True, "alice"),
        ("something the application makes of it", False, "alice"),
        ("what somebody says meanwhile", True, None),
    ],
)
async def test_a_typed_text_becomes_one_message(
    room: FakeRoom, typed: TypedWords, text: str, *, is_heard: bool, who: str | None
) -> None:
    """What is said in a context that a typed text began is not the typist's; nor is any second message."""
    told: list[str | None] = []

    async def work(reader: Any) -> None:
        await reader.read_all()
        told.append(typist(text, is_heard=is_heard))
        told.append(await asyncio.create_task(second()))

    async def second() -> str | None:
        return typist("another")

    tasks: list[asyncio.Task[None]] = []
    room.register_text_stream_handler(TOPIC, lambda reader, _identity: tasks.append(asyncio.create_task(work(reader))))
    room.type("Hello", ALICE)
    await asyncio.gather(*tasks)
    assert told == [who, "alice" if who is None else None]


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


class Slow(FakeText):
    """A text whose end comes late."""

    def __init__(self, text: str) -> None:
        """It has begun."""
        super().__init__(text)
        self.ended = asyncio.Event()

    async def read_all(self) -> str:
        """Wait for the end."""
        await self.ended.wait()
        return self._text


async def test_a_text_that_does_not_end_holds_up_nobodys(room: FakeRoom, typed: TypedWords) -> None:
    """The others come in the order of their beginning; it follows when it ends, were it not answered by then."""
    taker, endless, late, known = Taker(), Slow("endless"), Slow("late"), Slow("known")
    typed.keep()
    room.register_text_stream_handler(TOPIC, taker.take)
    for reader in (endless, late, known):
        room.text_handlers[TOPIC](reader, "mallory")
    for text in ("one", "two"):
        assert room.type(text, ALICE)
    async with asyncio.timeout(5):
        await typed.release(["known"])
    assert room.type("three", ALICE)
    await turns()
    assert [text for text, *_ in taker.heard] == ["one", "two", "three"]
    known.ended.set()
    late.ended.set()
    await turns()
    assert taker.heard[3:] == [("late", "mallory", "mallory")]


async def test_a_text_that_ends_in_a_moment_keeps_its_place(room: FakeRoom, typed: TypedWords) -> None:
    """It had begun before the others."""
    taker, slow = Taker(), Slow("first")
    typed.keep()
    room.register_text_stream_handler(TOPIC, taker.take)
    room.text_handlers[TOPIC](slow, "alice")
    assert room.type("second", ALICE)
    released = asyncio.create_task(typed.release())
    await turns()
    slow.ended.set()
    await released
    await turns()
    assert [text for text, *_ in taker.heard] == ["first", "second"]


# In a call


class Silence(AudioInput):
    """A microphone."""

    def __init__(self) -> None:
        """Nothing is said."""
        super().__init__(label="silence")

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.02)
        return rtc.AudioFrame(bytes(640), 16000, 1, 320)


class Listener(Agent):
    """An agent that somebody speaks to, when `spoken` is set."""

    def __init__(self, spoken: asyncio.Event) -> None:
        """Nothing is said yet."""
        super().__init__(instructions="listen", stt=deepgram.STT(api_key="any"), turn_detection="stt")
        self._spoken = spoken

    async def stt_node(self, audio: Any, _settings: Any) -> Any:
        """Hear one sentence."""
        await self._spoken.wait()
        words = stt.SpeechData(language="en", text="this is bob speaking")  # type: ignore[arg-type]
        yield stt.SpeechEvent(type=stt.SpeechEventType.START_OF_SPEECH)
        yield stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[words])
        yield stt.SpeechEvent(type=stt.SpeechEventType.END_OF_SPEECH)
        async for _ in audio:
            pass


class Desk(Agent):
    """Hands over when it is asked to."""

    def __init__(self, spoken: asyncio.Event) -> None:
        """Nothing is said yet."""
        super().__init__(instructions="desk", stt=NOT_GIVEN)
        self._spoken = spoken

    @function_tool
    async def over(self) -> Agent:
        """Hand over."""
        return Listener(self._spoken)


def _hands_over(request: ChatRequest) -> Reply:
    if request.messages[-1]["role"] == "user" and "over" in request.tools:
        return Reply("", (RequestedCall("call_1", "over", "{}"),))
    return Reply("ok")


async def test_what_the_next_agent_hears_is_not_the_typists(answer: Answer) -> None:
    """A typed message hands over, and the agent that has the word then listens to everybody."""
    spoken = asyncio.Event()
    room, tasks = FakeRoom(ALICE), list[asyncio.Task[None]]()
    async with (
        OfflineServer(FunctionScript(_hands_over)) as server,
        answer(room, agent=Desk(spoken), on=server, greeting="") as running,
    ):
        running.session.input.audio = Silence()
        TypedWords(room.as_room, Failures()).start()

        async def reply(reader: Any) -> None:
            running.session.generate_reply(user_input=await reader.read_all())

        room.register_text_stream_handler(
            TOPIC, lambda reader, _identity: tasks.append(asyncio.create_task(reply(reader)))
        )
        room.type("hand me over", ALICE)
        await until(lambda: isinstance(running.session.current_agent, Listener))
        await running.session_is_calm()
        spoken.set()
        await running.is_known("this is bob speaking")
        said = {
            one.text_content: one.extra.get("participant")
            for one in running.session.history.items
            if one.type == "message" and one.role == "user"
        }
    assert said == {"hand me over": {"identity": "alice", "device": ALICE.sid}, "this is bob speaking": None}


async def test_the_agent_that_leaves_takes_no_more_text(answer: Answer) -> None:
    """What is typed then is the successor's; what was typed a moment before is answered here first."""
    async with answer(FakeRoom(ALICE), greeting="") as running:
        await running.session_is_calm()
        taken: list[str] = []
        is_answered = asyncio.Event()

        async def answering(text: str) -> None:
            taken.append(text)
            running.session._update_user_state("speaking")
            await is_answered.wait()
            running.session._update_user_state("listening")

        answers: list[asyncio.Task[None]] = []

        def take(reader: Any, _identity: str) -> None:
            answers.append(asyncio.create_task(answering(reader._text)))

        running.room.register_text_stream_handler(TOPIC, take)
        running.call.handover_asked.set()
        await until(lambda: running.room.type("Are you there?", ALICE) and bool(taken))
        assert TOPIC in running.room.text_handlers
        is_answered.set()
        await until(lambda: TOPIC not in running.room.text_handlers)
        assert running.job.ended == []
        assert not running.room.type("Hello?", ALICE)
        assert await running.ended() == "handed over"
