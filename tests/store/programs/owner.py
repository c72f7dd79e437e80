"""A conversation's owner in a process of its own, for tests that give it a clock of its own.

Reads commands in lines of JSON, {"append": id} or {"lease": holder, "seconds": n}; answers each with one.
"""

import asyncio
import json
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from conversation_actors import Message, Settings
from conversation_actors.activation import Activation
from conversation_actors.activation.activation import Place
from conversation_actors.protocol import Done, Request
from conversation_actors.state import AcquireLease, AppendItems, Command
from conversation_actors.store import open_store


def command_of(line: dict[str, Any]) -> Command:
    """Read what is asked for."""
    if "append" in line:
        return AppendItems((Message(id=line["append"], role="user", content="hello", created_at=0.0).to_stored(),))
    return AcquireLease("agent", line["lease"], line["seconds"])


def tell(answer: dict[str, Any]) -> None:
    """Answer with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(url: str, conversation_id: str) -> None:
    """Own it until standard input ends; then stop as a crash does, without a snapshot."""
    settings = Settings(redis_url=SecretStr(url), idle_timeout=timedelta(hours=1))
    store = open_store(settings)
    activation = await Activation.recover(
        conversation_id,
        owner=uuid.uuid4().hex,
        create=True,
        store=store,
        settings=settings,
        place=Place(0, "node"),
    )
    tell({"epoch": activation.info().epoch, "node_time": time.time()})
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        request = Request(asked.get("request", uuid.uuid4().hex), command_of(asked))
        (reply,) = (await activation.execute([request], watcher="w", after_seq=0)).replies
        tell({"seq": reply.seq} if isinstance(reply, Done) else {"error": type(reply).__name__})
    await activation.aclose()
    await store.aclose()


asyncio.run(main(*sys.argv[1:]))
