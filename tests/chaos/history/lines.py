"""Plays histories on lines and on calls at once, in one process, without Ray and Redis: seconds each, and many of them.

usage: python -m tests.chaos.history.lines --seed 7 --seconds 5 --histories 20

Owners and handles are the product's, the lines are real sockets behind a relay (`tests.support.both_ports`). What is
recorded and how it is judged is as in every other history. What the checker finds is printed as a ``violation``, and
what else went wrong, such as an error that ended a player, as ``trouble``.
"""

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from conversation_actors import ConversationClient, ConversationError, ConversationHandle, RetryableError
from tests.chaos.history.checker import Findings, check
from tests.chaos.history.client import Player
from tests.chaos.history.observing import follow, look
from tests.chaos.history.record import Recorder, read
from tests.support.both_ports import LINE_QUICK, LineCluster
from tests.support.fakes import CONVERSATION, FaultyStore, brief, until
from tests.support.relay import Direction, Fault, Kind

CLIENTS = 3
LAST_SECONDS = 20.0
FAULTS = {
    "owner_killed": 3, "owner_deposed": 3, "passivated": 1, "lines_cut": 6, "lines_silent": 4, "lines_held": 3,
    "lines_refused": 2, "answers_lost": 2, "calls_slow": 4, "store_held": 3,
}  # fmt: skip
"""Kinds of faults, and how often each is drawn."""
SETTINGS = brief(command=6.0, write=1.0, attempt=1.0, poll=1.0, close=2.0, items=20_000, bytes=8 << 20)


class LineClient:
    """What the parts of a history need of a `ConversationClient`: at most one handle that is open."""

    def __init__(self, cluster: LineCluster) -> None:
        """Open nothing yet."""
        self._cluster, self._opening = cluster, asyncio.Lock()
        self._handle: ConversationHandle | None = None

    async def open(self, conversation_id: str) -> ConversationHandle:
        """Return the handle that is open, or open one."""
        assert conversation_id == CONVERSATION
        async with self._opening:
            if self._handle is None or self._handle.is_closed:
                self._handle = await self._cluster.handle()
            return self._handle


class LineNemesis:
    """Hurts owners, their lines, and the calls beside those. Nothing acknowledged may be lost by any of it."""

    def __init__(self, cluster: LineCluster, store: FaultyStore, recorder: Recorder, seed: int) -> None:
        """`seed` decides what is done, and for how long."""
        self._cluster, self._store, self._recorder = cluster, store, recorder
        self._dice = random.Random(seed)
        self.counts: Counter[str] = Counter()

    async def rage(self, seconds: float) -> None:
        """Do one thing after the other, each for a moment; several may last at once."""
        until = time.monotonic() + seconds
        kinds, weights = list(FAULTS), list(FAULTS.values())
        first = self._dice.sample(kinds, len(kinds))
        async with asyncio.TaskGroup() as lasting:
            while time.monotonic() < until:
                await asyncio.sleep(self._dice.uniform(0.01, 0.25))
                kind = first.pop() if first else self._dice.choices(kinds, weights)[0]
                self._recorder.write("fault", kind=kind, ends=[], losses=[])
                lasting.create_task(getattr(self, f"_{kind}")())
                self.counts[kind] += 1

    async def _moment(self) -> None:
        await asyncio.sleep(self._dice.uniform(0.02, 0.6))

    async def _owner_killed(self) -> None:
        await self._cluster.kill()

    async def _owner_deposed(self) -> None:
        """Start a second owner, while the first one lives on and its lines with it."""
        self._cluster.start_another()

    async def _passivated(self) -> None:
        owner = self._cluster.owner()
        with suppress(RetryableError):
            await owner.passivate()
        await owner.aclose()

    async def _lines_cut(self) -> None:
        self._cluster.relay.fail(Fault(self._dice.choice([Kind.CLOSE, Kind.RESET]), Direction.TO_OWNER))
        for _ in range(self._dice.randint(0, CLIENTS)):  # and those that come next, anywhere
            way = self._dice.choice(list(Direction))
            self._cluster.relay.faults.append(Fault(Kind.CLOSE, way, self._dice.randint(0, 2000)))

    async def _lines_silent(self) -> None:
        self._cluster.relay.fail(Fault(Kind.SWALLOW, self._dice.choice(list(Direction))))

    async def _lines_held(self) -> None:
        passages = [*self._cluster.relay.passages]
        self._cluster.relay.fail(Fault(Kind.HOLD, self._dice.choice(list(Direction))))
        await self._moment()
        for passage in passages:
            passage.release()

    async def _lines_refused(self) -> None:
        self._cluster.relay.is_refusing = True
        self._cluster.relay.fail(Fault(Kind.CLOSE, Direction.TO_OWNER))
        await self._moment()
        self._cluster.relay.is_refusing = False

    async def _answers_lost(self) -> None:
        self._cluster.loss = 0.3
        await self._moment()
        self._cluster.loss = 0.0

    async def _calls_slow(self) -> None:
        self._cluster.delay = 0.2
        await self._moment()
        self._cluster.delay = 0.0

    async def _store_held(self) -> None:
        self._store.hold()
        await self._moment()
        self._store.release()


