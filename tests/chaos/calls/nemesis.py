"""What is done to owners, archivers, deliverers, the receiver and their servers while calls go on, at random."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

from conversation_actors import ConversationError
from tests.chaos.archive.owners import Owners
from tests.chaos.archive.postgres import HurtPostgres
from tests.chaos.crew import Crew
from tests.chaos.redis_faults import RedisFaults
from tests.support.processes import paused
from tests.support.servers import Server

FAULTS = {
    "owner_killed": 12, "owner_deposed": 6, "passivated": 4, "answers_lost": 4,
    "archiver_killed": 4, "archiver_paused": 3, "archiver_ended": 1,
    "deliverer_killed": 3, "deliverer_paused": 3,
    "receiver_killed": 3, "receiver_away": 2, "receiver_paused": 2,
    "redis_killed": 1, "redis_paused": 2,
    "killed_in_statement": 4, "backends_ended": 2, "postgres_killed": 1,
}  # fmt: skip
"""Kinds of faults, and how often each is drawn."""
OF_POSTGRES = frozenset({"killed_in_statement", "backends_ended", "postgres_killed"})
"""Those that need a PostgreSQL."""
TABLES = ("archive_feeds", "archive_happenings", "archive_sessions", "archive_deliveries")
"""What is written by a step of the feed, one after the other, and by deliverers."""
_STATEMENT_SECONDS = 5.0
"""How long somebody may take to come to a statement; the round goes without."""


class Nemesis(RedisFaults):
    """Hurts one system, which is whole again after each round but for who has to notice first."""

    _longest_pause = 1.5

    def __init__(
        self, *, owners: Callable[[], Sequence[Owners]], archivers: Crew, deliverers: Crew, receiver: Crew,
        redis: Server, postgres: HurtPostgres | None, dice: random.Random,
    ) -> None:  # fmt: skip
        """Do nothing yet. `owners` are those of the calls that go on."""
        super().__init__(redis, dice)
        self._owners, self._archivers, self._deliverers, self._receiver = owners, archivers, deliverers, receiver
        self._postgres = postgres

    async def rage(self, *, pause: float, weights: dict[str, int] | None = None) -> None:
        """Do one thing after the other, about every `pause` seconds, for ever; each kind once before any is drawn."""
        chosen = FAULTS if weights is None else weights
        kinds = [kind for kind in chosen if self._postgres is not None or kind not in OF_POSTGRES]
        first = self._dice.sample(kinds, len(kinds))
        while True:
            await asyncio.sleep(self._dice.uniform(0.1, 2) * pause)
            kind = first.pop() if first else self._dice.choices(kinds, [chosen[one] for one in kinds])[0]
            self.keep()
            await asyncio.shield(getattr(self, f"_{kind}")())  # whoever ends this leaves nothing hung
            self.counts[kind] += 1

    def keep(self) -> None:
        """Have everybody run who is to run."""
        for crew in (self._archivers, self._deliverers, self._receiver):
            crew.keep()

    def _an_owner(self) -> Owners | None:
        """Return one that has calls now."""
        those = [one for one in self._owners() if one.find() is not None]
        return self._dice.choice(those) if those else None

    # Owners.

    async def _owner_killed(self) -> None:
        if (owners := self._an_owner()) is not None:
            await owners.kill()

    async def _owner_deposed(self) -> None:
        if (owners := self._an_owner()) is not None:
            owners.start_another()

    async def _passivated(self) -> None:
        if (owners := self._an_owner()) is not None:
            owner = owners.owner()
            with suppress(ConversationError):
                await owner.passivate()
            await owner.aclose()

    async def _answers_lost(self) -> None:
        if (owners := self._an_owner()) is not None:
            owners.loss = 0.3
            await self._moment()
            owners.loss = 0.0

    # Archivers, which deliver too, and those who only deliver.

    async def _archiver_killed(self) -> None:
        self._kill_one(self._archivers)

    async def _archiver_paused(self) -> None:
        await self._paused(self._archivers)

    async def _archiver_ended(self) -> None:
        if self._archivers.begun:
            await self._archivers.end(self._dice.choice(self._archivers.begun))

    async def _deliverer_killed(self) -> None:
        self._kill_one(self._deliverers)

    async def _deliverer_paused(self) -> None:
        await self._paused(self._deliverers)

    def _kill_one(self, crew: Crew) -> None:
        if crew.begun:  # who is about to begin has nothing to lose
            crew.kill(self._dice.choice(crew.begun))

    async def _paused(self, crew: Crew) -> None:
        """Hang one longer than its claims last, or not."""
        with paused(self._dice.choice(crew.running).pid):
            await self._moment(3.0)

    # The receiver.

    async def _receiver_killed(self) -> None:
        self._kill_one(self._receiver)

    async def _receiver_away(self) -> None:
        self._receiver.lose(*self._receiver.running)
        await self._moment(2.0)
        self._receiver.keep()

    async def _receiver_paused(self) -> None:
        with paused(*(process.pid for process in self._receiver.running)):
            await self._moment(3.0)

    # PostgreSQL; what happens to Redis is in `RedisFaults`.

    async def _killed_in_statement(self) -> None:
        """Kill everybody who writes, while a statement waits: what was committed before it stays, and nothing else."""
        assert self._postgres is not None
        table = self._dice.choice(TABLES)
        async with self._postgres.held(table, _STATEMENT_SECONDS, mode="EXCLUSIVE") as is_waited_for:
            self.counts["in a statement"] += is_waited_for
            if is_waited_for:  # else they may only just begin
                self._archivers.kill(*self._archivers.running)
                self._deliverers.kill(*self._deliverers.running)

    async def _backends_ended(self) -> None:
        assert self._postgres is not None
        await self._postgres.end_backends()

    async def _postgres_killed(self) -> None:
        assert self._postgres is not None
        await self._postgres.restart()
