"""One history from its seed to what is wrong: calls whose agents die, while everybody else dies too."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from conversation_actors.calls import SessionRecord
from conversation_actors.destinations import BACKEND_NAME
from conversation_actors.errors import RetryableError
from tests.chaos.archive.owners import Owners
from tests.chaos.calls.caller import Caller
from tests.chaos.calls.checker import Try, check, check_backend
from tests.chaos.calls.expected import Ledger
from tests.chaos.calls.nemesis import Nemesis
from tests.chaos.calls.receiver import WEBHOOKS
from tests.chaos.calls.system import System, running
from tests.chaos.report import Report

AT_ONCE = 12
"""Conversations that have a call at the same time."""
_LOST = 0.15
"""The share of conversations whose last call is lost."""
_MISBEHAVES = 0.08
"""The share of requests that the receiver does not take, or not in time."""
_RAGE_ON = 4.0
"""Seconds in which faults go on when all calls are played, and many records become final."""
_PAUSE = 0.6
"""Seconds between two faults, about."""
_PATIENCE = 180.0
"""Seconds without any progress after which what is not told is missing."""


async def play(
    directory: Path, *, seed: int, calls: int, sqlite: bool = False, weights: dict[str, int] | None = None,
    patience: float = _PATIENCE,
) -> Report:  # fmt: skip
    """Play so many calls, and judge what was told of them when nothing is left to do."""
    dice, began = random.Random(seed), time.monotonic()
    await asyncio.to_thread(directory.mkdir, parents=True)
    async with running(directory, sqlite=sqlite, misbehaves=_MISBEHAVES) as system:
        plans = _plans(calls, dice)
        active: list[Owners] = []
        nemesis = Nemesis(
            owners=lambda: active, archivers=system.archivers, deliverers=system.deliverers,
            receiver=system.receiver, redis=system.redis, postgres=system.postgres, dice=dice,
        )  # fmt: skip
        raging = asyncio.create_task(nemesis.rage(pause=_PAUSE, weights=weights))
        callers, troubles = await _callers(system, plans, active, seed)
        played = time.monotonic() - began
        system.let_time_pass()
        await asyncio.wait({raging}, timeout=_RAGE_ON)
        raging.cancel()
        await asyncio.gather(raging, return_exceptions=True)
        left = await _at_rest(system, patience)
        await asyncio.gather(*(crew.end(*crew.running) for crew in (system.archivers, system.deliverers)))
        ledgers = [one.ledger for one in callers]
        violations, figures = await _judged(system, ledgers)
        for crew in system.crews:
            troubles += crew.troubles
    figures += nemesis.counts + sum((one.figures for one in callers), Counter[str]())
    figures["seconds of calls"] = round(played)
    figures["at rest"] = int(not left)
    if raging.done() and not raging.cancelled() and (error := raging.exception()):
        troubles.append(f"the nemesis met {error!r}")
    return Report(seed, time.monotonic() - began, figures, violations, troubles + left)


def _plans(calls: int, dice: random.Random) -> list[tuple[int, bool]]:
    """Return for each conversation how many calls it has, and whether the last one is lost."""
    plans: list[tuple[int, bool]] = []
    while calls > 0:
        count = min(calls, dice.randint(1, 4))
        plans.append((count, dice.random() < _LOST))
        calls -= count
    return plans


async def _callers(
    system: System, plans: list[tuple[int, bool]], active: list[Owners], seed: int
) -> tuple[list[Caller], list[str]]:
    """Have all calls played, some at once; return who has played them, and what ended some too early."""
    places = asyncio.Semaphore(AT_ONCE)
    callers: list[Caller] = []
    troubles: list[str] = []

    async def one(number: int, plan: tuple[int, bool]) -> None:
        async with places, Owners(f"call-{number:04}", system.store, system.settings) as owners:
            caller = Caller(owners, random.Random(f"{seed}/{number}"), calls=plan[0], loses=plan[1])
            active.append(owners)
            try:
                await caller.play()
            except Exception as error:  # noqa: BLE001  # the others go on, and this one is told
                troubles.append(f"{owners.conversation_id} met {error!r}")
            callers.append(caller)
            active.remove(owners)

    await asyncio.gather(*(one(number, plan) for number, plan in enumerate(plans)))
    return callers, troubles


async def _at_rest(system: System, patience: float) -> list[str]:
    """Wait until there is nothing to do; return what there is, if that does not change for too long."""
    last, deadline = "", time.monotonic() + patience
    while True:
        system.keep()
        unrest = "a server does not answer"
        with suppress(RetryableError):
            unrest = await system.unrest(time.time())
        if not unrest:
            return []
        if unrest != last:
            last, deadline = unrest, time.monotonic() + patience
        if time.monotonic() > deadline:
            return [f"still to do: {unrest}"]
        await asyncio.sleep(0.1)


async def _judged(system: System, ledgers: list[Ledger]) -> tuple[list[str], Counter[str]]:
    """Compare what was told and recorded with what happened; return what is wrong, and how much it was."""
    met, records = system.tries(), await system.records()
    tries, deliveries = met[WEBHOOKS], met[BACKEND_NAME]
    violations = [
        wrong
        for one in ledgers
        for wrong in check(one, tries.get(one.conversation_id, []), records.get(one.conversation_id, []))
    ]
    violations += [wrong for one in ledgers for wrong in check_backend(one, deliveries.get(one.conversation_id, []))]
    known = {one.conversation_id for one in ledgers}
    violations += [f"{name} was told of, and is nobody's" for name in sorted({*tries, *deliveries, *records} - known)]
    if dead := await system.dead_letters():
        violations.append(f"there are {dead} dead letters")
    return violations, _figures(ledgers, tries, deliveries, records)


def _figures(
    ledgers: list[Ledger], tries: Mapping[str, list[Try]], deliveries: Mapping[str, list[Try]],
    records: Mapping[str, list[SessionRecord]],
) -> Counter[str]:  # fmt: skip
    every = [one for some in tries.values() for one in some]
    sent = [one for some in deliveries.values() for one in some]
    return Counter({
        "calls": sum(len(one.calls) for one in ledgers),
        "records": sum(map(len, records.values())),
        "conversations": len(ledgers),
        "happenings": len({one.id for one in every}),
        "requests": len(every),
        "requests not taken": sum(one.answer.isdigit() for one in every),
        "deliveries": len({one.id for one in sent}),
        "requests to the back end": len(sent),
    })  # fmt: skip
