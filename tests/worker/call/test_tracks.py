"""Who has a microphone, a camera or a screen open, as the conversation knows it."""

from dataclasses import replace
from typing import Any

import pytest
from livekit import rtc

from agent_worker.call.welcome import GREETED
from conversation_actors import Participant, ParticipantUpdated
from conversation_actors.codec import decode_entry
from conversation_actors.state import Limits
from tests.support.fakes import turns, until
from tests.support.sessions.answering import Answer
from tests.support.sessions.fakes_call import FakeParticipant, FakeRoom, World
from tests.support.sessions.following import Follow, Followed

SOURCE = rtc.TrackSource
MICROPHONE, CAMERA, SCREEN = SOURCE.SOURCE_MICROPHONE, SOURCE.SOURCE_CAMERA, SOURCE.SOURCE_SCREENSHARE


@pytest.fixture
def waits() -> dict[str, float]:
    """Return how long an owner and its clients wait: for Redis only a moment."""
    return {"close": 0.5, "write": 0.05, "command": 0.2}


def known(followed: Followed, identity: str = "alice") -> Any:
    """What the conversation says of somebody's tracks."""
    return followed.call.participants[identity].metadata.get("tracks")


async def has(followed: Followed, tracks: dict[str, str] | None, identity: str = "alice") -> None:
    """Wait until the conversation says this of somebody's tracks."""
    await until(lambda: identity in followed.call.participants and known(followed, identity) == tracks)


async def test_what_somebody_opens_mutes_and_closes_is_followed(follow: Follow) -> None:
    """Each source by its name; what is not published is not there, and all else stays."""
    alice = FakeParticipant("alice", metadata="anything")
    followed = await follow(FakeRoom(alice))
    await followed.settled()
    assert known(followed) is None
    microphone = followed.room.publish(alice, MICROPHONE)
    await has(followed, {"microphone": "open"})
    camera = followed.room.publish(alice, CAMERA, muted=True)
    await has(followed, {"camera": "muted", "microphone": "open"})
    followed.room.mute(alice, microphone)
    followed.room.mute(alice, camera, muted=False)
    screen = followed.room.publish(alice, SCREEN)
    await has(followed, {"camera": "open", "microphone": "muted", "screen_share": "open"})
    for one in (microphone, camera, screen):
        followed.room.unpublish(alice, one)
    await has(followed, None)
    assert (await followed.person()).metadata["metadata"] == "anything"


async def test_what_was_open_before_comes_with_the_arrival(follow: Follow, world: World) -> None:
    """No write more than the join itself."""
    alice, room = FakeParticipant("alice"), FakeRoom()
    room.publish(alice, MICROPHONE)
    room.publish(alice, SOURCE.SOURCE_UNKNOWN, muted=True)
    room.remote_participants["alice"] = alice
    followed = await follow(room)
    await has(followed, {"microphone": "open", "unknown": "muted"})
    await followed.settled()
    [greeted] = updates(world)
    assert GREETED in greeted.context


async def test_changes_at_one_time_are_one_write(follow: Follow, world: World) -> None:
    """And a change that is undone at once is none."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    await followed.settled()
    written = len(world.store.appends)
    microphone = followed.room.publish(alice, MICROPHONE)
    for _ in range(10):
        followed.room.mute(alice, microphone)
        followed.room.mute(alice, microphone, muted=False)
    followed.room.publish(alice, CAMERA)
    await has(followed, {"camera": "open", "microphone": "open"})
    followed.room.mute(alice, microphone)
    followed.room.mute(alice, microphone, muted=False)
    alice.name = "Alice"
    followed.room.emit("participant_name_changed", alice, "", "Alice")
    await until(lambda: followed.call.participants["alice"].name == "Alice")
    await followed.settled()
    assert len(updates(world, written)) == 2


async def test_a_change_of_something_else_does_not_undo_it(follow: Follow) -> None:
    """What is told of somebody holds what is open when it is told, not when it changed."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    followed.room.emit("participant_name_changed", alice, "", "")
    followed.room.publish(alice, MICROPHONE)
    alice.metadata = "new"
    followed.room.emit("participant_metadata_changed", alice, "", "new")
    await has(followed, {"microphone": "open"})
    assert (await followed.person()).metadata["metadata"] == "new"


async def test_who_has_left_has_no_open_tracks(follow: Follow) -> None:
    """Whether LiveKit tells first that the tracks have ended, or not at all."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    followed.room.publish(alice, MICROPHONE)
    await has(followed, {"microphone": "open"})
    followed.room.exit(alice)
    await has(followed, None)
    assert not (await followed.person()).connected


async def test_devices_of_one_person_have_their_tracks_together(follow: Follow) -> None:
    """One open microphone is an open microphone; what goes with one device is what only that one had."""
    phone = FakeParticipant("alice-phone", attributes={"person": "alice"})
    laptop = FakeParticipant("alice-laptop", attributes={"person": "alice"})
    followed = await follow(FakeRoom(phone, laptop, FakeParticipant("bob")))
    followed.room.publish(phone, MICROPHONE)
    followed.room.publish(laptop, MICROPHONE, muted=True)
    followed.room.publish(laptop, CAMERA)
    await has(followed, {"camera": "open", "microphone": "open"})
    await has(followed, None, "bob")
    followed.room.exit(phone)
    await has(followed, {"camera": "open", "microphone": "muted"})


async def test_an_agents_own_tracks_are_nobodys(follow: Follow) -> None:
    """Nor a recorder's."""
    room = FakeRoom(FakeParticipant("alice"))
    robot = room.enter(FakeParticipant("robot", kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT))
    followed = await follow(room)
    room.publish(robot, MICROPHONE)
    room.mute(room.local_participant, room.publish(room.local_participant, MICROPHONE))
    room.publish(room.remote_participants["alice"], CAMERA)
    await has(followed, {"camera": "open"})
    assert list(followed.call.participants) == ["alice"]


