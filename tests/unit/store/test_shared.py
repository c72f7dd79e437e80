"""``memory://``: which store of the process it names, and what it refuses."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pydantic import SecretStr

from conversation_actors.errors import InvalidInputError, StoreMisconfiguredError
from conversation_actors.settings import ArchiveSettings, Settings
from conversation_actors.store import decode_record, forget_memory, open_replica, open_store

DAY = timedelta(days=1)


def of(url: str, **fields: object) -> Settings:
    """Settings with this URL."""
    return Settings(redis_url=SecretStr(url), **fields)  # type: ignore[arg-type]  # what a test says


def forget() -> None:
    """Empty the stores that these tests name."""
    for name in ("", "a", "b"):
        forget_memory(name)


@pytest.fixture(autouse=True)
async def _forgotten() -> AsyncIterator[None]:
    """What one test stores is not there for the next one, nor is what other files' tests have left."""
    forget()
    yield
    forget()


async def ids(settings: Settings) -> list[str]:
    """What the store of the settings lists."""
    return [found.conversation_id async for found in open_store(settings).list()]


async def put(settings: Settings, conversation_id: str) -> None:
    """Store a conversation, and list it."""
    store = open_store(settings)
    await store.activate(conversation_id, owner="o", create=True, ttl=DAY)
    await store.index(conversation_id, participants=(), ttl=DAY)


async def test_one_url_is_one_store() -> None:
    """Everybody who names it has the same; another name, or tenant, is another store."""
    await put(of("memory://"), "c")
    await put(of("memory://a"), "d")
    assert await ids(of("memory://")) == ["c"]
    assert await ids(of("memory://a")) == ["d"]
    assert await ids(of("memory://b")) == []
    assert await ids(of("memory://a", tenant="other")) == []


async def test_who_names_an_archive_has_what_is_written_wait_for_it() -> None:
    """From then on, and whoever writes it: the store is one."""
    plain, archiving = (
        of("memory://a"),
        of("memory://a", archive=ArchiveSettings(url=SecretStr("sqlite+aiosqlite:///x"))),
    )
    store = open_store(plain)
    claim = (await store.activate("c", owner="o", create=True, ttl=DAY)).claim
    await store.append(claim, expected_seq=0, entries=[b"1"], ttl=DAY)
    assert (await open_store(archiving).backlog().peek("c")).stored == ()
    await store.append(claim, expected_seq=1, entries=[b"2"], ttl=DAY)
    (stored,) = (await open_store(plain).backlog().peek("c")).stored
    assert decode_record(stored).data == b"2"


async def test_a_store_that_is_forgotten_begins_anew() -> None:
    """Nothing of it is left under its name, for any tenant."""
    await put(of("memory://a"), "c")
    await put(of("memory://a", tenant="other"), "c")
    forget_memory("a")
    assert await ids(of("memory://a")) == []
    assert await ids(of("memory://a", tenant="other")) == []


@pytest.mark.parametrize(
    "url", ["memory://a/b", "memory://a?db=1", "memory://user@a", "memory:// ", "memory://" + "x" * 65]
)
def test_what_follows_is_a_name(url: str) -> None:
    """Anything else is refused, with the setting that has it."""
    with pytest.raises(InvalidInputError, match=r"redis_url \(redis_url=\): after memory:// there may be a name"):
        open_store(of(url))


def test_memory_has_no_replica() -> None:
    """A URL to read from beside it is a mistake: what it has is another store's."""
    with pytest.raises(InvalidInputError, match="memory:// has no replica; unset CONVERSATION_READ_URL"):
        open_store(of("memory://", read_url=SecretStr("redis://replica")))


@pytest.mark.parametrize("durability", ["fsync", "replicas=1"])
def test_memory_is_no_disk_and_no_replica(durability: str) -> None:
    """A durability that it does not have is refused at the start, as by a server that lacks it."""
    with pytest.raises(StoreMisconfiguredError, match=f"durability={durability} needs a Redis server"):
        open_store(of("memory://", durability=durability))


def test_settings_in_memory_name_no_server() -> None:
    """Whatever servers they named before, and whatever they asked of them; all else stays."""
    settings = Settings(
        redis_url=SecretStr("redis://db"),
        read_url=SecretStr("redis://replica"),
        ray_address="ray:6379",
        durability="fsync",
        ttl=timedelta(hours=3),
    )
    local = settings.in_memory("a")
    assert not settings.is_in_memory
    assert local.is_in_memory
    assert local.require_redis_url() == "memory://a"
    assert (local.read_url, local.ray_address, local.durability) == (None, None, "redis")
    assert local.ttl == timedelta(hours=3)
    assert open_replica(local) is None


def test_programs_of_several_processes_refuse_it() -> None:
    """In one sentence that names the setting, what it is, and what to do."""
    with pytest.raises(InvalidInputError) as refused:
        of("memory://").require_redis_url(shared_by="agent-worker")
    assert str(refused.value) == (
        "redis_url (redis_url=): memory:// is the memory of one process, and `agent-worker` works with several; "
        "name a Redis server"
    )


async def test_several_threads_use_one_store() -> None:
    """Each call of one is whole before another one's begins: no listing is taken apart by what is entered meanwhile."""
    settings, per_thread, threads = of("memory://a"), 500, 4

    async def work(number: int) -> None:
        for one in range(per_thread):
            await put(settings, f"{number}-{one}")
            await open_store(settings).heartbeats("agent", ttl=DAY).announce(f"{number}-{one}", "holder")
            if one % 20 == 0:
                await ids(settings)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(asyncio.run, work(number)) for number in range(threads)]:
                future.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(await ids(settings)) == threads * per_thread
    assert len(await open_store(settings).heartbeats("agent", ttl=DAY).held_by("holder")) == threads * per_thread


@pytest.mark.parametrize("command", [["dev"], ["show", "c"], ["where", "c"]])
def test_commands_that_need_servers_refuse_memory(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2 and one sentence, before anything is started."""
    monkeypatch.setenv("CONVERSATION_REDIS_URL", "memory://")
    ran = subprocess.run(
        [sys.executable, "-m", "conversation_actors.cli", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "conversation-actors: redis_url (CONVERSATION_REDIS_URL): memory:// is the memory of one process, "
        f"and `conversation-actors {command[0]}` works with several; name a Redis server\n"
    )
