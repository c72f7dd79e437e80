"""A client in memory: its owners live, crash and leave as processes do, in this one."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from conversation_actors import (
    ConversationClient,
    ConversationHandle,
    ConversationNotFoundError,
    Heartbeats,
    HistoryLimits,
    InvalidInputError,
    ItemTooLargeError,
    Message,
    OwnerFailedError,
    Settings,
    StoreMisconfiguredError,
    check_cluster,
)
from conversation_actors.activation import Activation
from conversation_actors.errors import PassivatedError
from conversation_actors.local import hosts_of_process
from conversation_actors.local.host import LocalHost
from conversation_actors.local.hosts import Home
from conversation_actors.local.port import LocalPeer
from conversation_actors.store import forget_memory
from conversation_actors.testing import crash, local_client
from tests.support.documents import blocks
from tests.support.observation import texts, user
from tests.support.servers import wait_until

NAME = "tests"
HOME = Home(NAME, "default")


@pytest.fixture(autouse=True)
async def _forgotten() -> AsyncIterator[None]:
    """Nothing that one test stores is there for the next one."""
    yield
    forget_memory(NAME)


def local(**fields: Any) -> ConversationClient:
    """A client of the tests' store."""
    return ConversationClient.local(Settings(**fields), name=NAME)


def is_owned(conversation_id: str) -> bool:
    """Whether an owner of it runs."""
    return hosts_of_process().find(HOME, conversation_id) is not None


# What it is


