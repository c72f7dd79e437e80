"""The people of a room, as the conversation knows them: who they are, when they come, what they are told."""

import json
import logging
from datetime import timedelta
from typing import Any, cast

import pytest
from livekit import rtc

from agent_worker.call.participants import Participants
from agent_worker.call.welcome import GREETED
from agent_worker.lines import Welcome
from conversation_actors import ConversationHandle
from tests.support.fakes import turns, until
from tests.support.sessions.answering import gone_for
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, Permissions, World
from tests.support.sessions.following import STEPS, Follow

KIND = rtc.ParticipantKind


def as_remote(participant: FakeParticipant) -> rtc.RemoteParticipant:
    """Return itself, for those who want the real one."""
    return cast("rtc.RemoteParticipant", participant)


# Coming and going


async def test_who_is_there_already_counts_as_arriving(follow: Follow) -> None:
    """LiveKit has no event for them."""
    followed = await follow(FakeRoom(FakeParticipant("alice", name="Alice"), FakeParticipant("bob")))
    people = await followed.settled()
    assert {name: one.connected for name, one in people.items()} == {"alice": True, "bob": True}
    assert people["alice"].name == "Alice"
    assert followed.participants.present == {"alice", "bob"}
    assert await followed.told() == [Welcome.FIRST, Welcome.FIRST]
    assert followed.empty == [False]


async def test_a_room_that_is_not_connected_yet_is_followed_from_then_on(follow: Follow) -> None:
    """Nobody arrives before that."""
    room = FakeRoom(FakeParticipant("alice"), is_connected=False)
    followed = await follow(room)
    assert await followed.settled() == {}
    assert followed.empty == []
    room.change_connection(is_connected=True)
    assert (await followed.person()).connected


async def test_who_leaves_and_comes_back_is_one_person(follow: Follow) -> None:
    """One person, who comes back: counted as the conversation counts."""
    followed = await follow(FakeRoom())
    for number in range(3):
        alice = followed.room.enter(FakeParticipant("alice"))
        here = await followed.person()
        assert (here.connected, here.devices, here.reconnect_count) == (True, (alice.sid,), number)
        followed.room.exit(alice)
        away = await followed.person()
        assert (away.connected, away.devices, away.reconnect_count) == (False, (), number)
    assert followed.empty == [True, *([False, True] * 3)]


@pytest.mark.parametrize("order", ["the new one first", "the old one first"])
async def test_a_page_that_is_reloaded_is_the_same_person(follow: Follow, order: str) -> None:
    """In whichever order the two events come: one person, connected by the new device, not greeted again."""
    followed = await follow(FakeRoom())
    old, new = followed.room.enter(FakeParticipant("alice")), FakeParticipant("alice")
    steps = [lambda: followed.room.enter(new), lambda: followed.room.exit(old)]
    for step in steps if order == "the new one first" else reversed(steps):
        step()
    people = await followed.settled()
    assert list(people) == ["alice"]
    assert (people["alice"].connected, people["alice"].devices) == (True, (new.sid,))
    assert people["alice"].reconnect_count == (0 if order == "the new one first" else 1)
    assert followed.participants.present == {"alice"}
    assert followed.empty[-1] is False
    assert await followed.told() == [Welcome.FIRST, Welcome.NOTHING]


