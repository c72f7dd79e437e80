"""Which conversation a job is there for, and opening it."""

import asyncio
import logging
from typing import Any

from livekit import rtc
from livekit.agents import (
    JobContext,
)
from pydantic import BaseModel

from agent_worker.call.end_callbacks import until_the_others_have_ended
from agent_worker.call.rooms_guard import guard
from agent_worker.environment import instance_from_environment
from agent_worker.settings import CallSettings
from agent_worker.tenure.assignment import ID_KEY, Assignment, CallDeclinedError, named_by_room, trusted_attribute
from agent_worker.tenure.call_end import CallEnd
from agent_worker.tenure.conversation import CallConversation, Post
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.tenure.simulated import SimulatedConversation
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationError, LeaseHeldError
from conversation_actors.values import check_id

logger = logging.getLogger(__name__)

JOB_CRASHED = "job crashed"
"""LiveKit's reason for the end of a job whose entrypoint raised."""
ROOM_LOST = "room disconnected"
"""LiveKit's reason for a job that lost the room: for good, or because the room is over; the one who looks can tell."""
WORKER_GONE = "parent process shutdown"
"""LiveKit's reason when the worker ends and takes its jobs with it."""
NOT_FINISHED = "the call goes on without this agent"
"""Ours for the end of a job in whose room somebody still waits for an agent."""
_UNFINISHED = frozenset({JOB_CRASHED, NOT_FINISHED})
_NOT_BY_APPLICATION = _UNFINISHED | {ROOM_LOST, WORKER_GONE}
ON_PURPOSE = frozenset(
    {
        rtc.DisconnectReason.CLIENT_INITIATED,
        # also what happens to one that a worker has taken for dead: its record tells, and it releases nothing
        rtc.DisconnectReason.PARTICIPANT_REMOVED,
        rtc.DisconnectReason.ROOM_DELETED,
    }
)
"""How an agent leaves a room, or is put out of it, because somebody means it."""
_ENDED_BY_OTHERS = ON_PURPOSE - {rtc.DisconnectReason.CLIENT_INITIATED}
"""What LiveKit's server does to an agent; it tells the worker too, which ends the job as if the worker went."""


async def open_conversation(
    ctx: JobContext,
    *,
    role: str = AGENT_ROLE,
    call: CallSettings | None = None,
    outcome: type[BaseModel] | None = None,
    timing: Timing = TIMING,
) -> CallConversation:
    """Open the conversation that this job is there for, and become its one agent, or the one of this `role`.

    The id comes from the job's metadata (``{"conversation_id": …}``), the room's metadata, a participant's
    attribute (`CallSettings.participant_identity`), or is the room's name. If Ray or Redis are away the
    job goes on without after `CallSettings.open_timeout`; the conversation joins it when it can be opened.
    Whom this job follows, if anybody, is told in Redis by whoever has called it; the job's metadata is the
    application's, and the same in every successor. Raises `LeaseHeldError`, and ends the job, if another agent is
    alive in this conversation; one in another room that everybody has left lets this job have it. Raises
    `CallDeclinedError`, and ends the job, if it is on the very worker that the call is to leave: another is called.
    `call`: how the agent behaves in the call, instead of what the environment says. `outcome`: the application's model
    of what may come of a call; `CallConversation.set_outcome` refuses what does not fit it. `timing`: how long parts of
    the call wait; a test passes shorter times.

    In LiveKit's console, and in its fake jobs, there is no call: what is returned at once is never open.

    Example:
        conversation = await open_conversation(ctx)
        agent = Assistant(seen_before=len(conversation.items) > 0)
        await attach(session, agent, conversation, room=ctx.room)
        await session.start(agent=agent, room=ctx.room)
    """
    if ctx.is_fake_job():
        return _simulated(ctx, role, call, outcome)
    settings = call or CallSettings()
    assignment = Assignment.read(ctx.job.metadata, where="job metadata")
    conversation = CallConversation(
        await _conversation_id(ctx, assignment, settings, timing=timing),
        holder=ctx.job.id,
        post=Post(
            room=ctx.job.room.name,
            agent_name=ctx.job.agent_name,
            agent_identity=ctx.local_participant_identity,
            group=instance_from_environment() or "",
            worker_id=ctx.worker_id,
            dispatch_id=ctx.job.dispatch_id,
            metadata=ctx.job.metadata,
        ),
        assignment=assignment,
        role=role,
        call=settings,
        outcome=outcome,
        timing=timing,
    )

    departure = _Departure(conversation, ctx)
    guard(
        ctx.job.room.name, departure, timing=timing
    )  # before it is open: a job that is not to have the call ends no room

    async def close(reason: str) -> None:
        # if the call is not over, the lease stays as it is: whoever finds it calls the next agent
        if departure.is_unfinished(reason) and not conversation.is_over:
            conversation.left()
        else:
            await conversation.release(departure.how(reason))
            await until_the_others_have_ended(timing.end_callbacks)
        await conversation.aclose()

    ctx.add_shutdown_callback(close)
    _leave_if_it_raises(asyncio.current_task(), conversation)
    try:
        await conversation.open()
    except LeaseHeldError as error:
        departure.is_refused = True
        ctx.shutdown(f"another agent is in this conversation: {error.holder}")
        raise
    except CallDeclinedError:
        departure.is_declined = True
        ctx.shutdown(NOT_FINISHED)
        raise
    return conversation


