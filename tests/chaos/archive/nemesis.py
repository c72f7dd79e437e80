"""What is done to the system, at random, one thing after the other. Nothing acknowledged may be lost by any of it."""

import asyncio
import random
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from conversation_actors import ConversationError
from tests.chaos.archive.archivers import Archivers
from tests.chaos.archive.owners import Owners
from tests.chaos.archive.postgres import TABLES, HurtPostgres
from tests.chaos.redis_faults import RedisFaults
from tests.support.processes import paused
from tests.support.servers import Server

FAULTS = {
    "owner_killed": 3, "owner_deposed": 3, "passivated": 2, "answers_lost": 2,
    "archiver_killed": 2, "archiver_paused": 2, "archiver_ended": 1,
    "archiver_killed_in_statement": 4, "archiver_paused_in_statement": 3, "archiver_killed_before_settling": 4,
    "backend_ended_in_statement": 2, "postgres_killed_in_statement": 2, "postgres_killed": 1, "postgres_paused": 2,
    "postgres_read_only": 1, "redis_killed": 2, "redis_paused": 2, "redis_connections_killed": 2,
}  # fmt: skip
"""Kinds of faults, and how often each is drawn."""
_STATEMENT_SECONDS = 10.0
"""How long an archiver may take to come to a statement; if all are away then, the round goes without."""


class Nemesis(RedisFaults):
    """Hurts one system, which is whole again after each round but for who has to notice first."""

    def __init__(
        self, owners: Sequence[Owners], archivers: Archivers, postgres: HurtPostgres, redis: Server, *,
        dice: random.Random,
    ) -> None:  # fmt: skip
        """Do nothing yet."""
        super().__init__(redis, dice)
        self._owners, self._archivers, self._postgres = owners, archivers, postgres

    async def rage(self, rounds: int, weights: dict[str, int]) -> None:
        """Do one thing after the other; each kind once, in some order, before any is drawn by its weight."""
        kinds = list(weights)
        first = self._dice.sample(kinds, len(kinds))
        for _ in range(rounds):
            await asyncio.sleep(self._dice.uniform(0.05, 0.6))
            kind = first.pop() if first else self._dice.choices(kinds, list(weights.values()))[0]
            self._archivers.keep()
            await getattr(self, f"_{kind}")()
            self.counts[kind] += 1

    def _an_owner(self) -> Owners:
        return self._dice.choice(self._owners)

    def _some_archivers(self) -> list[subprocess.Popen[bytes]]:
        running = self._archivers.running
        return running[:] if self._dice.random() < 0.5 else [self._dice.choice(running)]

    # Owners.

    async def _owner_killed(self) -> None:
        await self._an_owner().kill()

    async def _owner_deposed(self) -> None:
        self._an_owner().start_another()

    async def _passivated(self) -> None:
        owner = self._an_owner().owner()
        with suppress(ConversationError):
            await owner.passivate()
        await owner.aclose()

    async def _answers_lost(self) -> None:
        owners = self._an_owner()
        owners.loss = 0.3
        await self._moment()
        owners.loss = 0.0

    # Archivers, anywhere and in a statement.

    async def _archiver_killed(self) -> None:
        self._archivers.kill(*self._some_archivers())

    async def _archiver_paused(self) -> None:
        with paused(*(process.pid for process in self._some_archivers())):
            await self._moment(3.0)

    async def _archiver_ended(self) -> None:
        await self._archivers.end(self._dice.choice(self._archivers.running))

    async def _archiver_killed_in_statement(self) -> None:
        async with self._postgres.held(self._dice.choice(TABLES), _STATEMENT_SECONDS) as is_waited_for:
            self.counts["in a statement"] += is_waited_for
            self._archivers.kill(*self._archivers.running)

    async def _archiver_paused_in_statement(self) -> None:
        """Let an archiver sleep in its transaction, which others wait for, or the server ends."""
        running = self._archivers.running[:]
        async with self._postgres.held(self._dice.choice(TABLES), _STATEMENT_SECONDS) as is_waited_for:
            self.counts["in a statement"] += is_waited_for
            sleeper = paused(*(process.pid for process in running))
            sleeper.__enter__()
        await self._moment(2.0)
        sleeper.__exit__(None, None, None)

    async def _archiver_killed_before_settling(self) -> None:
        """Kill archivers that have committed what they had in hand, and cannot settle because Redis says nothing."""
        async with self._postgres.held(self._dice.choice(TABLES), _STATEMENT_SECONDS) as is_waited_for:
            self.counts["in a statement"] += is_waited_for
            self._redis.pause()
        await self._moment(0.5)
        self._archivers.kill(*self._archivers.running)
        self._redis.resume()

    # PostgreSQL.

    async def _backend_ended_in_statement(self) -> None:
        async with self._postgres.held(self._dice.choice(TABLES), _STATEMENT_SECONDS) as is_waited_for:
            self.counts["in a statement"] += is_waited_for
            await self._postgres.end_backends()

    async def _postgres_killed_in_statement(self) -> None:
        async with self._postgres.held(self._dice.choice(TABLES), _STATEMENT_SECONDS) as is_waited_for:
            self.counts["in a statement"] += is_waited_for
            await self._postgres.restart()

    async def _postgres_killed(self) -> None:
        await self._postgres.restart()

    async def _postgres_paused(self) -> None:
        with self._postgres.paused():
            await self._moment(2.0)

    async def _postgres_read_only(self) -> None:
        await self._postgres.set_read_only(is_read_only=True)
        await self._moment(1.5)
        await self._postgres.set_read_only(is_read_only=False)

    # Redis, beside what `RedisFaults` does to it.

    async def _redis_connections_killed(self) -> None:
        with self._redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