async def test_the_same_arrival_told_twice_is_one(follow: Follow) -> None:
    """An event about somebody whom the first look had seen: nobody has lost an agent."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    followed.room.enter(alice)
    followed.room.change_connection(is_connected=True)
    assert await followed.told() == [Welcome.FIRST]
    assert (await followed.person()).devices == (alice.sid,)


async def test_what_was_missed_while_the_connection_was_lost(follow: Follow) -> None:
    """After it, those who left have left, those who came are there, those who stayed are not greeted again."""
    alice, bob, carol = (FakeParticipant(name) for name in ("alice", "bob", "carol"))
    room = FakeRoom(alice, bob)
    followed = await follow(room)
    await followed.settled()
    room.is_connected = False
    room.remote_participants = {"alice": alice, "carol": carol}
    room.change_connection(is_connected=True)
    people = await followed.settled()
    assert {name: one.connected for name, one in people.items()} == {"alice": True, "bob": False, "carol": True}
    assert followed.participants.present == {"alice", "carol"}
    assert await followed.told() == [Welcome.FIRST] * 3


async def test_agents_and_recorders_are_not_people(follow: Follow) -> None:
    """They come, change and go unnoticed; a room with nobody else is empty."""
    kinds = (KIND.PARTICIPANT_KIND_AGENT, KIND.PARTICIPANT_KIND_EGRESS, KIND.PARTICIPANT_KIND_INGRESS)
    room = FakeRoom(*(FakeParticipant(f"robot-{kind}", kind=kind) for kind in kinds))
    followed = await follow(room)
    late = room.enter(FakeParticipant("robot", kind=KIND.PARTICIPANT_KIND_AGENT))
    room.emit("participant_name_changed", late, "", "x")
    room.exit(late)
    assert await followed.settled() == {}
    assert followed.empty == [True]
    assert followed.welcomes == []


async def test_a_telephone_caller_is_a_person(follow: Follow) -> None:
    """With what LiveKit tells of the line, less its own attributes."""
    line = FakeParticipant(
        "sip_1",
        name="+49 30 1234",
        kind=KIND.PARTICIPANT_KIND_SIP,
        attributes={"sip.phoneNumber": "+49301234", "lk.agent.name": "x"},
        metadata="free text",
    )
    followed = await follow(FakeRoom(line))
    person = await followed.person("sip_1")
    assert person.name == "+49 30 1234"
    assert person.metadata == {
        "kind": "sip",
        "livekit_identity": "sip_1",
        "attributes": {"sip.phoneNumber": "+49301234"},
        "metadata": "free text",
    }


async def test_devices_whose_tokens_name_one_person_are_one_person(follow: Follow) -> None:
    """Several LiveKit participants whose tokens name one person; that person is away when all of them are."""
    phone = FakeParticipant("alice-phone", attributes={"person": "alice"})
    laptop = FakeParticipant("alice-laptop", attributes={"person": "alice"})
    followed = await follow(FakeRoom(phone))
    followed.room.enter(laptop)
    person = await followed.person()
    assert set(person.devices) == {phone.sid, laptop.sid}
    assert followed.participants.present == {"alice-phone", "alice-laptop"}
    followed.room.exit(phone)
    assert (await followed.person()).connected
    followed.room.exit(laptop)
    assert not (await followed.person()).connected
    assert list(await followed.settled()) == ["alice"]
    assert await followed.told() == [Welcome.FIRST, Welcome.NOTHING]


async def test_nobody_makes_himself_somebody_else(follow: Follow) -> None:
    """An attribute that the participant could have written does not say who it is."""
    mallory = FakeParticipant(
        "mallory", attributes={"person": "alice"}, permissions=Permissions(can_update_metadata=True)
    )
    followed = await follow(FakeRoom(mallory))
    assert list(await followed.settled()) == ["mallory"]


@pytest.mark.parametrize(
    ("metadata", "person"),
    [
        ('{"user_id": "u-42"}', "u-42"),
        ('{"user_id": 42}', "42"),
        ('{"user_id": true}', "sip_1"),
        ('{"user_id": 4.2}', "sip_1"),
        ('{"user_id": ""}', "sip_1"),
        ('{"user_id": {"id": 1}}', "sip_1"),
        ('{"user_id": "a\\u0000b"}', "sip_1"),
        ('{"user_id": ', "sip_1"),
        ("u-42", "sip_1"),
        ("", "sip_1"),
    ],
)
async def test_the_room_says_whose_call_it_is(follow: Follow, metadata: str, person: str) -> None:
    """Its metadata come from a server, not from who is in it; what is no name names nobody, and somebody joins."""
    room = FakeRoom(FakeParticipant("sip_1"))
    room.metadata = metadata
    followed = await follow(room)
    assert (await followed.person(person)).connected
    assert list(await followed.settled()) == [person]


async def test_who_has_a_name_of_his_own_is_not_the_rooms(follow: Follow) -> None:
    """A token's `person` comes first; one that the participant may have written itself is none, as ever."""
    carol = FakeParticipant("carol-phone", attributes={"person": "carol"})
    mallory = FakeParticipant(
        "mallory", attributes={"person": "carol"}, permissions=Permissions(can_update_metadata=True)
    )
    room = FakeRoom(carol, mallory)
    room.metadata = '{"user_id": "u-42"}'
    followed = await follow(room)
    people = await followed.settled()
    assert {name: one.devices for name, one in people.items()} == {"carol": (carol.sid,), "u-42": (mallory.sid,)}
    assert followed.participants.who(as_remote(mallory))["identity"] == "u-42"


@pytest.mark.parametrize("holder", ["job-1", "job-2"])
async def test_metadata_that_come_later_make_nobody_new(follow: Follow, holder: str) -> None:
    """Who is here stays whom it came as, for this agent and for one that follows it."""
    alice = FakeParticipant("alice")
    room = FakeRoom(alice)
    followed = await follow(room)
    await followed.settled()
    room.metadata = '{"user_id": "u-42"}'
    if holder == "job-2":
        followed.participants.stop()
        followed = await follow(room, holder)
        await followed.settled()
    else:
        room.change_connection(is_connected=True)
    bob = room.enter(FakeParticipant("bob"))
    people = await followed.settled()
    assert {name: one.devices for name, one in people.items()} == {"alice": (alice.sid,), "u-42": (bob.sid,)}
    assert followed.participants.who(as_remote(alice))["identity"] == "alice"


