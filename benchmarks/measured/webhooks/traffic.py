"""Live calls at a steady pace: what a driver does to have something happen."""

import asyncio
import time
from datetime import timedelta

from benchmarks.driver import TEXT, Session
from conversation_actors import ArchiveSettings, ConversationClient, ConversationHandle, Message
from conversation_actors.settings import Direct

CALLS = 20
RATE = 210
"""Turns per second, in all calls together: somewhat more than is to be delivered."""
_PAUSE = CALLS / RATE
_LEASE = timedelta(hours=1)


async def hold(session: Session, url: str, tenant: str, seconds: float) -> dict[str, list[float]]:
    """Have calls go on for so long; return the milliseconds of each append. The first use begins the calls."""
    handles = await _calls(session, url, tenant)
    began = time.monotonic()
    times = await asyncio.gather(
        *(_talk(handle, began + _PAUSE * number / CALLS, began + seconds) for number, handle in enumerate(handles))
    )
    return {"appends": [took for some in times for took in some]}


async def _calls(session: Session, url: str, tenant: str) -> list[ConversationHandle]:
    """Return the handles of a tenant's calls, each with its caller and its agent."""
    if tenant not in session.kept:
        client = await _client(session, url, tenant)
        handles = [await client.open(f"call-{number}") for number in range(CALLS)]
        for handle in handles:
            await handle.join("ada")
            await handle.acquire_lease("agent", holder="job-1", duration=_LEASE)
        session.kept[tenant] = handles
    found: list[ConversationHandle] = session.kept[tenant]
    return found


async def _client(session: Session, url: str, tenant: str) -> ConversationClient:
    changes = {"archive": ArchiveSettings.model_validate({"url": url}), "tenant": tenant}
    settings = session.settings(200, Direct.AUTO).model_copy(update=changes)
    made = await session.stack.enter_async_context(ConversationClient(settings))
    await made.join_cluster()
    return made


async def _talk(handle: ConversationHandle, due: float, until: float) -> list[float]:
    """Say something and have it answered, in one append, at a steady pace; catch up where an append took longer."""
    times = []
    while due < until:
        await asyncio.sleep(max(due - time.monotonic(), 0))
        turn = (Message(role="user", content=TEXT), Message(role="assistant", content=TEXT))
        began = time.perf_counter()
        await handle.append(*turn)
        times.append((time.perf_counter() - began) * 1000)
        due += _PAUSE
    return times
