"""Which conversation a job is there for, and opening it."""

import asyncio
import logging

from livekit.agents import (
    JobContext,
)

from agent_worker.settings import CallSettings, instance_from_environment
from agent_worker.tenure.assignment import ID_KEY, Assignment, named_by_room, trusted_attribute
from agent_worker.tenure.conversation import CallConversation, Post
from conversation_actors import LeaseHeldError
from conversation_actors.values import check_id

logger = logging.getLogger(__name__)

JOB_CRASHED = "job crashed"
"""LiveKit's reason for the end of a job whose entrypoint raised."""
ROOM_LOST = "room disconnected"
"""LiveKit's reason where the job lost the room: for good, or because the room is over; the one who looks can tell."""
WORKER_GONE = "parent process shutdown"
"""LiveKit's reason where the worker ends and takes its jobs with it."""
NOT_FINISHED = "the call goes on without this agent"
"""Ours for the end of a job in whose room somebody still waits for an agent."""
_IDENTITY_SECONDS = 5.0


async def open_conversation(ctx: JobContext, *, call: CallSettings | None = None) -> CallConversation:
    """Open the conversation that this job is there for, and become its one agent.

    The id comes from the job's metadata (``{"conversation_id": …}``), the room's metadata, a participant's
    attribute (`CallSettings.participant_identity`), or is the room's name. Where Ray or Redis are away the
    job goes on without after `CallSettings.open_timeout`; the conversation joins it when it can be opened.
    `call`: how the agent behaves in the call, instead of what the environment says.
    Raises `LeaseHeldError`, and ends the job, where another agent is alive in this conversation; one in another
    room that everybody has left lets this job have it.
    """
    settings = call or CallSettings()
    assignment = Assignment.read(ctx.job.metadata, where="job metadata")
    conversation = CallConversation(
        await _conversation_id(ctx, assignment, settings),
        holder=ctx.job.id,
        post=Post(
            room=ctx.job.room.name,
            agent_name=ctx.job.agent_name,
            agent_identity=ctx.local_participant_identity,
            group=instance_from_environment() or "",
        ),
        assignment=assignment,
        call=settings,
    )

    async def close(reason: str) -> None:
        # where the call is not over, the lease stays as it is: whoever finds it calls the next agent
        if reason not in {JOB_CRASHED, NOT_FINISHED, ROOM_LOST, WORKER_GONE}:
            await conversation.release()
        await conversation.aclose()

    ctx.add_shutdown_callback(close)
    try:
        await conversation.open()
    except LeaseHeldError as error:
        ctx.shutdown(f"another agent is in this conversation: {error.holder}")
        raise
    return conversation


async def _conversation_id(ctx: JobContext, assignment: Assignment, settings: CallSettings) -> str:
    named = assignment.conversation_id or named_by_room(ctx.job.room.metadata)
    if named is None and settings.participant_identity:
        named = await _named_by_participant(ctx)
    return named or check_id(ctx.job.room.name, "room")


async def _named_by_participant(ctx: JobContext) -> str | None:
    await ctx.connect()
    try:
        async with asyncio.timeout(_IDENTITY_SECONDS):
            participant = await ctx.wait_for_participant()
    except TimeoutError:
        return None
    return trusted_attribute(participant, ID_KEY)
