"""What is said in a conversation whose agent has died, and gets no successor."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from agent_worker.tenure.role import AGENT, AGENT_ROLE, attribute_name
from conversation_actors import ConversationClient, ConversationHandle, HeartbeatRecord, Settings
from conversation_actors.calls.names import NO_AGENT_COMES, NOBODY_THERE
from conversation_actors.errors import ConflictError, ConversationNotFoundError

logger = logging.getLogger(__name__)

_TRIES = 5
"""While others change attributes at the same time."""


async def say_given_up(settings: Settings, record: HeartbeatRecord, attempts: int) -> None:
    """Say that no agent comes any more, after so many `attempts`."""
    await _say(settings, record, {"state": NO_AGENT_COMES, "attempts": attempts}, create=True)
    logger.error("a call is given up", extra={"conversation_id": record.conversation_id, "attempts": attempts})


async def say_nobody_there(settings: Settings, record: HeartbeatRecord) -> None:
    """Say that nobody is in the room, so that no other agent is called; nothing if the conversation is gone."""
    try:
        await _say(settings, record, {"state": NOBODY_THERE}, create=False)
    except ConversationNotFoundError:
        return


async def _say(settings: Settings, record: HeartbeatRecord, told: Mapping[str, Any], *, create: bool) -> None:
    """Say who died and why no other one comes, unless another agent has come meanwhile: that one has said so."""
    async with ConversationClient(settings) as client:
        conversation = await client.open(record.conversation_id, create=create)
        try:
            for _ in range(_TRIES):
                try:
                    await _say_to(conversation, record, told)
                except ConflictError:
                    continue  # something was noted meanwhile: by another agent, perhaps
                break
        finally:
            await conversation.aclose()


async def _say_to(conversation: ConversationHandle, record: HeartbeatRecord, told: Mapping[str, Any]) -> None:
    role, now = record.role or AGENT_ROLE, time.time()
    view = await conversation.snapshot(fresh=True)
    lease = view.leases.get(role)
    if lease is None or lease.holder == record.holder or lease.expires_at <= now:
        said = {"holder": None, "of": record.holder, "at": now, **told}
        await conversation.set_attributes({attribute_name(AGENT, role): said}, expected_seq=view.seq)
