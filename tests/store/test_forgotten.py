"""What was taken out is in no key of Redis: all keys are searched, whatever they are for."""

from collections.abc import AsyncIterator

import pytest

from conversation_actors.activation import Activation
from conversation_actors.activation.activation import Place
from conversation_actors.protocol import Request
from conversation_actors.settings import Settings
from conversation_actors.state import (
    AppendItems,
    Command,
    JoinParticipant,
    RemoveItems,
    SetAttributes,
    UpdateParticipant,
)
from conversation_actors.store.redis import RedisStore
from tests.support.contents import everything
from tests.support.servers import Server
from tests.support.strategies import call, message, output

SECRET = "4111 1111 1111 1111"


async def owner_of(store: RedisStore) -> Activation:
    """Return an owner of the conversation."""
    return await Activation.recover(
        "c", owner="owner", create=True, store=store, settings=Settings(), place=Place(pid=1, node_id="n")
    )


@pytest.fixture
async def owner(redis_store: RedisStore) -> AsyncIterator[Activation]:
    """Return an owner whose conversation has just begun."""
    started = await owner_of(redis_store)
    yield started
    await started.aclose()


async def do(owner: Activation, *commands: Command) -> None:
    """Have commands done, one after the other."""
    for number, command in enumerate(commands):
        request = Request(f"r{owner.info().seq}-{number}", command, digest="0" * 16)
        (reply,) = (await owner.execute([request], watcher="w", after_seq=0)).replies
        assert not isinstance(reply, Exception), reply


async def test_what_was_taken_out_is_in_no_key(server: Server, owner: Activation) -> None:
    """A message, a call with its output, what an item was before, and attributes and participants as they were."""
    client = server.client()
    await do(
        owner,
        JoinParticipant(identity="alice", device_id="web", metadata={"card": SECRET}),
        AppendItems((message("u0"),)),
        SetAttributes({"livekit.transcript": {"text": SECRET}}),
        AppendItems((message("u1", SECRET), message("u2", SECRET), call("c1", "call-1", f'{{"card": "{SECRET}"}}'))),
        SetAttributes({"livekit.transcript": None}),
        AppendItems((output("o1", "call-1", SECRET), message("u3"))),
        UpdateParticipant(identity="alice", metadata={}),
        AppendItems((message("u2", "[card number]"),)),
    )
    assert SECRET.encode() in everything(client)
    await do(owner, RemoveItems(("u1", "c1")))
    assert SECRET.encode() not in everything(client)
    assert b"[card number]" in everything(client)
    client.close()


async def test_next_owner_knows_nothing_of_it(server: Server, owner: Activation, redis_store: RedisStore) -> None:
    """And what it goes on to store says nothing of it."""
    client = server.client()
    await do(owner, AppendItems((message("u0"), message("u1", SECRET))), RemoveItems(("u1",)))
    await owner.aclose()
    heir = await owner_of(redis_store)
    await do(heir, AppendItems((message("u2"),)))
    assert SECRET.encode() not in (await heir.read(fresh=True)).snapshot
    await heir.passivate()
    assert SECRET.encode() not in everything(client)
    client.close()