async def test_a_person_leaves_as_whom_it_came(follow: Follow) -> None:
    """Should its attributes or its rights have changed in between."""
    alice = FakeParticipant("alice-phone", attributes={"person": "alice"})
    followed = await follow(FakeRoom(alice))
    await followed.settled()
    alice.permissions = Permissions(can_update_metadata=True)
    followed.room.exit(alice)
    assert not (await followed.person()).connected


# What is known of them


async def test_changed_names_metadata_and_languages_are_followed(follow: Follow) -> None:
    """Name, metadata, attributes, language."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    alice.name = "Alice A."
    followed.room.emit("participant_name_changed", alice, "", "Alice A.")
    assert (await followed.person()).name == "Alice A."
    alice.metadata = '{"language": "de"}'
    followed.room.emit("participant_metadata_changed", alice, "", alice.metadata)
    assert (await followed.person()).language == "de"
    alice.attributes = {"language": "fr", "seat": "3"}
    followed.room.emit("participant_attributes_changed", {"language": "fr"}, alice)
    person = await followed.person()
    assert (person.language, person.metadata["attributes"]) == ("fr", {"language": "fr", "seat": "3"})


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ('{"language": "de"}', "de"),
        ('{"language": 7}', None),
        ('{"language": ""}', None),
        ("{", None),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, None),
        ("de", None),
        ('["language"]', None),
        (json.dumps({"language": "x" * 40_000}), "x" * 64),
    ],
)
async def test_a_language_is_read_from_json_metadata(follow: Follow, metadata: str, language: str | None) -> None:
    """Where it is JSON and says so; whatever else it is, somebody joins."""
    followed = await follow(FakeRoom(FakeParticipant("alice", metadata=metadata)))
    person = await followed.person()
    assert (person.connected, person.language) == (True, language)
    assert followed.welcomes == [(Welcome.FIRST, language)]


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"metadata": "private words " * 5000}, id="metadata"),
        pytest.param({"attributes": {"seat": "private words " * 5000}}, id="attributes"),
        pytest.param({"attributes": {"language": "private words " * 5000}}, id="a language"),
        pytest.param({"name": "private words " * 5000}, id="a name"),
    ],
)
async def test_what_is_too_large_costs_itself_and_not_the_person(
    follow: Follow, told: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The join stands, and is told in the log without quoting it."""
    caplog.set_level(logging.DEBUG)
    followed = await follow(FakeRoom(FakeParticipant("alice", **told)))
    person = await followed.person()
    assert person.connected
    assert len(json.dumps(dict(person.metadata))) < 1000
    assert await followed.told() == [Welcome.FIRST]
    assert "private words" not in caplog.text


# What they are told


