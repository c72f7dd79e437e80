"""A caller whose conversation slept in the archive is greeted as a returning one."""

from datetime import timedelta

from conversation_actors.activation.recovery import restate
from conversation_actors.codec import encode_snapshot
from conversation_actors.store import Claim
from tests.support.fakes import CONVERSATION, brief
from tests.support.sessions.answering import AGAIN, GREETING, Answer, crash, gone_for, texts, vanish
from tests.support.sessions.fake_room import FakeParticipant, FakeRoom
from tests.support.sessions.fakes_call import World

GRACE = timedelta(milliseconds=10)


async def sleep_in_the_archive(world: World) -> None:
    """Redis loses all of it, and whoever opens it next brings it back."""
    slept = await world.store.read(CONVERSATION)
    state, _ = restate(slept, brief().history.limits())
    state.leases = {}
    await vanish(world)
    assert await world.store.head(CONVERSATION) is None
    assert await world.store.revive(
        Claim(CONVERSATION, slept.epoch, slept.owner, slept.life), seq=state.seq, snapshot=encode_snapshot(state),
        ttl=timedelta(hours=1), participants=tuple(state.participants), kept=timedelta(hours=1),
    )  # fmt: skip


async def test_a_returning_caller_is_known(answer: Answer, world: World) -> None:
    """The next job, which follows nobody, welcomes them back, and has what was said."""
    room = FakeRoom(alice := FakeParticipant("alice"))
    async with answer(room, grace=GRACE) as first:
        await first.hears(GREETING)
        await first.is_known(GREETING)
        room.exit(alice)
        await gone_for(first.call, GRACE.total_seconds())
        await crash(first)
    await sleep_in_the_archive(world)
    async with answer(FakeRoom(FakeParticipant("alice")), grace=GRACE) as second:
        await second.hears(AGAIN)
        await second.is_known(AGAIN)
        assert texts(second.call.items) == [GREETING, AGAIN]
        assert second.call.participants["alice"].reconnect_count == 1
