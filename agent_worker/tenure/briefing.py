"""What a job learns of what it was called for: which conversation, and whom it follows there."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from agent_worker.failures import Failures
from agent_worker.tenure.announcement import Announcement
from agent_worker.tenure.assignment import Assignment, CallDeclinedError, RestartReason
from agent_worker.tenure.expected import find_expectation
from agent_worker.tenure.standing import Standing
from agent_worker.timing import TIMING, Timing
from conversation_actors import Heartbeats
from conversation_actors.client.expectations import Expectation
from conversation_actors.errors import InvalidInputError

_DECLINED_KEPT = timedelta(minutes=1)


class Briefing:
    """The assignment of one job: what its metadata says, until Redis tells more.

    What whoever has called the job has told is learnt once. Where the job is going is announced meanwhile.
    """

    def __init__(
        self,
        standing: Standing,
        assignment: Assignment,
        announcement: Announcement,
        failures: Failures,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """Begin with the `assignment` that the job's metadata gives."""
        self.assignment = assignment
        self.announcement = announcement
        self.is_restart = False
        """Whether an agent of this role held this call before, and died or gave it over."""
        self.restart_reason: RestartReason | None = None
        """Why this agent follows another one; None if it follows nobody, or is not the agent yet."""
        self.has_begun_without = False
        """Whether the call began before the job knew what it was called for."""
        self.is_known = asyncio.Event()
        """Set when nothing more is to be learnt."""
        self._standing, self._failures, self._timing = standing, failures, timing
        self._expectation: Expectation | None = None

    @property
    def may_follow(self) -> bool:
        """Whether somebody is known to be followed, though this job was never the agent."""
        return self.is_restart or self.assignment.replaces is not None

    async def learn(self, heartbeats: Heartbeats) -> None:
        """Find out, once, what this job was called for. Raises `CallDeclinedError` if it is not to take that."""
        await self.announcement.make(heartbeats, self._standing.conversation_id)
        if self.is_known.is_set():
            return
        found = await self._find(heartbeats)
        if found is not None:
            await self._take(heartbeats, found, Assignment.of(found.told))
        self.is_known.set()

    async def _find(self, heartbeats: Heartbeats) -> Expectation | None:
        post = self._standing.post
        try:
            return await find_expectation(
                heartbeats,
                post.room,
                post.agent_name,
                dispatch_id=post.dispatch_id,
                role=self._standing.role,
                named=self.assignment.conversation_id,
                timing=self._timing,
            )
        except InvalidInputError as error:  # a room, or an agent, by whose name nobody can be called
            conversation_id = self._standing.conversation_id
            self._failures.count("expectation", error, "nobody is called here", conversation_id=conversation_id)
            return None

    async def _take(self, heartbeats: Heartbeats, found: Expectation, told: Assignment) -> None:
        reason = self._why_declined(told)
        if reason is not None:
            await self._decline(heartbeats, found, reason)
        self._expectation, self.assignment = found, told
        if told.conversation_id not in {None, self._standing.conversation_id}:
            self._standing.conversation_id = told.conversation_id or self._standing.conversation_id
            await self.announcement.make(heartbeats, self._standing.conversation_id)
        # known before the conversation is: whoever starts without it is not the first one either
        self.is_restart = self.is_restart or told.replaces is not None

    def _why_declined(self, told: Assignment) -> str | None:
        if told.avoid and told.avoid == self._standing.post.worker_id:
            return "the call is to leave this worker"
        if told.is_planned and self.has_begun_without:
            # it has answered the caller already, and another agent does
            return "it was not known in time that another agent is at it"
        return None

    async def _decline(self, heartbeats: Heartbeats, expectation: Expectation, reason: str) -> None:
        call = expectation.call or self._standing.post.dispatch_id
        declined = replace(expectation, call=call, is_declined=True)
        await self._failures.at_most_once("decline", lambda: heartbeats.amend(declined, keep=_DECLINED_KEPT))
        message = f"declined: {reason}"
        raise CallDeclinedError(message)

    async def meet(self, heartbeats: Heartbeats) -> None:
        """Tell that whoever was expected has come."""
        if self._expectation is not None:
            await heartbeats.met(self._expectation)

    def follow(self, reason: RestartReason | None) -> None:
        """Note that this job follows an agent, and why, if that is known."""
        self.is_restart = True
        self.restart_reason = reason or self.restart_reason or RestartReason.UNKNOWN