def test_neither_ray_nor_redis_is_imported() -> None:
    """Whatever a client can be asked for, also by the environment's URL; what was started leaves no task behind."""
    program = """
        import asyncio, sys
        from datetime import timedelta
        from conversation_actors import ConversationClient, Heartbeats, Message, check_cluster
        from conversation_actors.settings import Settings

        async def main():
            async with ConversationClient() as client, Heartbeats() as heartbeats:
                await client.join_cluster()
                conversation = await client.open("c")
                conversation.record(Message(role="user", content="one"))
                await conversation.append(Message(role="user", content="two"))
                await conversation.join("alice")
                await anext(conversation.watch(after_seq=0))
                await conversation.passivate()
                await conversation.info()
                assert (await client.read("c")).items == conversation.items
                await heartbeats.start("c", "job", valid_for=timedelta(seconds=1))
                assert (await heartbeats.find("c")).holder == "job"
                await check_cluster(Settings())
                await client.delete("c")
                assert [found async for found in client.list()] == []
            return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}

        print(asyncio.run(main()))
        print({name.partition(".")[0] for name in sys.modules} & {"ray", "redis", "grpc", "livekit"})
    """
    environment = {**os.environ, "CONVERSATION_REDIS_URL": "memory://", "RAY_ADDRESS": "nowhere:1"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "{'main'}\nset()\n"


def test_the_readmes_program_needs_no_server(tmp_path: Path) -> None:
    """With ``memory://`` for a Redis it runs as it stands."""
    program = blocks()[0]
    assert program.is_program
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "CONVERSATION_REDIS_URL": "memory://"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


async def test_clients_of_one_name_meet_at_one_owner() -> None:
    """The environment's URL and `local` are the same; another name is another world, and so is another tenant."""
    async with local() as one, ConversationClient(Settings(redis_url=SecretStr(f"memory://{NAME}"))) as two:
        first, second = await one.open("c"), await two.open("c")
        await first.append(user("one"))
        assert (await second.append(user("two"))).seq == 2
        assert (await second.info()).epoch == 1
        async with local_client() as apart, local(tenant="other") as tenant:
            for stranger in (apart, tenant):
                with pytest.raises(ConversationNotFoundError):
                    await stranger.open("c", create=False)


async def test_limits_are_those_of_the_settings() -> None:
    """What a cluster's owner refuses is refused here, with the same error."""
    history = HistoryLimits(items=4, bytes=4096, item_bytes=512)
    async with local(history=history) as client:
        conversation = await client.open("c")
        with pytest.raises(ItemTooLargeError):
            await conversation.append(user("x" * 600))
        for number in range(8):
            await conversation.append(user(str(number)))
        assert texts(conversation.items) == ["4", "5", "6", "7"]


async def test_what_is_refused_elsewhere_is_refused_here() -> None:
    """A name that is none, and a durability or a replica that memory does not have."""
    with pytest.raises(InvalidInputError, match=r"redis_url \(name=\): after memory:// there may be a name"):
        await ConversationClient.local(name="a/b").__aenter__()
    url = SecretStr(f"memory://{NAME}")
    with pytest.raises(StoreMisconfiguredError, match="fsync needs a Redis server"):
        await ConversationClient(Settings(redis_url=url, durability="fsync")).__aenter__()
    with pytest.raises(InvalidInputError, match="memory:// has no replica"):
        await ConversationClient(Settings(redis_url=url, read_url=SecretStr("redis://replica"))).__aenter__()


@pytest.mark.parametrize("settings", ["memory://", {"tenant": "a"}])
def test_settings_that_are_none_are_refused(settings: Any) -> None:
    """Whoever has no type checker gets the same error from `local` as from the class."""
    for make in (ConversationClient, ConversationClient.local):
        with pytest.raises(InvalidInputError, match=r"settings: expected Settings, got (str|dict)"):
            make(settings)


async def test_values_are_copied_on_the_way() -> None:
    """What the caller does with its own afterwards changes nothing there."""
    async with local() as client:
        conversation = await client.open("c")
        changes = {"order": {"state": "open"}}
        await conversation.set_attributes(changes)
        changes["order"]["state"] = "changed"
        assert (await conversation.snapshot()).attributes == {"order": {"state": "open"}}


async def test_each_caller_has_an_error_of_its_own() -> None:
    """One reason is told to all who ask an owner that has stopped: each may add notes and tracebacks to its own."""
    async with local() as client:
        await client.open("c")
        host = hosts_of_process().find(HOME, "c")
        assert host is not None
        peer = LocalPeer(host)
        assert await peer.passivate() is True
        first, second = await asyncio.gather(peer.read(fresh=False), peer.read(fresh=False))
        assert isinstance(first, PassivatedError)
        assert isinstance(second, PassivatedError)
        assert first is not second
        assert str(first) == str(second)


async def test_no_cluster_is_checked() -> None:
    """There is none, and none is needed."""
    await check_cluster(Settings().in_memory())


async def test_heartbeats_share_the_store() -> None:
    """Who falls silent is found by somebody else, and exactly one claims."""
    settings = Settings().in_memory(NAME)
    now = 0.0
    async with Heartbeats(settings, clock=lambda: now) as holder, Heartbeats(settings, clock=lambda: now) as watcher:
        await holder.start("c", "job", valid_for=timedelta(seconds=6))
        claimed = []
        for _ in range(20):
            claimed += await watcher.claim_expired("w", hold=timedelta(seconds=60))
            now += 1.0
        assert [(record.holder, record.claimant) for record in claimed] == [("job", "w")]
        assert not await holder.beat("c", "job", valid_for=timedelta(seconds=6))


# Owners that end


async def test_a_crash_loses_nothing() -> None:
    """The next call is answered by a new owner, one epoch later, from what was acknowledged."""
    async with local() as client:
        conversation = await client.open("c")
        for number in range(3):
            await conversation.append(user(str(number)))
        await crash("c")
        assert not is_owned("c")
        receipt = await conversation.append(user("after"))
        assert (receipt.seq, receipt.epoch) == (4, 2)
        info = await conversation.info()
        assert (info.recovered_from, info.replayed) == (0, 3)
        assert texts((await conversation.snapshot(fresh=True)).items) == ["0", "1", "2", "after"]


async def test_a_call_that_waits_at_a_crash_is_answered_by_the_next_owner() -> None:
    """A parked poll and an append on its way are repeated there; the append happens once."""
    async with local() as client:
        conversation = await client.open("c")
        entries = conversation.watch(after_seq=0)
        seen = asyncio.create_task(anext(entries))
        writing = asyncio.create_task(conversation.append(user("one")))
        await asyncio.sleep(0)
        await crash("c")
        receipt = await writing
        assert (await seen).seq == receipt.seq == 1
        assert texts((await conversation.snapshot(fresh=True)).items) == ["one"]
        await entries.aclose()


async def test_nobody_to_crash_is_told() -> None:
    """A test that means to crash an owner, and crashes none, would prove nothing."""
    async with local() as client:
        with pytest.raises(LookupError, match="no owner of 'c' runs in this process"):
            await crash("c")
        conversation = await client.open("c")
        await conversation.passivate()
        with pytest.raises(LookupError):
            await crash("c")


async def test_an_idle_owner_leaves_and_comes_back() -> None:
    """With a snapshot, when nobody asks or follows any more; the next open goes on from there."""
    async with local(idle_timeout=timedelta(seconds=0.1)) as client:
        conversation = await client.open("c")
        await conversation.append(user("one"))
        await conversation.aclose()

        async def has_left() -> bool:
            return not is_owned("c")

        await wait_until(has_left, "the owner to leave")
        again = await client.open("c", create=False)
        info = await again.info()
        assert (info.epoch, info.recovered_from, info.replayed) == (2, 1, 0)
        assert texts(again.items) == ["one"]


async def test_an_owner_that_has_left_is_forgotten() -> None:
    """A process that opens conversations for months does not keep the owner of each one."""
    async with local() as client:
        conversation = await client.open("c")
        await conversation.append(user("one"))
        await conversation.aclose()
        host = hosts_of_process().find(HOME, "c")
        assert host is not None
        await LocalPeer(host).passivate()

        async def is_forgotten() -> bool:
            return (HOME, "c") not in hosts_of_process()._hosts

        await wait_until(is_forgotten, "the owner to be forgotten")


async def test_a_retention_that_is_over_forgets() -> None:
    """As Redis does, after the conversation's last use."""
    async with local() as client:
        conversation = await client.open("c")
        await conversation.append(user("secret"))
        await conversation.set_retention(timedelta(seconds=1))
        await conversation.aclose()

        async def is_forgotten() -> bool:
            try:
                await client.read("c")
            except ConversationNotFoundError:
                return True
            return False

        await wait_until(is_forgotten, "the conversation to be forgotten")
        assert (await client.open("c")).items == ()


async def test_a_deletion_is_told_to_the_owner() -> None:
    """It owns nothing any more, and its host goes; an open begins another life."""
    async with local() as client:
        conversation = await client.open("c")
        await conversation.append(user("old"))
        life = (await conversation.info()).life
        await client.delete("c")
        with pytest.raises(ConversationNotFoundError):
            await conversation.append(user("too late"))

        async def has_left() -> bool:
            return not is_owned("c")

        await wait_until(has_left, "the host to leave")
        await conversation.aclose()
        again = await client.open("c")
        assert again.items == ()
        assert (await again.info()).life != life


async def test_what_nobody_foresaw_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the owner reaches the caller as its failure, and is not repeated."""
    async with local() as client:
        conversation = await client.open("c")

        def fail(_: Activation) -> None:
            message = "nobody thought of this"
            raise ZeroDivisionError(message)

        with monkeypatch.context() as patched:
            patched.setattr(Activation, "info", fail)
            with pytest.raises(OwnerFailedError, match="nobody thought of this"):
                await conversation.info()
        assert (await conversation.append(user("one"))).epoch == 1


# Loops and threads


async def test_owners_end_with_the_last_client_of_their_loop() -> None:
    """With a snapshot; as long as another client of the store is there they stay. No task is left."""
    before = asyncio.all_tasks()
    async with local() as stays:
        async with local() as leaves:
            await (await leaves.open("c")).append(user("one"))
        assert is_owned("c")
        assert (await (await stays.open("c")).append(user("two"))).epoch == 1
    assert not is_owned("c")
    assert asyncio.all_tasks() == before
    async with local() as again:
        info = await (await again.open("c", create=False)).info()
        assert (info.epoch, info.recovered_from, info.replayed) == (2, 2, 0)


async def test_a_client_that_is_closed_twice_at_once_leaves_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that came while the first close still waits keeps its owners."""
    retire, begun, may_end = LocalHost.retire, asyncio.Event(), asyncio.Event()

    async def wait_and_retire(host: LocalHost) -> None:
        begun.set()
        await may_end.wait()
        await retire(host)

    monkeypatch.setattr(LocalHost, "retire", wait_and_retire)
    leaves = await local().__aenter__()
    await leaves.open("c")
    closing = asyncio.create_task(leaves.aclose())
    await begun.wait()
    async with local() as stays:
        await stays.open("d")
        again = asyncio.create_task(leaves.aclose())
        may_end.set()
        await asyncio.gather(closing, again)
        assert is_owned("d")


async def test_a_call_that_outlives_its_client_starts_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that nobody's client looks after would run on, in a loop that everybody has left."""
    before, begun = asyncio.all_tasks(), asyncio.Event()

    async def wait(_: Activation, *, fresh: bool) -> None:
        assert fresh
        begun.set()
        await asyncio.Event().wait()

    async with local() as client:
        conversation = await client.open("c")
        monkeypatch.setattr(Activation, "read", wait)
        asking = asyncio.create_task(conversation.snapshot(fresh=True))
        await begun.wait()
    with pytest.raises(InvalidInputError, match="client: it was closed"):
        await asking
    assert not is_owned("c")
    assert asyncio.all_tasks() == before


def test_a_store_outlives_an_event_loop() -> None:
    """What one `asyncio.run` has stored the next one finds, whether or not the first one's client was closed."""

    async def write(text: str, *, is_closed: bool) -> int:
        client = await local().__aenter__()
        conversation = await client.open("c")
        receipt = await conversation.append(user(text))
        if is_closed:
            await client.aclose()
        return receipt.epoch

    assert asyncio.run(write("one", is_closed=True)) == 1
    assert asyncio.run(write("two", is_closed=False)) == 2
    assert asyncio.run(write("three", is_closed=True)) == 3

    async def read() -> list[str]:
        async with local() as client:
            return texts((await client.read("c")).items)

    assert asyncio.run(read()) == ["one", "two", "three"]


class Elsewhere:
    """An event loop in another thread, that waits for work until it is told to end."""

    def __init__(self) -> None:
        """Start it."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._until_told())

    async def _until_told(self) -> None:
        self._told = asyncio.Event()
        await self._told.wait()

    async def run(self, work: Callable[[], Any]) -> Any:
        """Await something there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self.loop))

    async def end(self) -> None:
        """End the loop, and with it all that still runs there."""
        self.loop.call_soon_threadsafe(self._told.set)
        await asyncio.to_thread(self._thread.join)


