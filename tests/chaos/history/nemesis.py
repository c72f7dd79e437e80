"""What is done to the system, at random, one thing after the other; each thing is declared to the checker.

Within one life of a conversation nothing acknowledged may be lost, whatever happens here. A declaration names the
conversations whose life may end (the keys are gone, and nobody was alive and awake who could write them again), and
those that lose what came behind a position (the data is older, and nobody was alive who knew more). Only the nemesis
passivates: a conversation that has no owner while its keys go is to be one that a fault says so of.
"""

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

from conversation_actors import ConversationNotFoundError, RetryableError
from conversation_actors.store.keys import Keys
from tests.chaos.history.client import LEASE_SECONDS
from tests.chaos.history.clients import Clients
from tests.chaos.history.observing import opened
from tests.chaos.history.record import Recorder
from tests.chaos.history.server import Backup, HistoryServer
from tests.chaos.history.successor import Successor
from tests.chaos.history.witness import Witness
from tests.support.processes import paused, sigkill

FAULTS = {
    "owner_killed": 4, "owner_killed_server_frozen": 2, "owner_doubled": 1, "owner_frozen": 2,
    "owner_frozen_beyond_lease": 2, "owner_frozen_beyond_retention": 1, "passivated": 2,
    "server_frozen": 3, "server_killed": 2, "connections_killed": 3, "clock_stepped": 2, "client_killed": 1,
    "flushed_owners_alive": 2, "flushed_owners_dead": 1, "set_back_owners_alive": 2, "set_back_owners_dead": 1,
    "keys_gone_owner_frozen": 2,
}  # fmt: skip
"""Kinds of faults, and how often each is drawn."""
STEPS = (4, -4, 3600, -3600)
_RETENTION = timedelta(seconds=1.5)
_LONGEST_PAUSE = 0.8
_PATIENCE = 60.0
"""Seconds more than were asked for in which clients do what they do at once on an idle machine."""
_HALF = 0.5


