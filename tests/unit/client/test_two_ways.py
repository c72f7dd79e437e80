"""The order of a handle's commands when two batches, and copies of both, overtake each other on two ways to the owner.

Each command is named by its place among those of its handle. So the journal tells whether their order was kept, and
whether one happened twice; the callers tell what they were told. By chance, from a seed: attempts and answers are lost,
late and doubled; owners are killed; writes fail, or are late; commands are refused, alone and in groups.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from conversation_actors.client.outbox import Outbox
from conversation_actors.client.owner import RemoteOwner
from conversation_actors.codec import decode_entry
from conversation_actors.errors import ClusterUnavailableError, ConversationError, OutcomeUnknownError, RefusedError
from conversation_actors.local.port import LocalPeer
from conversation_actors.port import PeerLostError
from conversation_actors.protocol import Execute, Executed, Request, Turn
from conversation_actors.state import AppendItems, CloseConversation, Command, ReopenConversation
from tests.support.fakes import FakeActor, FakeCluster, FakePort, Fault, FaultyStore, brief, until
from tests.support.quick import QUICK
from tests.support.strategies import call, message

TAKEN = "taken"
"""An item's id that is another kind's: what would replace it is refused, whatever the state."""


class Ways:
    """Carries calls to owners by two ways, of which neither waits for the other."""

    def __init__(self, cluster: FakeCluster, chance: random.Random) -> None:
        """Healthy."""
        self.cluster, self.chance = cluster, chance
        self.trouble = 0.0
        self.latest = 0.0
        """How late, in seconds, the copies come that come last of all."""
        self._carrying: set[asyncio.Task[Executed | ConversationError | None]] = set()

    async def execute(self, actor: FakeActor, sent: Execute) -> Executed | ConversationError:
        """Send one or more copies; return the first answer that comes."""
        copies = {asyncio.create_task(self._carry(actor, sent)) for _ in range(self._number_of_copies())}
        self._carrying |= copies
        waiting = set(copies)
        while waiting:
            come, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in come:
                if (answer := one.result()) is not None:
                    return answer
        raise PeerLostError

    async def settle(self) -> None:
        """Return when the last copy has come, wherever it was going."""
        while self._carrying:
            await asyncio.wait(self._carrying)
            self._carrying = {one for one in self._carrying if not one.done()}

    def _number_of_copies(self) -> int:
        return self.chance.choice([1, 2, 2, 3]) if self.chance.random() < self.trouble else 1

    async def _carry(self, actor: FakeActor, sent: Execute) -> Executed | ConversationError | None:
        if self.latest and self.chance.random() < self.trouble / 2:
            await asyncio.sleep(self.latest)
        elif await self._is_lost():
            return None
        try:
            answer = await LocalPeer(actor).execute(sent)
        except PeerLostError:
            return None
        return None if await self._is_lost() else answer

    async def _is_lost(self) -> bool:
        if self.chance.random() < self.trouble:
            for _ in range(self.chance.choice([1, 3, 10, 40, 200])):
                await asyncio.sleep(0)
        return self.chance.random() < self.trouble / 4


class TwoWayPeer:
    """The `Peer` of an actor to which commands go by two ways."""

    is_current = True

    def __init__(self, ways: Ways, actor: FakeActor) -> None:
        """Ask this actor."""
        self._ways, self._actor = ways, actor

    def suspect(self) -> None:
        """Do nothing: no such owner hangs."""

    async def execute(self, sent: Execute) -> Executed | ConversationError:
        """See `Peer.execute`."""
        return await self._ways.execute(self._actor, sent)


class TwoWayPort(FakePort):
    """Finds the actors of a cluster; commands go to them by two ways."""

    def __init__(self, ways: Ways) -> None:
        """Look for actors there."""
        super().__init__(ways.cluster)
        self._ways = ways

    def _peer(self, actor: FakeActor) -> Any:
        return TwoWayPeer(self._ways, actor)


class Writer:
    """An outbox on two ways, and what became of what it was given, by place."""

    def __init__(self, ways: Ways) -> None:
        """Send from now on."""
        owner = RemoteOwner(TwoWayPort(ways), ways.cluster.settings, timing=QUICK)

        async def send(requests: Sequence[Request], seconds: float, turn: Callable[[], Turn]) -> Executed:
            return await owner.execute(lambda: Execute(requests, "nobody", 0, None, turn()), seconds)

        self.box = Outbox(send, ways.cluster.settings, timing=QUICK)
        self.name = self.box._delivery._packer.name
        self.told: dict[int, str] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._sending = asyncio.create_task(self.box.run())

    def record(self, command: Command) -> None:
        """Give it a command that nobody waits for."""
        self.box.put(command)

    def ask(self, command: Command) -> None:
        """Give it a command whose answer is noted."""

        async def note() -> None:
            place = self.box._last_number + 1
            try:
                await self.box.ask(command, None)
            except RefusedError:
                self.told[place] = "refused"
            except OutcomeUnknownError:
                self.told[place] = "unknown"
            except ClusterUnavailableError:
                self.told[place] = "not sent"
            else:
                self.told[place] = "done"

        self._asking.add(asyncio.create_task(note()))

    async def settle(self) -> None:
        """Return when everything is settled."""
        while len(self.box) or any(not task.done() for task in self._asking):
            try:
                await self.box.flush()
            except (RefusedError, OutcomeUnknownError):
                continue
            await asyncio.sleep(0)
        for task in self._asking:
            task.result()

    async def aclose(self) -> None:
        """End."""
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)


class Story:
    """What writers do, and what happens to them."""

    def __init__(self, ways: Ways, writers: Sequence[Writer], store: FaultyStore) -> None:
        """Nothing yet."""
        self._ways, self._writers, self._store = ways, writers, store
        self._chance = ways.chance
        self._items = itertools.count()

    async def happen(self) -> None:
        """Do this and that, by chance."""
        doing: list[Callable[[Writer], Awaitable[None]]] = [
            self.ask,
            self.ask,
            self.record,
            self.record_many,
            self.record_many,
            self.wrong,
            self.closed,
        ]
        doing += [self.kill, self.fail_to_write, self.write_late]
        for _ in range(40):
            self._ways.trouble = self._chance.choice([0.0, 0.3, 0.6])
            await self._chance.choice(doing)(self._chance.choice(self._writers))
            await self._pause()

    async def ask(self, writer: Writer) -> None:
        """Some callers at once."""
        for _ in range(self._chance.randint(1, 4)):
            writer.ask(self._item())

    async def record(self, writer: Writer) -> None:
        """One that nobody waits for."""
        writer.record(self._item())

    async def record_many(self, writer: Writer) -> None:
        """Enough for a group, which may be refused for one of them."""
        wrong = self._chance.choice([None, self._chance.randrange(12)])
        for number in range(self._chance.randint(8, 12)):
            writer.record(self._wrong() if number == wrong else self._item())

    async def wrong(self, writer: Writer) -> None:
        """One that is refused in any state."""
        writer.ask(self._wrong())

    async def closed(self, writer: Writer) -> None:
        """Some that are refused in the state they find, and would not be a moment later."""
        writer.ask(CloseConversation("over"))
        for give in self._chance.sample([writer.ask, writer.ask, writer.record], 2):
            give(self._item())
        await self._pause()
        writer.ask(ReopenConversation())

    async def kill(self, _: Writer) -> None:
        """Sometimes the owner dies."""
        if self._chance.random() < 0.5:
            await self._ways.cluster.kill()

    async def fail_to_write(self, _: Writer) -> None:
        """A write fails, or its answer does not come."""
        self._store.append_faults.append(self._chance.choice([Fault.BEFORE, Fault.AFTER]))

    async def write_late(self, _: Writer) -> None:
        """A write takes longer than a moment, or longer than `timeouts.write`."""
        self._store.hold()
        await asyncio.sleep(self._chance.choice([0.0005, 0.02]))
        self._store.release()

    async def _pause(self) -> None:
        for _ in range(self._chance.choice([0, 0, 1, 2, 5, 30])):
            await asyncio.sleep(0)

    def _item(self) -> Command:
        return AppendItems((message(f"u{next(self._items)}"),))

    def _wrong(self) -> Command:
        return AppendItems((call(TAKEN, "c"),))


def happened(store: FaultyStore, writer: Writer) -> list[int]:
    """Return the places of a writer's commands in the order of the journal."""
    places: list[int] = []
    for seq in sorted(store.landed):
        name, _, numbers = (decode_entry(store.landed[seq]).request_id or "").partition(".")
        if name == writer.name:
            first, _, last = numbers.partition("-")
            inside = range(int(first), int(last or first) + 1)
            places += [place for place in inside if not last or writer.told.get(place) != "not sent"]
    return places