async def test_a_greeting_is_noted_before_it_is_said(
    follow: Follow, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durably: when `on_welcome` is called, another process sees the note."""
    seen: list[Any] = []
    other = await world.cluster.handle()
    original = Participants._join

    async def watched(self: Participants, handle: ConversationHandle, lease: Any, arrival: Any) -> None:
        self._on_welcome = lambda _wanted, _language: seen.append(handle.participants["alice"].context)
        await original(self, handle, lease, arrival)

    monkeypatch.setattr(Participants, "_join", watched)
    followed = await follow(FakeRoom(FakeParticipant("alice")))
    await followed.settled()
    assert seen == [{GREETED: 0}]
    await until(lambda: other.participants["alice"].context == {GREETED: 0})


async def test_without_a_store_nobody_is_greeted(follow: Follow, world: World) -> None:
    """What cannot be noted is not said: else a second agent would say it again."""
    followed = await follow(FakeRoom())
    await followed.settled()
    world.store.hold()
    written = len(world.store.appends)
    followed.room.enter(FakeParticipant("alice"))
    await until(lambda: len(world.store.appends) > written)
    await turns()
    assert followed.welcomes == []
    world.store.release()
    assert await followed.told() == [Welcome.FIRST]


async def test_the_first_greeting_is_given_once(follow: Follow, world: World) -> None:
    """However often somebody comes, and whichever agent is there."""
    alice = FakeParticipant("alice")
    first = await follow(FakeRoom(alice))
    for _ in range(3):
        first.room.exit(alice)
        alice = first.room.enter(FakeParticipant("alice"))
    assert await first.told() == [Welcome.FIRST] + [Welcome.NOTHING] * 3
    await first.call.aclose()
    second = await follow(FakeRoom(FakeParticipant("alice")), "job-2")
    assert await second.told() == [Welcome.NOTHING]
    assert world.clients == 1


async def test_who_was_away_is_welcomed_back_once(follow: Follow) -> None:
    """After the grace; a second device changes nothing."""
    followed = await follow(FakeRoom(), grace=timedelta(milliseconds=20))
    alice = followed.room.enter(FakeParticipant("alice", attributes={"language": "de"}))
    await followed.settled()
    followed.room.exit(alice)
    await followed.settled()
    await gone_for(followed.call, 0.02)
    followed.room.enter(FakeParticipant("alice", attributes={"language": "de"}))
    followed.room.enter(FakeParticipant("alice", attributes={"language": "de"}))
    await followed.settled()
    assert followed.welcomes == [(Welcome.FIRST, "de"), (Welcome.BACK, "de"), (Welcome.NOTHING, "de")]


async def test_a_device_that_was_there_with_the_dead_agent_is_resumed(follow: Follow) -> None:
    """It has heard everything up to the crash."""
    alice = FakeParticipant("alice")
    first = await follow(FakeRoom(alice))
    await first.settled()
    await first.call.aclose()
    second = await follow(FakeRoom(alice), "job-2")
    assert await second.told() == [Welcome.RESUME]
    person = await second.person()
    assert (person.devices, person.reconnect_count) == ((alice.sid,), 0)


async def test_devices_that_a_dead_agent_left_behind_leave(follow: Follow) -> None:
    """Those who left while nobody watched, and the old connection of one who came back meanwhile."""
    alice, bob = FakeParticipant("alice"), FakeParticipant("bob")
    first = await follow(FakeRoom(alice, bob))
    await first.settled()
    await first.call.aclose()
    again = FakeParticipant("alice")
    second = await follow(FakeRoom(again), "job-2")
    people = await second.settled()
    assert not people["bob"].connected
    assert people["alice"].devices == (again.sid,)
    assert people["alice"].reconnect_count == 1
    assert await second.told() == [Welcome.NOTHING]


async def test_an_application_keeps_its_own_context(follow: Follow, world: World) -> None:
    """The note of the greeting is put beside it."""
    handle = await world.cluster.handle()
    await handle.join("alice")
    await handle.update_participant("alice", context={"tier": "gold"})
    followed = await follow(FakeRoom(FakeParticipant("alice")))
    assert (await followed.person()).context["tier"] == "gold"


# How long it is kept


async def test_the_conversation_is_kept_longer_for_who_comes_back(follow: Follow) -> None:
    """By the number of returns; set only where it changes."""
    followed = await follow(FakeRoom())
    kept: list[timedelta | None] = []
    handle = followed.call._standing.handle
    original = handle.set_retention

    async def counted(duration: timedelta, **named: Any) -> Any:
        kept.append(duration)
        return await original(duration, **named)

    handle.set_retention = counted
    for _ in range(5):
        alice = followed.room.enter(FakeParticipant("alice"))
        await followed.settled()
        followed.room.exit(alice)
    await followed.settled()
    assert kept == list(STEPS)
    assert handle.retention == STEPS[2]


# Handlers


async def test_a_room_event_that_cannot_be_followed_raises_nothing(
    follow: Follow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A TypeError would come out of LiveKit's event loop; it is told without the error's text."""
    followed = await follow(FakeRoom())

    def broken(*_arguments: Any) -> None:
        message = "private words"
        raise TypeError(message)

    monkeypatch.setattr(followed.call, "later", broken)
    alice = followed.room.enter(FakeParticipant("alice"))
    followed.room.emit("participant_name_changed", alice, "", "x")
    followed.room.emit("participant_attributes_changed", {}, alice)
    followed.room.emit("participant_metadata_changed", alice, "", "x")
    followed.room.exit(alice)
    followed.room.change_connection(is_connected=True)
    assert "private words" not in caplog.text
    assert "a room event was not followed" in [record.getMessage() for record in caplog.records]
    assert sum(followed.call.failures.counts.values()) == 6


async def test_after_stop_nobody_leaves(follow: Follow) -> None:
    """While a job leaves its room, everybody seems to go: that is nobody's leaving."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    await followed.settled()
    followed.participants.stop()
    followed.room.exit(alice)
    followed.room.enter(FakeParticipant("bob"))
    followed.room.change_connection(is_connected=True)
    people = await followed.settled()
    assert list(people) == ["alice"]
    assert people["alice"].connected
