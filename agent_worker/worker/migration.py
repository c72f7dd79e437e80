"""Handing a call over on purpose: to another worker, or to another agent."""

import asyncio
import time
from datetime import timedelta

from agent_worker.settings import LiveKitSettings
from agent_worker.tenure.assignment import Assignment
from agent_worker.worker.rooms import Rooms
from agent_worker.worker.takeover import Deceased
from conversation_actors import ConversationNotFoundError, Heartbeats, OutcomeUnknownError, Settings
from conversation_actors.values import check_id

_LOOK_SECONDS = 0.05


async def migrate(
    conversation_id: str,
    *,
    to: str | None = None,
    timeout: timedelta = timedelta(seconds=30),  # noqa: ASYNC109  # of the whole handover, whose parts go on without us
    store: Settings | None = None,
    livekit: LiveKitSettings | None = None,
) -> str:
    """Have another agent take a running call over, without a lost turn; return the new holder of the lease.

    `to` is the agent name to dispatch; None: the same agent on another worker. The agent that speaks now
    goes when neither side is speaking. From any process; needs Redis and LiveKit, no Ray. Raises
    `ConversationNotFoundError` where no agent is in that conversation, `RoomServiceError` where LiveKit
    cannot be asked, `OutcomeUnknownError` where nobody has taken over in time (no such agent, no free
    worker); the call then stays where it is, unless a successor comes late.
    """
    check_id(conversation_id, "conversation_id")
    if to is not None:
        check_id(to, "to")
    async with Heartbeats(store) as heartbeats, Rooms(livekit or LiveKitSettings()) as rooms:
        record = await heartbeats.find(conversation_id)
        present = None if record is None or not record.is_alive else Deceased.of(record)
        if record is None or present is None:
            message = f"no agent is in conversation {conversation_id!r}"
            raise ConversationNotFoundError(message)
        assignment = Assignment(
            conversation_id=conversation_id,
            replaces=record.holder,
            is_planned=True,
            avoid=record.group if to is None else "",
        )
        await rooms.dispatch(present.room, to or present.agent_name, assignment)
        deadline = time.monotonic() + timeout.total_seconds()
        while time.monotonic() < deadline:
            now = await heartbeats.find(conversation_id)
            if now is not None and now.holder != record.holder:
                return now.holder
            await asyncio.sleep(_LOOK_SECONDS)
    message = f"{to or present.agent_name} has not taken over in {timeout.total_seconds():g} s"
    raise OutcomeUnknownError(message)
