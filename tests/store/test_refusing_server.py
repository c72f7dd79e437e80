"""A server that takes no writes in the middle of a conversation's life: callers hear its reason, nothing is lost."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conversation_actors.activation import Activation
from conversation_actors.activation.activation import Place
from conversation_actors.codec import decode_snapshot
from conversation_actors.errors import (
    ConversationError,
    OutcomeUnknownError,
    PassivatedError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from conversation_actors.items import Message
from conversation_actors.protocol import Done, Request
from conversation_actors.settings import Settings, Timeouts
from conversation_actors.state import AppendItems
from tests.store.conftest import each_server, make_store
from tests.support.servers import BINARIES, Server, wait_until

SETTINGS = Settings(timeouts=Timeouts(write=timedelta(seconds=0.5)))


class Refusing:
    """One server, and the reasons for which it may take no writes."""

    def __init__(self, server: Server, data: Path) -> None:
        """Have it save in `data`."""
        self._redis, self._dump = server.client(), data / "dump.rdb"

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    async def _save(self, status: str) -> None:
        async def is_saved() -> bool:
            found: dict[str, Any] = self._redis.info("persistence")
            return not found["rdb_bgsave_in_progress"] and found["rdb_last_bgsave_status"] == status

        self._redis.bgsave()
        await wait_until(is_saved, f"a background save that ends with {status}")

    async def misconf(self, *, is_well: bool) -> None:
        """Keep it from saving: a directory lies where its file belongs."""
        if is_well:
            self._dump.rmdir()
        else:
            self._dump.unlink(missing_ok=True)
            self._dump.mkdir()
        await self._save("ok" if is_well else "err")

    async def oom(self, *, is_well: bool) -> None:
        """Its memory is full."""
        self._redis.config_set("maxmemory", 0 if is_well else 1)

    async def noreplicas(self, *, is_well: bool) -> None:
        """Have it ask for more replicas than it has."""
        self._redis.config_set("min-replicas-to-write", 0 if is_well else 1)

    async def noperm(self, *, is_well: bool) -> None:
        """Its user may not write."""
        self._redis.execute_command("ACL", "SETUSER", "default", *(["+@all"] if is_well else ["-@write"]))


def say(identity: str) -> Request:
    """Return a request to append one message, by its id."""
    return Request(
        f"request-{identity}", AppendItems((Message(id=identity, role="user", content="hello").to_stored(),))
    )


async def outcome(owner: Activation, request: Request) -> Done | ConversationError:
    """Return the reply, or what was raised."""
    try:
        (reply,) = (await owner.execute([request], watcher="nobody", after_seq=0)).replies
    except ConversationError as error:
        return error
    return reply


async def ids(owner: Activation) -> list[str]:
    """Ids of the stored history, asked for when the store has confirmed the owner."""
    return [item.id for item in decode_snapshot((await owner.read(fresh=True)).snapshot).window]


Start = Callable[..., Any]


@pytest.fixture(params=each_server())
async def parts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Refusing, Start]]:
    """Make a server of its own, and a starter of owners on it."""
    data = tmp_path / "data"
    data.mkdir()
    directives = {"dir": str(data), "save": "3600 100000", "stop-writes-on-bgsave-error": "yes"}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server(BINARIES[request.param], tmp_path, directives))
        refusing = Refusing(server, data)
        stack.callback(refusing.close)
        store = make_store(server.url)
        stack.push_async_callback(store.aclose)

        async def start(name: str = "owner") -> Activation:
            owner = await Activation.recover(
                "c", owner=name, create=True, store=store, settings=SETTINGS, place=Place(pid=1, node_id="node")
            )
            stack.push_async_callback(owner.aclose)
            return owner

        yield refusing, start


@pytest.mark.parametrize("reason", ["MISCONF", "OOM", "NOREPLICAS"])
async def test_servers_own_word_is_told_and_what_was_decided_lands_later(
    parts: tuple[Refusing, Start], reason: str
) -> None:
    """Who writes, and who reads freshly, is told the server's own word; what was decided lands when it is well."""
    refusing, start = parts
    turn = getattr(refusing, reason.lower())
    owner = await start()
    assert isinstance(await outcome(owner, say("u0")), Done)
    await turn(is_well=False)
    unknown = await outcome(owner, say("u1"))
    assert isinstance(unknown, OutcomeUnknownError)
    assert f": {reason}" in str(unknown) or f"-{reason}" in str(unknown), str(unknown)
    for call in (lambda: owner.read(fresh=True), owner.passivate):
        with pytest.raises(StoreUnavailableError, match=reason):
            await call()
    assert [item.id for item in decode_snapshot((await owner.read(fresh=False)).snapshot).window] == ["u0"]
    await turn(is_well=True)

    async def is_back() -> bool:
        return isinstance(await outcome(owner, say("u1")), Done)

    await wait_until(is_back, "the write to land")
    assert isinstance(await outcome(owner, say("u2")), Done)
    assert await ids(owner) == ["u0", "u1", "u2"]
    assert (await ids(await start("heir")), owner.info().epoch) == (["u0", "u1", "u2"], 1)


async def test_takes_a_right_away(parts: tuple[Refusing, Start]) -> None:
    """A user that may write no more ends the activation, and everybody is told why; given back, nothing is missing."""
    refusing, start = parts
    owner = await start()
    assert isinstance(await outcome(owner, say("u0")), Done)
    await refusing.noperm(is_well=False)
    refused, later = [await outcome(owner, say("u1")) for _ in range(2)]
    assert isinstance(refused, StoreMisconfiguredError)
    assert isinstance(later, PassivatedError), "the next activation finds out what is the case then"
    for told in (refused, later):
        assert "does not allow append" in str(told)
        assert "permission" in str(told).lower() or "can't run this command" in str(told)
    assert isinstance(await owner.stopped, StoreMisconfiguredError)
    with pytest.raises(StoreMisconfiguredError, match="does not allow activate"):
        await start("heir")
    await refusing.noperm(is_well=True)
    heir = await start("heir")
    assert await ids(heir) == ["u0"]
    assert isinstance(await outcome(heir, say("u1")), Done)
    assert isinstance(await outcome(heir, say("u1")), Done)
    assert await ids(await start("another")) == ["u0", "u1"]
