"""Whether a call is over, or only this job's part in it: what the end of the job says about that, as it comes."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, JobContext
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from agent_worker.call.opening import NOT_FINISHED, ON_PURPOSE
from agent_worker.call.rooms_guard import guard
from agent_worker.tenure.call_end import CallEnd
from agent_worker.tenure.conversation import CallConversation
from conversation_actors.calls.names import LEFT

logger = logging.getLogger(__name__)

JOB_TASK = "job_task"
"""LiveKit's name for the task in which it closes a job's session when the job is told to end."""


class Ending:
    """The end of a job, which keeps the room and who is in it if the call goes on. Handlers never raise."""

    def __init__(self, conversation: CallConversation, context: JobContext | None) -> None:
        """Nothing is followed before `start`."""
        self._conversation, self._context = conversation, context
        self._shut_down: Callable[[str], None] | None = None if context is None else context.shutdown
        self._own: set[str] = set()
        self.is_told_to_leave = False
        """Whether the worker, its server, or the loss of the room ends this job: that is not the end of the call."""
        self.before_end: Callable[[str | None], Awaitable[bool]] | None = None
        """What is done before the application deletes the room, or puts somebody out of it; see `Farewell.said`."""

    def keep_room(self) -> None:
        """Keep the room from now on, also in a job that only stands by for the call. Idempotent."""
        if self._context is not None and not self._own:
            self._own.add(self._context.local_participant_identity)
            # the other one has no name before it is connected
            guard(self._context.job.room.name, self, timing=self._conversation.timing)

    def start(self, session: AgentSession[Any]) -> None:
        """Learn from now on how the job ends."""
        if self._context is None:
            return
        self._context.shutdown = self._on_shutdown  # type: ignore[method-assign]  # on this instance: there is no event
        self._follow_close(session, self._context.room)
        self._context.room.once("disconnected", self._on_disconnected)
        self.keep_room()
        room = self._context.room
        room.on("participant_connected", self._note_own)
        for one in list(room.remote_participants.values()) if room.isconnected() else ():
            self._note_own(one)

    def end(self, reason: str, *, is_clean: bool) -> None:
        """End the job: nobody is left, or another agent has the call. Without a job: nothing.

        Not clean: in a way that has the next agent called.
        """
        if is_clean and not self._conversation.goes_on_elsewhere:
            self._conversation.ended(CallEnd(LEFT))
        else:
            self._conversation.left()
        if self._shut_down is not None:
            logger.info("the job ends", extra={"reason": reason, "conversation_id": self._conversation.id})
            self._shut_down(reason if is_clean else NOT_FINISHED)

    # What the guard of rooms asks.

    async def goes_on(self) -> bool:
        """Whether the call goes on without this job, as far as anybody can tell."""
        if self._conversation.goes_on_elsewhere or self.is_told_to_leave:
            return True
        return not self._conversation.is_over and await self._conversation.may_be_others()

    def is_others(self, identity: str) -> bool:
        """Whether somebody is neither this agent nor one that speaks for it, such as an avatar."""
        return identity not in self._own

    async def ends(self, identity: str | None) -> bool:
        """Do what comes before the end of a call, or of somebody's part in it; return whether that took time."""
        return self.before_end is not None and await self.before_end(identity)

    def deleted(self) -> None:
        """Note that the call is over: its room is gone, which LiveKit says only later, or not at all."""
        self._conversation.ended()

    # How it ends.

    def _on_shutdown(self, reason: str = "user requested") -> None:
        """Note that the application ends the job: the call is over, unless it goes on elsewhere already."""
        self._conversation.ended(CallEnd.by_application(reason))
        if self._shut_down is not None:
            self._shut_down(reason)

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType | None = None) -> None:
        """Keep a room that was lost: it is somebody's still."""
        self.is_told_to_leave = self.is_told_to_leave or reason not in ON_PURPOSE

    def _follow_close(self, session: AgentSession[Any], room: rtc.Room) -> None:
        """Follow the session's close: LiveKit closes it when the job is told to end, and says only later who told."""
        close = session.aclose

        @functools.wraps(close)
        def closed() -> Coroutine[Any, Any, None]:
            task = asyncio.current_task()
            if task is not None and task.get_name() == JOB_TASK and not self._conversation.is_over:
                self.is_told_to_leave = self.is_told_to_leave or room.isconnected()
            return close()

        session.aclose = closed  # type: ignore[method-assign]  # on this instance: there is no event

    def _note_own(self, participant: rtc.RemoteParticipant) -> None:
        if participant.attributes.get(ATTRIBUTE_PUBLISH_ON_BEHALF) in self._own:
            self._own.add(participant.identity)