async def test_an_owner_answers_other_threads() -> None:
    """Clients in two loops share one owner, follow it live, and can have it crash; one loop's end is a crash too."""
    elsewhere = Elsewhere()

    async def open_there() -> ConversationHandle:
        client = await local().__aenter__()
        return await client.open("c")

    async with local() as client:
        there = await elsewhere.run(open_there)
        here = await client.open("c")
        await here.append(user("here"))
        receipt = await elsewhere.run(lambda: there.append(user("there")))
        assert (receipt.seq, receipt.epoch) == (2, 1)

        async def has_followed() -> bool:
            return texts(here.items) == ["here", "there"]

        await wait_until(has_followed, "the other thread's item")
        await crash("c")
        assert (await here.append(user("again"))).epoch == 2
        await crash("c")
        assert (await elsewhere.run(lambda: there.append(user("owned there")))).epoch in {3, 4}
        await elsewhere.end()
        last = await here.append(user("owned here"))
        assert (await here.info()).epoch == last.epoch
        assert texts((await here.snapshot(fresh=True)).items)[-2:] == ["owned there", "owned here"]


async def test_a_loop_that_ends_under_a_call_is_a_lost_owner() -> None:
    """Who waits for an owner in another loop is carried over to one in its own."""
    elsewhere = Elsewhere()

    async def own_there() -> None:
        client = await local().__aenter__()
        await (await client.open("c")).append(user("one"))

    await elsewhere.run(own_there)
    async with local() as client:
        conversation = await client.open("c")
        entries = conversation.watch(after_seq=1)
        seen = asyncio.create_task(anext(entries))
        await asyncio.sleep(0)
        await elsewhere.end()
        receipt = await conversation.append(user("two"))
        assert (receipt.seq, receipt.epoch) == (2, 2)
        assert (await seen).seq == 2
        await entries.aclose()


