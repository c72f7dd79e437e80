"""Whom an agent listens to: whoever speaks, unless the application says who; and whose a message is."""

import asyncio
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import AgentSession, ConversationItemAddedEvent, UserInputTranscribedEvent
from livekit.agents.llm import AgentHandoff
from livekit.agents.voice.room_io import RoomOptions

from agent_worker.call.linking import Linking, is_starting
from agent_worker.call.speaker import Speaker
from agent_worker.call.typed_words import TOPIC, TypedWords
from agent_worker.failures import Failures
from agent_worker.offline import OfflineServer
from tests.support.fakes import turns
from tests.support.sessions.answering import Answer, user
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.room_io import FakeRoomIO
from tests.worker.conftest import SessionFactory

ALICE, BOB = FakeParticipant("alice"), FakeParticipant("bob")


class Bench:
    """A session that listens in a room with two people."""

    def __init__(self, session: AgentSession[None]) -> None:
        """It has just started."""
        self.room = FakeRoom(ALICE, BOB)
        self.room_io = FakeRoomIO(self.room.remote_participants)
        self.session = session
        self.linking = Linking(session, self.room.as_room, Failures())
        self.linking.start()
        session._room_io = cast("Any", self.room_io)
        session.emit("conversation_item_added", ConversationItemAddedEvent(item=AgentHandoff(new_agent_id="a")))

    def speak(self, *people: FakeParticipant) -> None:
        """They are heard."""
        self.room.emit("active_speakers_changed", list(people))

    def find(self, identity: str) -> None:
        """See `FakeRoomIO.find`."""
        token = is_starting.set(True)
        self.room_io.find(identity)
        is_starting.reset(token)


@pytest.fixture
async def bench(server: OfflineServer, new_session: SessionFactory) -> Any:
    """A session that listens."""
    session = await new_session(server)
    yield Bench(session)
    session._room_io = None


async def test_whom_livekit_finds_is_no_choice_of_the_application(bench: Bench) -> None:
    """The agent turns to whoever speaks then."""
    bench.find("alice")
    bench.linking.follow()
    bench.speak(BOB)
    assert bench.room_io.linked == ["alice", "bob"]
    bench.speak(ALICE)
    assert bench.room_io.linked[-1] == "alice"


async def test_whom_the_application_chooses_is_listened_to(bench: Bench) -> None:
    """Whoever else speaks, or leaves, until it lets go of that."""
    bench.find("alice")
    cast("Any", bench.room_io).set_participant("bob")
    bench.speak(ALICE)
    bench.linking.to_somebody(["alice"])
    assert bench.room_io.linked == ["alice", "bob"]
    cast("Any", bench.room_io).set_participant(None)
    bench.linking.to_somebody(["alice"])
    assert bench.room_io.linked[-1] == "alice"


async def test_the_one_who_is_found_may_be_chosen_too(bench: Bench) -> None:
    """LiveKit links whom it finds once; the same again is the application's word."""
    bench.find("alice")
    bench.find("alice")
    bench.speak(BOB)
    assert bench.room_io.linked == ["alice", "alice"]


async def test_whom_livekit_linked_during_the_start_may_be_chosen(bench: Bench) -> None:
    """By a tool, say, which runs in a task that the start has begun."""
    bench.room_io.linked_participant = ALICE
    bench.linking.has_started()
    bench.find("alice")
    bench.speak(BOB)
    assert bench.room_io.linked == ["alice"]


async def test_a_participant_that_the_start_names_is_kept(bench: Bench) -> None:
    """As in ``room_options=RoomOptions(participant_identity=…)``."""
    bench.linking.heed(RoomOptions())
    assert not bench.linking.is_pinned
    bench.linking.heed(RoomOptions(participant_identity="alice"))
    bench.find("alice")
    bench.speak(BOB)
    assert bench.room_io.linked == ["alice"]