class Nemesis:
    """Hurts one system."""

    def __init__(
        self, server: HistoryServer, witness: Witness, recorder: Recorder, clients: Clients, *,
        dice: random.Random, weights: dict[str, int], counts: Counter[str],
    ) -> None:  # fmt: skip
        """`weights` are of `FAULTS`, of all or some; `counts` is told what was done."""
        self._server, self._witness, self._recorder, self._clients = server, witness, recorder, clients
        self._dice, self._weights, self._counts = dice, weights, counts

    async def rage(self, seconds: float, *, operations: int) -> None:
        """Do one thing after the other; each kind once, in some order, before any is drawn by its weight.

        Goes on, on a machine that is busy, until as many `operations` are acknowledged, for `_PATIENCE` at most. Ends
        early when a client has ended, which none should.
        """
        until, at_last = time.monotonic() + seconds, time.monotonic() + seconds + _PATIENCE
        kinds, weights = list(self._weights), list(self._weights.values())
        first = self._dice.sample(kinds, len(kinds))
        while self._clients.are_running() and (
            time.monotonic() < until or (self._clients.acknowledged() < operations and time.monotonic() < at_last)
        ):
            await asyncio.sleep(self._dice.uniform(0.1, _LONGEST_PAUSE))
            kind = first.pop() if first else self._dice.choices(kinds, weights)[0]
            await getattr(self, f"_{kind}")()
            self._counts[kind] += 1

    # What loses nothing.

    async def _owner_killed(self) -> None:
        owners = await self._some_owners()
        self._declare("owner_killed")
        for owner in owners:
            sigkill(owner)

    async def _owner_frozen(self) -> None:
        await self._freeze_some("owner_frozen", self._dice.uniform(0.1, LEASE_SECONDS / 2))

    async def _owner_frozen_beyond_lease(self) -> None:
        await self._freeze_some("owner_frozen_beyond_lease", LEASE_SECONDS + self._dice.uniform(0.1, 2))

    async def _owner_doubled(self) -> None:
        """Let an owner sleep while another one goes on; then wake it up."""
        conversation = self._dice.choice(self._witness.conversations)
        owner = await self._witness.owner(conversation)
        self._declare("owner_doubled")
        async with Successor(conversation, self._witness.client, self._recorder) as successor:
            with paused(owner.pid):
                await successor.begin()
            await self._witness.owner(conversation)

    async def _owner_killed_server_frozen(self) -> None:
        """Kill an owner whose writes are on their way: they happen or not, and what comes after must know."""
        owners = await self._some_owners()
        self._declare("owner_killed_server_frozen")
        self._server.pause()
        await asyncio.sleep(self._dice.uniform(0.1, 1))
        for owner in owners:
            sigkill(owner)
        await asyncio.sleep(self._dice.uniform(0, 1))
        self._server.resume()

    async def _passivated(self) -> None:
        handle = await opened(self._witness.client, self._dice.choice(self._witness.conversations))
        self._declare("passivated")
        with suppress(RetryableError):
            await handle.passivate()

    async def _server_frozen(self) -> None:
        self._declare("server_frozen")
        self._server.pause()
        await asyncio.sleep(self._dice.choice([0.1, 0.5, 1, 2, 4]))
        self._server.resume()

    async def _server_killed(self) -> None:
        self._declare("server_killed")
        self._server.kill()
        await asyncio.sleep(self._dice.uniform(0, 0.5))
        await self._start_server()

    async def _connections_killed(self) -> None:
        self._declare("connections_killed")
        with self._server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")

    async def _client_killed(self) -> None:
        self._declare("client_killed")
        self._clients.replace_one()

    # What loses nothing because the owners live: each has told so before, and writes again what it knows.

    async def _flushed_owners_alive(self) -> None:
        await self._witness.settle()
        self._declare("flushed_owners_alive")
        with self._server.client() as client:
            client.flushall()
        await self._witness.settle()

    async def _clock_stepped(self) -> None:
        await self._witness.settle()
        self._declare("clock_stepped")
        self._server.step(-self._server.ahead or self._dice.choice(STEPS))
        await self._witness.settle()

    async def _set_back_owners_alive(self) -> None:
        backup = await self._backup()
        await self._witness.settle()
        self._declare("set_back_owners_alive")
        self._server.kill()
        self._server.set_back(backup)
        await self._start_server()
        await self._witness.settle()

    # What ends lives, or loses what came last.

    async def _owner_frozen_beyond_retention(self) -> None:
        """Let an owner sleep until the keys are gone. It may know that they are, or that it was in use all the time."""
        conversation = self._dice.choice(self._witness.conversations)
        await self._retain(conversation, _RETENTION)
        owner = await self._witness.owner(conversation)
        self._declare("owner_frozen_beyond_retention", ends=[conversation])
        with paused(owner.pid):
            await asyncio.sleep(_RETENTION.total_seconds() + 1)
        await self._witness.owner(conversation)
        await self._retain(conversation, None)

    async def _flushed_owners_dead(self) -> None:
        owners = (await self._witness.settle()).values()
        self._declare("flushed_owners_dead", ends=self._witness.conversations)
        with self._server.client() as client, paused(*(owner.pid for owner in owners)):
            client.flushall()
            for owner in owners:
                sigkill(owner.pid)
        await self._witness.settle()

    async def _set_back_owners_dead(self) -> None:
        backup = await self._backup()
        owners = (await self._witness.settle()).values()
        self._server.kill()
        for owner in owners:
            sigkill(owner.pid)
        await self._clients.all_awake()  # what anybody has seen of the end is written down before the new beginning
        losses = [[conversation, at.life, at.seq] for conversation, at in backup.positions.items()]
        self._declare("set_back_owners_dead", losses=losses)
        self._server.set_back(backup)
        late = [self._clients.some_pid()] if self._dice.random() < _HALF else []
        with paused(*late):  # it comes back when the new history is longer than the one it has seen
            await self._start_server()
            await self._witness.settle()
            await asyncio.sleep(self._dice.uniform(1, 3) if late else 0)

    async def _keys_gone_owner_frozen(self) -> None:
        """Let an owner sleep while its conversation is forgotten and begun anew by another; then wake it up."""
        conversation = self._dice.choice(self._witness.conversations)
        owner = await self._witness.owner(conversation)
        self._declare("keys_gone_owner_frozen", ends=[conversation])
        with self._server.client() as client:
            async with Successor(conversation, self._witness.client, self._recorder) as successor:
                with paused(owner.pid):
                    client.delete(*Keys().conversation(conversation).as_tuple())
                    await successor.begin()
                    await asyncio.sleep(self._dice.uniform(0, 1))
                await self._witness.owner(conversation)

    # Parts of these.

    def _declare(self, kind: str, *, ends: list[str] | None = None, losses: list[Any] | None = None) -> None:
        """From now on: conversations whose life may end, and those that lose what came behind a position of a life."""
        self._recorder.write("fault", kind=kind, ends=ends or [], losses=losses or [])

    async def _some_owners(self) -> set[int]:
        """One owner's process, or all of them."""
        conversations = self._witness.conversations
        chosen = conversations if self._dice.random() < 0.2 else [self._dice.choice(conversations)]
        found = set()
        for conversation in chosen:
            with suppress(RetryableError):
                found.add((await (await opened(self._witness.client, conversation)).info()).pid)
        return found

    async def _freeze_some(self, kind: str, seconds: float) -> None:
        owners = await self._some_owners()
        self._declare(kind)
        with paused(*owners):
            await asyncio.sleep(seconds)

    async def _retain(self, conversation: str, retention: timedelta | None) -> None:
        with suppress(RetryableError, ConversationNotFoundError):
            await (await opened(self._witness.client, conversation)).set_retention(retention)

    async def _backup(self) -> Backup:
        """Return a copy of the data, some tenths of a second old at least."""
        await self._witness.settle()
        backup = self._server.back_up(self._witness.conversations, sum(self._counts.values()))
        await asyncio.sleep(self._dice.uniform(0.2, 1.5))
        return backup

    async def _start_server(self) -> None:
        await asyncio.to_thread(self._server.start)