def _simulated(
    ctx: JobContext, role: str, call: CallSettings | None, outcome: type[BaseModel] | None
) -> SimulatedConversation:
    room = ctx.job.room.name
    named = Assignment.read(ctx.job.metadata, where="job metadata").conversation_id
    conversation = SimulatedConversation(
        named or room, holder=ctx.job.id, room=room, role=role, call=call, outcome=outcome
    )

    async def close() -> None:
        conversation.ended()
        await conversation.aclose()

    ctx.add_shutdown_callback(close)
    return conversation


class _Departure:
    """How this agent has left its room, if it has; and who may end the room, until a session has started there."""

    def __init__(self, conversation: CallConversation, context: JobContext) -> None:
        self.is_declined = False
        """Another agent was called, or is to be: the call is not this job's."""
        self.is_refused = False
        """Another agent has the conversation: the call is not this job's, if that one is in this room."""
        self._conversation = conversation
        self._own = context.local_participant_identity
        self._reason: rtc.DisconnectReason.ValueType | None = None
        context.room.once("disconnected", self._on_disconnected)

    def is_unfinished(self, reason: str) -> bool:
        """Whether a job that ends for LiveKit's `reason` leaves a call that goes on; the first disconnection tells."""
        if reason == ROOM_LOST:
            return self._reason not in ON_PURPOSE
        if reason == WORKER_GONE:
            return self._reason not in _ENDED_BY_OTHERS
        return reason in _UNFINISHED

    def how(self, reason: str) -> CallEnd | None:
        """Return how the call has ended, if LiveKit's `reason` for the end of the job is the application's own."""
        return None if reason in _NOT_BY_APPLICATION else CallEnd.by_application(reason)

    async def goes_on(self) -> bool:
        """Whether the call goes on without this job, as far as anybody can tell."""
        if self.is_declined:
            return True
        if self.is_refused:
            return await self._is_another_here()
        return not self._conversation.is_over and await self._conversation.may_be_others()

    def is_others(self, identity: str) -> bool:
        """Whether somebody is not this agent."""
        return identity != self._own

    async def ends(self, _identity: str | None) -> bool:
        """Nobody has anything to say: no session has started."""
        return False

    def deleted(self) -> None:
        """Note that the room is gone, and the call with it."""
        self._conversation.ended()

    async def _is_another_here(self) -> bool:
        """Whether the agent that has the conversation is in this room; if nobody answers it is."""
        try:
            return await self._conversation.is_another_here()
        except (ConversationError, TimeoutError) as error:
            reason = type(error).__name__
            logger.warning("nobody can tell whose call it is: what would end it is not done", extra={"reason": reason})
            return True

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType | None = None) -> None:
        self._reason = reason


def _leave_if_it_raises(task: "asyncio.Task[Any] | None", conversation: CallConversation) -> None:
    """Know of an entrypoint that crashed before anything of the session's end happens, which LiveKit does first."""

    def look(done: "asyncio.Task[Any]") -> None:
        if not done.cancelled() and done.exception() is not None and not conversation.is_over:
            conversation.left()

    if task is not None:
        task.add_done_callback(look)


async def _conversation_id(
    ctx: JobContext, assignment: Assignment, settings: CallSettings, *, timing: Timing = TIMING
) -> str:
    named = assignment.conversation_id or named_by_room(ctx.job.room.metadata)
    if named is None and settings.participant_identity:
        named = await _named_by_participant(ctx, timing)
    return named or check_id(ctx.job.room.name, "room")


async def _named_by_participant(ctx: JobContext, timing: Timing) -> str | None:
    await ctx.connect()
    try:
        async with asyncio.timeout(timing.identity):
            participant = await ctx.wait_for_participant()
    except TimeoutError:
        return None
    return trusted_attribute(participant, ID_KEY)