async def test_the_next_agent_sets_right_what_it_finds(follow: Follow) -> None:
    """What was closed while nobody watched, and what people who have gone had open."""
    alice, bob = FakeParticipant("alice"), FakeParticipant("bob")
    first = await follow(FakeRoom(alice, bob))
    microphone = first.room.publish(alice, MICROPHONE)
    first.room.publish(bob, CAMERA)
    await has(first, {"camera": "open"}, "bob")
    await first.settled()
    await first.call.aclose()
    microphone.muted = True
    second = await follow(FakeRoom(alice), "job-2")
    await has(second, {"microphone": "muted"})
    await has(second, None, "bob")


async def test_changes_while_redis_is_away_are_told_then(follow: Follow, world: World) -> None:
    """As they are when it is back."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    await followed.settled()
    world.store.is_down = True
    microphone = followed.room.publish(alice, MICROPHONE)
    await until(lambda: followed.call.failures.counts.get("changes", 0) > 0)
    followed.room.mute(alice, microphone)
    followed.room.publish(alice, CAMERA)
    world.store.is_down = False
    await has(followed, {"camera": "open", "microphone": "muted"})


async def test_metadata_that_is_too_large_costs_itself_and_not_the_tracks(follow: Follow) -> None:
    """They are told without it."""
    alice = FakeParticipant("alice", metadata="private words " * 5000)
    followed = await follow(FakeRoom(alice))
    followed.room.publish(alice, MICROPHONE)
    await has(followed, {"microphone": "open"})


async def test_a_job_that_leaves_tells_nothing_more_of_tracks(follow: Follow, world: World) -> None:
    """While it leaves, everything in its room seems to end."""
    world.timing = replace(world.timing, tracks_together=0.0)
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    microphone = followed.room.publish(alice, MICROPHONE)
    await has(followed, {"microphone": "open"})
    followed.room.mute(alice, microphone)
    followed.participants.stop()
    followed.room.unpublish(alice, microphone)
    await turns()
    await followed.settled()
    assert known(followed) == {"microphone": "open"}


async def test_a_track_event_that_cannot_be_followed_raises_nothing(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what they leave for later."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    await followed.settled()

    def broken(*_arguments: Any) -> None:
        message = "private words"
        raise TypeError(message)

    monkeypatch.setattr(followed.call, "later", broken)
    followed.room.publish(alice, MICROPHONE)
    await until(lambda: followed.call.failures.counts.get("tracks") == 1)


@pytest.mark.parametrize("has_tracks", [True, False])
async def test_a_setting_turns_tracks_off(answer: Answer, monkeypatch: pytest.MonkeyPatch, *, has_tracks: bool) -> None:
    """A whole call, with tracks and without."""
    monkeypatch.setenv("AGENT_TRACKS", str(has_tracks).lower())
    alice, room = FakeParticipant("alice"), FakeRoom()
    room.publish(alice, MICROPHONE)
    room.remote_participants["alice"] = alice
    async with answer(room, greeting="") as running:
        await until(lambda: "alice" in running.call.participants)
        told = running.call.participants["alice"].metadata
        assert ("tracks" in told) is has_tracks


def updates(world: World, since: int = 0) -> list[Participant]:
    """What was written about participants beside their coming and going."""
    entries = [decode_entry(data) for _, appended in world.store.appends[since:] for data in appended]
    return [entry.event.participant for entry in entries if isinstance(entry.event, ParticipantUpdated)]


async def test_tracks_do_not_cost_somebody_what_is_known_of_them(follow: Follow) -> None:
    """Metadata that leaves no room for tracks is kept as it is; others' tracks are followed all the same."""
    alice = FakeParticipant("alice", metadata="x" * (Limits().participant_bytes - 180))
    bob, room = FakeParticipant("bob"), FakeRoom()
    for source in (MICROPHONE, CAMERA, SCREEN, SOURCE.SOURCE_SCREENSHARE_AUDIO):
        room.publish(alice, source)
    for one in (alice, bob):
        room.remote_participants[one.identity] = one
    followed = await follow(room)
    assert (await followed.person()).metadata["metadata"] == alice.metadata
    followed.room.publish(bob, MICROPHONE)
    await has(followed, {"microphone": "open"}, "bob")
    assert known(followed) is None
    alice.name = "Alice"
    followed.room.emit("participant_name_changed", alice, "", "Alice")
    await followed.settled()
    assert (await followed.person()).name == "Alice"
    assert (await followed.person()).metadata["metadata"] == alice.metadata