async def test_a_forked_process_has_owners_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fork has copied of a loop never runs there: its owners are looked for in vain."""
    async with local() as client:
        await client.open("c")
        assert is_owned("c")
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: -1)
            host = hosts_of_process()._hosts[HOME, "c"]
            assert not host.is_running


@pytest.mark.parametrize("text", ["", "x" * 1000])
async def test_a_message_is_what_it_was(text: str) -> None:
    """What is stored in memory is what a server would store: encoded, and decoded again."""
    async with local() as client:
        conversation = await client.open("c")
        await conversation.append(Message(role="user", content=text))
        assert [item.to_dict()["content"] for item in (await client.read("c")).items] == [text]


async def test_an_owner_that_cannot_save_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails when the last client leaves is logged; nothing is lost, since nothing depends on the snapshot."""
    async with local() as client:
        await (await client.open("c")).append(user("one"))

        async def fail(_: Activation) -> None:
            message = "nobody thought of this"
            raise ZeroDivisionError(message)

        monkeypatch.setattr(Activation, "passivate", fail)
    assert not is_owned("c")
    assert [record.__dict__["task"] for record in caplog.records if "background" in record.message] == [
        "snapshot at the end"
    ]
    monkeypatch.undo()
    async with local() as again:
        assert texts((await again.open("c", create=False)).items) == ["one"]
