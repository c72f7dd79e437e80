"""Connections to Redis: how many there may be, and what is told of a server that does not let us in."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from conversation_actors.errors import InvalidInputError, StoreMisconfiguredError, StoreUnavailableError
from conversation_actors.settings import Settings, Timeouts
from conversation_actors.store import open_store
from conversation_actors.store.redis import RedisStore
from tests.store.conftest import NO_SERVER
from tests.support.servers import Server, newest, wait_until

SECRET = "s3cret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make a server of its own, whose connections are counted."""
    binary = newest()
    if binary is None:
        pytest.skip(NO_SERVER)
    running = Server(binary, tmp_path_factory.mktemp("connections")).start()
    yield running
    running.kill()


def connected(server: Server) -> int:
    """How many clients it has, this question's own not counted."""
    client = server.client()
    count = len(client.client_list()) - 1
    client.close()
    return count


def made(server: Server, **settings: Any) -> RedisStore:
    """Make a store as a client does, from settings."""
    store = open_store(Settings(redis_url=SecretStr(server.url), **settings))
    assert isinstance(store, RedisStore)
    return store


async def test_the_pool_is_bounded(server: Server) -> None:
    """Whoever needs one more connection waits for a free one; nothing is refused, nothing is left behind."""
    store = made(server, redis_connections=3)
    try:
        found = await asyncio.gather(*(store.head(f"nobody-{number}") for number in range(60)))
        assert found == [None] * 60
        assert 1 <= connected(server) <= 3
    finally:
        await store.aclose()
    await wait_until(lambda: _is(connected(server) == 0), "no connection to be left")


async def test_whoever_waits_too_long_is_told_by_which_setting(server: Server) -> None:
    """The server hangs, all connections are taken: what is short is named, and the call may be repeated."""
    store = made(server, redis_connections=1, timeouts=Timeouts(redis=timedelta(seconds=1)))
    client = server.client()
    try:
        await store.head("nobody")
        client.client_pause(1500)
        told = await asyncio.gather(*(store.head("nobody") for _ in range(2)), return_exceptions=True)
        assert all(isinstance(error, StoreUnavailableError) for error in told)
        assert any("CONVERSATION_REDIS_CONNECTIONS" in str(error) for error in told), told
        client.client_unpause()
        assert await store.head("nobody") is None
    finally:
        client.close()
        await store.aclose()


async def test_a_cancelled_call_gives_its_connection_back(server: Server) -> None:
    """While it waits for one, and while it uses one."""
    store = made(server, redis_connections=1)
    client = server.client()
    try:
        for _ in range(5):
            client.client_pause(300)
            calls = [asyncio.create_task(store.head("nobody")) for _ in range(3)]
            await wait_until(lambda: _is(connected(server) >= 1), "one to be connected")
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            client.client_unpause()
        assert await store.head("nobody") is None
    finally:
        client.close()
        await store.aclose()


async def test_a_refusal_names_the_url_and_the_variable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the password, and where to change it."""
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">right", "~*", "&*", "+@all")
    place = server.url.rpartition("@")[2].removeprefix("redis://")
    monkeypatch.setenv("CONVERSATION_REDIS_URL", f"redis://app:{SECRET}@{place}")
    store = open_store(Settings())
    try:
        with pytest.raises(StoreMisconfiguredError) as refused:
            await store.check()
    finally:
        await store.aclose()
    told = str(refused.value).replace("WRONGPASS ", "", 1)  # an older redis-py keeps the code to itself
    assert told.startswith("Redis does not allow check: invalid username-password pair")
    assert str(refused.value).endswith(f" (redis://app@{place.partition('/')[0]}/0, from CONVERSATION_REDIS_URL)")
    assert SECRET not in str(refused.value)


async def test_a_server_that_is_away_is_named_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At the start, where a wrong address shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVERSATION_REDIS_URL", raising=False)
    (tmp_path / ".env").write_text(f"REDIS_URL=redis://:{SECRET}@127.0.0.1:1/3\n")
    store = open_store(Settings())
    try:
        with pytest.raises(StoreUnavailableError) as refused:
            await store.check()
    finally:
        await store.aclose()
    assert str(refused.value).endswith(" (redis://127.0.0.1:1/3, from REDIS_URL in .env)")
    assert SECRET not in str(refused.value)


async def test_a_password_that_is_missing_is_told(server: Server) -> None:
    """Also of a call with many arguments, to which the server answers `unauthenticated multibulk length`."""
    admin = server.client()
    admin.config_set("requirepass", SECRET)
    plain = server.url.rpartition("@")[2].removeprefix("redis://")
    store = open_store(Settings(redis_url=SecretStr(f"redis://{plain}")))
    try:
        with pytest.raises(StoreMisconfiguredError, match="Redis does not allow read: NOAUTH"):
            await store.read("support-42")
    finally:
        admin.config_set("requirepass", "")
        admin.close()
        await store.aclose()


def test_no_redis_is_no_variables_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where none is configured, no variable is named but the one to set."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONVERSATION_REDIS_URL", "REDIS_URL", "REDIS_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInputError, match=r"^redis_url: no Redis is configured; set CONVERSATION_REDIS_URL"):
        open_store(Settings())


def test_a_wrong_url_names_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That it is no URL of Redis, and where it was set; not what it is, which may be a secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVERSATION_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", f"http://:{SECRET}@db")
    with pytest.raises(
        InvalidInputError, match=r"^redis_url \(REDIS_URL\): must start with one of redis://"
    ) as refused:
        open_store(Settings())
    assert SECRET not in str(refused.value)


async def _is(value: bool) -> bool:  # noqa: FBT001  # a condition to wait for
    return value
