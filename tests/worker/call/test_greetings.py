"""What somebody is greeted with: by name, by how often they came, in their language."""

from datetime import timedelta

import pytest
from livekit import rtc

from tests.support.sessions.answering import Answer, gone_for, seed
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World

GREETING = {"en": "Hello, {name}!", "de": "Guten Tag, {name}!"}
AGAIN = {"en": "Visit {visits}, {name}.", "de": "Zum {visits}. Mal, {name}."}
BACK = {"en": "Sorry, {name}, I'm back.", "de": "Da bin ich wieder, {name}."}


async def test_somebody_is_greeted_by_name_and_visit(answer: Answer) -> None:
    """The second time as the second, whichever agent it is; a name with braces is a name."""
    room, name = FakeRoom(), "Ada {visits}"
    async with answer(room, greeting=GREETING, welcome_back=AGAIN, grace=timedelta(milliseconds=10)) as running:
        alice = room.enter(FakeParticipant("alice", name=name))
        await running.hears(f"Hello, {name}!")
        room.exit(alice)
        await gone_for(running.call, 0.01)
        room.enter(FakeParticipant("alice", name=name))
        await running.hears(f"Hello, {name}!", f"Visit 2, {name}.")


async def test_without_a_name_the_line_goes_without(answer: Answer) -> None:
    """In the caller's language."""
    alice = FakeParticipant("alice", attributes={"language": "de-AT"})
    async with answer(FakeRoom(alice), greeting=GREETING) as running:
        await running.hears("Guten Tag!")


async def test_who_has_lost_the_agent_is_called_by_name(answer: Answer, world: World) -> None:
    """The line of an agent that took over is one of theirs."""
    alice = await seed(world)
    alice.name = "Ada"
    alice.attributes["language"] = "de"
    async with answer(FakeRoom(alice), "job-2", greeting=GREETING, back_line=BACK) as running:
        await running.hears("Da bin ich wieder, Ada.")


@pytest.mark.parametrize(("name", "said"), [("Phone +4943112345", "Hello!"), ("Ada", "Hello, Ada!")])
async def test_a_caller_by_telephone_is_not_called_by_the_number(answer: Answer, name: str, said: str) -> None:
    """LiveKit's SIP service names who calls "Phone", and the number, where nobody has told a name; at the end too."""
    caller = FakeParticipant("sip_+4943112345", name=name, kind=rtc.ParticipantKind.PARTICIPANT_KIND_SIP)
    async with answer(FakeRoom(caller), greeting=GREETING, farewell=GREETING) as running:
        await running.hears(said)
        await running.session.aclose()
        assert running.heard.lines == [said, said]