async def check_story(seed: int, *, command: float, latest: float = 0.0) -> None:
    """Let one story happen, and compare what the journal and the callers tell."""
    store = FaultyStore()
    settings = brief(write=0.01, command=command, items=2000, bytes=4 << 20)
    async with FakeCluster(store, settings) as cluster:
        await LocalPeer(cluster.get_or_create()).open(create=True)
        ways = Ways(cluster, random.Random(seed))
        ways.latest = latest
        writers = [Writer(ways) for _ in range(2)]
        writers[0].ask(AppendItems((message(TAKEN),)))
        await until(lambda: writers[0].told == {1: "done"})
        await Story(ways, writers, store).happen()
        ways.trouble = 0.0
        for writer in writers:
            await writer.settle()
        await ways.settle()
        for writer in writers:
            await writer.aclose()
    for writer in writers:
        places = happened(store, writer)
        assert places == sorted(set(places)), f"{seed}: in order, each once"
        for place, told in writer.told.items():
            assert told == "unknown" or (place in places) == (told == "done"), f"{seed}: {place} was told as {told}"
        assert {*writer.told, *places} <= set(range(1, writer.box._last_number + 1))


SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
async def test_order_is_kept_and_nothing_happens_twice(seed: int) -> None:
    """Each command once, in the order in which its handle was given them, and as its caller was told."""
    await check_story(seed, command=20.0)


@pytest.mark.parametrize("seed", SEEDS[:10])
async def test_order_is_kept_by_those_who_give_up(seed: int) -> None:
    """The same where the time of callers is up before they are answered: what they gave may have happened, in order."""
    await check_story(seed, command=0.05, latest=0.1)
