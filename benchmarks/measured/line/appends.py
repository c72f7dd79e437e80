"""Appends of one message, by each way and by what it is compared with; from wherever the driver runs."""

import gc
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import actors, floor, peers
from benchmarks.driver import TEXT, Session, a_message
from benchmarks.measured.append import CALLERS, Call, interleaved, recorded, throughput
from benchmarks.measured.line.ways import Way, open_both, taken
from conversation_actors import ConversationHandle

BARE = "bare Ray actor call"
UNGUARDED = "append to an actor without guarantees"
_WARM_UP = 10


def label(way: Way) -> str:
    """Return the name of the row of durable appends."""
    return f"durable append, {way}"


def recorded_label(way: Way) -> str:
    """Return the name of the row of messages that were recorded and flushed."""
    return f"record and flush, {way}"


async def prepare(session: Session, prefix: str, *, with_peers: bool) -> dict[str, Any]:
    """Open conversations and peers, and use each a few times.

    Return by which socket the owner is reached, and a sentence for each missing peer.
    """
    handles = await open_both(session, prefix, peers.ITEMS)
    wanted = (peers.PIPELINE, peers.SCRIPT, peers.SESSION) if with_peers else (peers.PIPELINE,)
    others, notes = await peers.available(session.stack, session.redis_url, None, wanted=wanted)
    bare = actors.bare()
    calls: dict[str, Call] = {BARE: lambda: bare.call.remote(TEXT)}
    calls |= {label(way): partial(_append, handle) for way, handle in handles.items()}
    if with_peers:
        actor = actors.unguaranteed(session.redis_url, f"{prefix}-unguaranteed")
        await actor.open.remote()
        calls[UNGUARDED] = lambda: actor.append.remote(TEXT.encode())
        path = f"{tempfile.mkdtemp(dir=Path.cwd())}/floor"  # the suite removes the directory
        listening = floor.listen(session.redis_url, path)
        session.kept[path] = listening  # Ray ends an actor whose handle is gone
        calls |= await floor.connect(listening, path)
    session.kept[prefix] = (handles, calls | others)
    gc.collect()
    gc.freeze()  # otherwise collections would scan the peers' hundred thousand objects during all calls
    await interleaved(calls | others, _WARM_UP)
    return {"reached": await taken(handles[Way.LINE], Way.LINE), "notes": notes}


async def one_by_one(session: Session, prefix: str, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call, which are made in turn."""
    handles, calls = session.kept[prefix]
    times = await interleaved(calls, rounds)
    await taken(handles[Way.LINE], Way.LINE)
    return times


async def many(session: Session, prefix: str, repeats: int, each: int) -> dict[str, list[float]]:
    """Return the messages per second of many callers, and of messages that are recorded, in turn."""
    handles, calls = session.kept[prefix]
    rates: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name in (BARE, *map(label, Way), peers.PIPELINE, peers.SESSION):
            if name in calls:
                rates.setdefault(f"{name}, {CALLERS} callers", []).append(await throughput(calls[name], each))
        for way, handle in handles.items():
            rates.setdefault(recorded_label(way), []).append(await recorded(handle))
    return rates


async def _append(handle: ConversationHandle) -> None:
    await handle.append(a_message())
