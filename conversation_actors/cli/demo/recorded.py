"""The record of the demo's call, which the archiver has written from what it took out of Redis."""

import asyncio
import time

from conversation_actors.calls import SessionRecord
from conversation_actors.cli.demo.performer import DemoFailedError
from conversation_actors.client import ConversationClient

_RECORDED_SECONDS = 40.0
_LOOK_SECONDS = 0.1


async def record_of_first_call(client: ConversationClient, conversation: str) -> SessionRecord:
    """Return the record of the first call, which is final since the second one began. Raises `DemoFailedError`."""
    deadline = time.monotonic() + _RECORDED_SECONDS
    while not (records := (await client.sessions(conversation_id=conversation)).sessions):
        if time.monotonic() > deadline:
            message = f"the call has no record after {_RECORDED_SECONDS:.0f} s"
            raise DemoFailedError(message)
        await asyncio.sleep(_LOOK_SECONDS)
    return records[-1]