@dataclass(frozen=True)
class Played:
    """One history: what the checker found, what else went wrong, and what was done by which way."""

    findings: Findings
    troubles: list[str]
    counts: Counter[str]


async def play_lines(directory: Path, *, seed: int, seconds: float) -> Played:
    """Play one history, and judge it."""
    lines = Path(tempfile.mkdtemp(prefix="lines-", dir=directory))
    store = FaultyStore()
    wrong: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, told: wrong.append(f"nobody has heard of {told.get('exception')!r}"))
    with tempfile.TemporaryDirectory(prefix="line-") as sockets:  # short: a socket's path may have 107 bytes
        async with LineCluster(store, SETTINGS, Path(sockets), timing=LINE_QUICK) as cluster:
            witness = Recorder(lines, "witness")
            nemesis = LineNemesis(cluster, store, witness, seed)
            until = 0.0
            recorders = [Recorder(lines, f"client-{number}") for number in range(CLIENTS)]
            playing, watching = await _begin(cluster, recorders, seed, lambda: until)
            await nemesis.rage(seconds)
            cluster.loss = cluster.delay = 0.0
            until = time.monotonic() + LAST_SECONDS
            wrong += [f"a player met {ended!r}" for ended in await _ended(playing)]
            wrong += await _finish(cluster, witness, recorders)
            for task in watching:
                task.cancel()
            wrong += [f"a watch met {ended!r}" for ended in await _ended(watching)]
            ways = Counter(by_line=cluster.asked_by_line["execute"], by_call=cluster.calls["execute"])
    gc.collect()  # an error that nobody has heard of is told now
    for recorder in (witness, *recorders):
        recorder.close()
    return Played(check(read(lines)), wrong, nemesis.counts + ways)


async def _begin(
    cluster: LineCluster, recorders: Sequence[Recorder], seed: int, stop: Callable[[], float]
) -> tuple[list[asyncio.Task[None]], list[asyncio.Task[None]]]:
    playing, watching = [], []
    for number, recorder in enumerate(recorders):
        client = cast("ConversationClient", LineClient(cluster))
        handle = await client.open(CONVERSATION)
        if not number:
            recorder.write("settled", conversation=CONVERSATION, life=handle._copy.seen.life)
        watching.append(asyncio.create_task(follow(client, CONVERSATION, recorder)))
        playing.append(asyncio.create_task(Player(client, handle, recorder, f"{seed}/{number}").play(stop)))
    return playing, watching


async def _ended(tasks: list[asyncio.Task[None]]) -> list[Exception]:
    """Wait for all of them; return what ended any of them before its time."""
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [end for end in ends if isinstance(end, Exception)]


async def _finish(cluster: LineCluster, recorder: Recorder, watching: Sequence[Recorder]) -> list[str]:
    """Read all in full, by a handle that has had no part in it, when the watches have brought what led there.

    Return what is wrong with them.
    """
    handle = await cluster.handle()
    async with asyncio.timeout(LAST_SECONDS):
        while True:
            with suppress(ConversationError):
                view = await look(handle, recorder, fresh=True, is_full=True)
                recorder.write("settled", conversation=CONVERSATION, life=view.life)
                break
            await asyncio.sleep(0.05)

    def left() -> list[str]:
        return [one.process for one in watching if one.reached.get((CONVERSATION, view.life), 0) < view.seq]

    with suppress(TimeoutError):
        await until(lambda: not left(), patience=LAST_SECONDS)
    return [f"the watch of {process} has not come to the end" for process in left()]


def main() -> int:
    """Play what the arguments ask for, and print what each was; 1 where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.history.lines", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first history (random)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of faults in each history (5)")
    parser.add_argument("--histories", type=int, default=1, help="how many, with one seed after the other (1)")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="history-"))
    wrong = 0
    for seed in range(asked.seed, asked.seed + asked.histories):
        played = asyncio.run(play_lines(directory, seed=seed, seconds=asked.seconds))
        found, troubles = played.findings.violations, played.troubles
        sys.stdout.write(f"seed {seed}: {dict(played.findings.figures)}\n  {dict(played.counts)}\n")
        sys.stdout.write("".join(f"    violation: {one}\n" for one in found[:20]))
        sys.stdout.write("".join(f"    trouble: {one}\n" for one in troubles[:20]))
        sys.stdout.flush()
        wrong += len(found) + len(troubles)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
