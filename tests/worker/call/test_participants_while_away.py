"""The people of a room while the conversation does not answer: nobody is lost, and nobody greeted twice."""

from typing import Any

import pytest

from agent_worker.call.welcome import GREETED
from agent_worker.lines import Welcome
from conversation_actors import ConversationHandle, OutcomeUnknownError
from tests.support.fakes import until
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World
from tests.support.sessions.following import STEPS, Follow


@pytest.fixture
def waits() -> dict[str, float]:
    """Return how long an owner and its clients wait: for Redis only a moment."""
    return {"close": 0.5, "write": 0.05, "command": 0.2}


async def test_who_comes_while_redis_is_away_is_recorded_and_greeted_then(world: World, follow: Follow) -> None:
    """Once, when Redis is back, however long it was away; who left meanwhile has left."""
    alice, bob = FakeParticipant("alice"), FakeParticipant("bob")
    followed = await follow(FakeRoom(alice, bob))
    assert await followed.told() == [Welcome.FIRST] * 2
    world.store.is_down = True
    carol = followed.room.enter(FakeParticipant("carol"))
    await followed.has_failed()
    followed.room.exit(bob)
    dave = followed.room.enter(FakeParticipant("dave"))
    followed.room.exit(dave)
    world.store.is_down = False
    await until(lambda: len(followed.welcomes) > 2)
    people = await followed.settled()
    assert {name for name, one in people.items() if one.connected} == {"alice", "carol"}
    assert people["carol"].devices == (carol.sid,)
    assert people["carol"].context[GREETED] == 0
    assert people["alice"].reconnect_count == 0
    assert await followed.told() == [Welcome.FIRST] * 3


@pytest.mark.parametrize("step", ["join", "update_participant", "set_retention"])
async def test_an_answer_that_is_lost_costs_no_greeting_and_doubles_none(
    follow: Follow, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The join happened, though nobody knew: told of again, it is no sign of a lost agent."""
    followed = await follow(FakeRoom())
    await followed.settled()
    original = getattr(ConversationHandle, step)
    tries: list[str] = []

    async def unheard(self: ConversationHandle, *arguments: Any, **named: Any) -> Any:
        done = await original(self, *arguments, **named)
        tries.append(step)
        if len(tries) == 1:
            message = "no acknowledgement in time; it may have happened"
            raise OutcomeUnknownError(message)
        return done

    monkeypatch.setattr(ConversationHandle, step, unheard)
    followed.room.enter(FakeParticipant("alice"))
    await followed.has_failed()
    assert await followed.told() == [Welcome.FIRST]
    person = await followed.person()
    assert (person.connected, person.context[GREETED]) == (True, 0)
    assert followed.call._standing.handle.retention == STEPS[0]


async def test_a_conversation_that_was_lost_is_told_who_is_here(world: World, follow: Follow) -> None:
    """And for how long it is kept; nobody hears anything of that, nor does a successor greet anybody again."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    assert await followed.told() == [Welcome.FIRST]
    world.store.lose_everything()
    await world.cluster.kill()
    bob = followed.room.enter(FakeParticipant("bob"))
    await until(lambda: len(followed.welcomes) > 1)
    people = await followed.settled()
    assert {name: one.devices for name, one in people.items()} == {"alice": (alice.sid,), "bob": (bob.sid,)}
    assert await followed.told() == [Welcome.FIRST] * 2
    assert followed.call._standing.handle.retention == STEPS[0]
    assert [one.context[GREETED] for one in people.values()] == [0, 0]
    await followed.call.aclose()
    second = await follow(FakeRoom(alice, bob), "job-2")
    assert await second.told() == [Welcome.RESUME] * 2


async def test_who_was_greeted_is_not_new_though_the_conversation_was_lost(world: World, follow: Follow) -> None:
    """On another device either."""
    alice = FakeParticipant("alice")
    followed = await follow(FakeRoom(alice))
    await followed.settled()
    followed.room.exit(alice)
    await followed.settled()
    world.store.lose_everything()
    await world.cluster.kill()
    followed.room.enter(FakeParticipant("alice"))
    await followed.has_failed()
    assert await followed.told() == [Welcome.FIRST, Welcome.NOTHING]


async def test_a_room_that_the_job_has_left_is_not_looked_at_again(world: World, follow: Follow) -> None:
    """When the conversation answers again, this job may be leaving: then it shows nobody who is there."""
    followed = await follow(FakeRoom(FakeParticipant("alice")))
    await followed.settled()
    world.store.is_down = True
    followed.room.enter(FakeParticipant("bob"))
    await followed.has_failed()
    followed.participants.stop()
    followed.room.remote_participants = {}
    world.store.is_down = False
    people = await followed.settled()
    assert people["alice"].connected
