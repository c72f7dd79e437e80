"""The last scene: Redis is wiped after the call, and the caller who calls again is known."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from conversation_actors.cli.demo.narration import Narration
from conversation_actors.cli.demo.performer import DemoFailedError, Performer
from conversation_actors.cli.demo.stage import Stage
from conversation_actors.cli.demo.verdict import Return
from conversation_actors.cli.demo.witness import Witness
from conversation_actors.client import ConversationClient, ConversationHandle
from conversation_actors.items import Item

_ARCHIVED_SECONDS = 40.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Returned:
    """What the scene has shown: the evidence, how long the caller waited for a word, and which agent gave it."""

    evidence: Return
    seconds: float
    agent: Performer
    restored: int


async def wipe_and_return(
    client: ConversationClient,
    conversation: str,
    witness: Witness,
    *,
    stage: Stage,
    narration: Narration,
    talk: Callable[[str], Awaitable[Performer]],
) -> Returned:
    """Play the scene. `talk` starts the agent of this name."""
    last = witness.entries[-1].seq
    await _until_archived(client, conversation)
    # An owner that runs would write everything back from its memory: it is not the archive's turn then.
    await (await client.open(conversation)).passivate()
    await asyncio.to_thread(stage.wipe)
    wiped = time.time()
    narration.step(
        "6. The call is over, its owner has left, and everything in Redis is wiped. The caller calls again.",
        "A third agent opens the same id. Redis has nothing of it any more; the archive has all that was acknowledged, "
        "because a process of its own, the archiver, has taken it there.",
    )
    narration.busy("starting agent C")
    agent = await talk("C")
    started = await agent.until(lambda line: line["event"] == "started", "open the conversation")
    arrived = await agent.until(lambda line: line["event"] == "arrived", "the caller's arrival")
    left = await agent.until(lambda line: line["event"] == "left", "the end of the call")
    handle = await client.open(conversation)
    await witness.until(lambda entry: entry.seq >= left["seq"], "the last entry of the second call")
    evidence = Return(
        history=[item.to_dict() for item in await _everything(handle)],
        seqs=[entry.seq for entry in witness.entries if entry.seq > last],
        welcome=str(arrived["welcome"]),
    )
    return Returned(evidence, arrived["at"] - wiped, agent, int(started["restored"]))


async def _until_archived(client: ConversationClient, conversation: str) -> None:
    """Return when nothing waits for the archive any more: what Redis had, the archive has."""
    deadline = time.monotonic() + _ARCHIVED_SECONDS
    while (lag := await client.archive_lag(conversation)).records:
        if time.monotonic() > deadline:
            message = f"{lag.records} entries still wait for the archive after {_ARCHIVED_SECONDS:.0f} s"
            raise DemoFailedError(message)
        await asyncio.sleep(_LOOK_SECONDS)


async def _everything(handle: ConversationHandle) -> list[Item]:
    """Return all items, page by page."""
    page = await handle.history()
    items = list(page.items)
    while page.next_cursor is not None:
        page = await handle.history(page.next_cursor)
        items += page.items
    return items