async def test_kinds_that_the_start_names_are_kept_to(bench: Bench) -> None:
    """A telephone line is listened to, and not whoever looks on."""
    phone = bench.room.enter(FakeParticipant("phone", kind=rtc.ParticipantKind.PARTICIPANT_KIND_SIP))
    bench.linking.heed(RoomOptions(participant_kinds=[rtc.ParticipantKind.PARTICIPANT_KIND_SIP]))
    bench.speak(BOB)
    bench.linking.to_somebody(["alice", "bob"])
    assert bench.room_io.linked == []
    bench.linking.to_somebody(["alice", "phone"])
    assert bench.room_io.linked == [phone.identity]


async def test_spoken_words_are_of_whom_the_agent_listened_to(bench: Bench) -> None:
    """Those of whom the agent listened to when they were final, though it listens to another by now."""
    who = Speaker(bench.session, bench.room.as_room, bench.linking, cast("Any", People()))
    who.start(Failures())
    bench.find("alice")
    bench.session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript="Hello", is_final=True))
    bench.speak(BOB)
    assert who(user("Hello")) == {"identity": "alice", "device": ALICE.sid}
    assert who(user("Hello")) is None


async def test_who_speaks_now_is_told_from_who_has_spoken(bench: Bench) -> None:
    """Until the words that were final are a message; asked of neither, nobody's words change hands."""
    who = Speaker(bench.session, bench.room.as_room, bench.linking, cast("Any", People()))
    who.start(Failures())
    assert (who.now, who.latest) == (None, None)
    bench.find("alice")
    assert (who.now, who.latest) == ("alice", "alice")
    bench.session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript="Hello", is_final=True))
    bench.speak(BOB)
    assert (who.now, who.latest) == ("bob", "alice")
    assert who(user("Hello")) == {"identity": "alice", "device": ALICE.sid}
    assert (who.now, who.latest) == ("bob", "bob")


async def test_typed_words_are_of_their_sender(bench: Bench) -> None:
    """The sender's, in whatever task they become a message."""
    who = Speaker(bench.session, bench.room.as_room, bench.linking, cast("Any", People()))
    who.start(Failures())
    bench.find("alice")
    TypedWords(bench.room.as_room, Failures()).start()
    told: list[Any] = []
    tasks: list[asyncio.Task[None]] = []

    async def become_message() -> None:
        await asyncio.sleep(0)
        told.append(who(user("Hello")))

    bench.room.register_text_stream_handler(
        TOPIC, lambda _reader, _identity: tasks.append(asyncio.create_task(become_message()))
    )
    bench.room.type("Hello", BOB)
    await turns()
    bench.room.text_handlers[TOPIC](None, "gone")
    await turns()
    assert told == [{"identity": "bob", "device": BOB.sid}, {"identity": "gone", "device": None}]


class People:
    """See `Participants.who`."""

    def who(self, participant: FakeParticipant) -> dict[str, Any]:
        """By its identity."""
        return {"identity": participant.identity, "device": participant.sid}


async def test_who_spoke_is_in_the_conversation(answer: Answer) -> None:
    """As the person that the conversation knows, with the device; what nobody said has nobody."""
    alice = FakeParticipant("alice-phone", attributes={"person": "alice"})
    async with answer(FakeRoom(alice), greeting="") as running:
        await running.session_is_calm()
        running.session._room_io = cast("Any", FakeRoomIO({"alice-phone": alice}))
        handoff = AgentHandoff(new_agent_id="support_agent")
        running.session.emit("conversation_item_added", ConversationItemAddedEvent(item=handoff))
        cast("Any", running.session.room_io).set_participant("alice-phone")
        heard = UserInputTranscribedEvent(transcript="Hello", is_final=True)
        running.session.emit("user_input_transcribed", heard)
        for text in ("Hello", "[from the application]"):
            running.session._conversation_item_added(user(text))
            await running.is_known(text)
        running.session._room_io = None
        said = [item for item in running.call.items if item.type == "message"]
        assert [item.to_dict().get("extra", {}).get("participant") for item in said] == [
            {"identity": "alice", "device": alice.sid},
            None,
        ]
