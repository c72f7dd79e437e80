"""The heartbeat of one job: what shows that it lives, and what tells it whose the call is."""

import asyncio
import os
import socket
from collections.abc import Callable

from agent_worker.failures import Failures
from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.briefing import Briefing
from agent_worker.tenure.heartbeat_details import HeartbeatDetails, copied_metadata
from agent_worker.tenure.role import LEASE, record_role
from agent_worker.tenure.standing import Standing
from conversation_actors import Heartbeats, Settings
from conversation_actors.clock import uptime
from conversation_actors.errors import ConversationError


class SignOfLife:
    """One job's record in Redis, as its agent: begun, beaten, and ended. Whoever claims it has the call."""

    def __init__(
        self,
        standing: Standing,
        briefing: Briefing,
        failures: Failures,
        *,
        settings: Settings,
        takeover: TakeoverSettings,
        on_deposed: Callable[[str], None],
    ) -> None:
        """Write nothing before `begin`. `on_deposed` is told why somebody else is the agent."""
        self.beaten_at = float("-inf")
        """When the last beat that was taken began, by `uptime`."""
        self._standing, self._briefing, self._failures = standing, briefing, failures
        self._settings, self._takeover, self._on_deposed = settings, takeover, on_deposed
        self._heartbeats: Heartbeats | None = None
        self._began_at = 0.0

    async def begin(self, heartbeats: Heartbeats) -> None:
        """Show that this job is the agent from now on."""
        self._heartbeats = heartbeats
        began = uptime()
        await heartbeats.start(
            self._standing.conversation_id,
            self._standing.holder,
            role=record_role(self._standing.role),
            valid_for=self._takeover.valid_for,
            group=self._standing.post.group,
            details=self._details(self._briefing.assignment.attempt).to_dict(),
        )
        self.beaten_at, self._began_at = began, uptime()

    async def beat(self) -> bool:
        """Show that this job lives, and what went wrong in it; False, and deposed, if somebody else has the call."""
        assert self._heartbeats is not None
        began = uptime()
        # a successor that lived for so long is no sign that the call kills its agents
        has_progressed = uptime() - self._began_at > self._takeover.progress.total_seconds()
        is_mine = await self._heartbeats.beat(
            self._standing.conversation_id,
            self._standing.holder,
            role=record_role(self._standing.role),
            valid_for=self._takeover.valid_for,
            group=self._standing.post.group,
            details=self._details(0 if has_progressed else self._briefing.assignment.attempt).to_dict(),
        )
        if is_mine:
            self.beaten_at = max(began, self.beaten_at)  # beats may be answered out of order
        else:
            self._on_deposed("its heartbeat was claimed")
        return is_mine

    async def keep_record(self) -> bool:
        """Beat for the last time, telling nothing new; False if somebody else has the call."""
        assert self._heartbeats is not None
        return await self._heartbeats.beat(
            self._standing.conversation_id,
            self._standing.holder,
            role=record_role(self._standing.role),
            valid_for=self._takeover.valid_for,
        )

    async def stop(self) -> None:
        """End the record: nobody is to follow this job."""
        assert self._heartbeats is not None
        role = record_role(self._standing.role)
        await self._heartbeats.stop(self._standing.conversation_id, self._standing.holder, role=role)

    def _details(self, attempt: int) -> HeartbeatDetails:
        post = self._standing.post
        return HeartbeatDetails(
            room=post.room,
            agent_name=post.agent_name,
            agent_identity=post.agent_identity,
            attempt=attempt,
            worker_id=post.worker_id,
            dispatch_id=post.dispatch_id,
            metadata=copied_metadata(post.metadata),
            host=socket.gethostname(),
            pid=os.getpid(),
            failures=self._failures.counts,
        )

    # Whose the call is.

    async def confirm(self) -> bool:
        """Ask Redis, by a beat, whether this job is still the agent, or was until it let go of a call that is over.

        False if another one has the call, or is to have it, and if that cannot be known: this job never held the
        conversation, or Redis does not answer.
        """
        await asyncio.sleep(0)  # of callbacks that run at a job's end others' may come before ours
        standing = self._standing
        if standing.is_released or standing.goes_on_elsewhere or standing.handle is None:
            return standing.is_released and not standing.goes_on_elsewhere
        try:
            async with asyncio.timeout(self._settings.timeouts.command.total_seconds()):
                return await self.beat()
        except (ConversationError, TimeoutError) as error:
            told = "nobody can tell whose call it is"
            self._failures.count("confirm", error, told, conversation_id=standing.conversation_id)
            return False

    async def may_be_others(self) -> bool:
        """Return whether another agent has the call, or is to have it, as far as anybody can tell. Never raises.

        Redis is asked, by a beat; if this job has not opened the conversation, for an agent that lives in this room.
        If Redis does not answer, the call is this job's as long as nobody can have claimed it, and if it follows nobody
        and never had the conversation. Else nobody can tell: then it may be another's, and the log says so.
        """
        await asyncio.sleep(0)  # see `confirm`
        standing, is_waiting = self._standing, self._briefing.assignment.is_planned and self._standing.handle is None
        if standing.is_released or standing.goes_on_elsewhere or is_waiting:
            return standing.goes_on_elsewhere or not standing.is_released
        try:
            async with asyncio.timeout(self._settings.timeouts.command.total_seconds()):
                return await (self.is_another_here() if standing.handle is None else self._is_claimed())
        except (ConversationError, TimeoutError) as error:
            if not self._may_have_been_claimed():
                return False
            told = "nobody can tell whose call it is: what would end it is not done"
            self._failures.count("confirm", error, told, conversation_id=standing.conversation_id)
            return True

    async def is_another_here(self) -> bool:
        """Return whether Redis has another living agent of this role in this room. Raises if Redis does not answer."""
        standing = self._standing
        async with Heartbeats(self._settings, lease=LEASE) as heartbeats:
            record = await heartbeats.find(standing.conversation_id, role=record_role(standing.role))
        own = {standing.holder, self._briefing.assignment.replaces}
        if record is None or not record.is_alive or record.holder in own:
            return False
        return HeartbeatDetails.from_dict(record.details).room in {None, standing.post.room}

    async def _is_claimed(self) -> bool:
        return not await self.beat()

    def _may_have_been_claimed(self) -> bool:
        if self.beaten_at < 0:
            return self._briefing.may_follow
        return uptime() - self.beaten_at >= self._takeover.valid_for.total_seconds()
