"""What goes on as long as a job is the agent of its conversation, and how it ends when another one is."""

import asyncio
import logging
import time

from agent_worker.failures import Failures
from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.background import Background
from agent_worker.tenure.briefing import Briefing
from agent_worker.tenure.opening import Opened
from agent_worker.tenure.pace import Pace
from agent_worker.tenure.pulse import News, Tenure
from agent_worker.tenure.role import AGENT, AGENT_ROLE
from agent_worker.tenure.sign_of_life import SignOfLife
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.succession import LEASE_DURATION
from agent_worker.tenure.telling import Telling
from agent_worker.tenure.wishes import Wishes
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle, LeaseLostError
from conversation_actors.calls.names import CALL
from conversation_actors.errors import ConversationClosedError, ConversationNotFoundError

logger = logging.getLogger(__name__)


class Upkeep:
    """The tenure of one job: begun with the lease, in doubt when something is refused, over when it is deposed.

    A step that fails is counted and repeated.
    """

    def __init__(
        self,
        standing: Standing,
        briefing: Briefing,
        failures: Failures,
        *,
        life: SignOfLife,
        telling: Telling,
        wishes: Wishes,
        background: Background,
        takeover: TakeoverSettings,
        timing: Timing = TIMING,
    ) -> None:
        """Do nothing before `begin`."""
        self._standing, self._briefing, self._failures = standing, briefing, failures
        self._life, self._telling, self._wishes = life, telling, wishes
        self._background, self._interval, self._timing = background, takeover.heartbeat, timing
        self._doubting = Pace(self.look_now, pauses=timing.opening)
        self._holding: asyncio.Task[None] | None = None

    async def begin(self, opened: Opened) -> None:
        """Be the agent from now on, and tell the conversation what has waited for that."""
        await self._life.begin(opened.heartbeats)
        if self._briefing.assignment.is_planned:
            # what happened in this job's session so far was not part of the call
            self._telling.recording.forget_waiting()
        standing, tenure = self._standing, self._tenure(opened)
        standing.handle, standing.tenure = opened.handle, tenure
        self._look_after(opened.handle, tenure)
        meeting = self._failures.at_most_once("expectation", lambda: self._briefing.meet(opened.heartbeats))
        self._background.start(meeting)
        self._telling.begin()
        if standing.role == AGENT_ROLE:
            self._telling.note(CALL, None)  # how the call before this one ended
        self._telling.note(AGENT, {"holder": standing.holder, "room": standing.post.room, "since": time.time()})
        if self._telling.has_missed:
            tenure.doubt()

    def _tenure(self, opened: Opened) -> Tenure:
        conversation_id = self._standing.conversation_id
        return Tenure(
            opened.handle,
            opened.lease,
            duration=LEASE_DURATION,
            beat=self._life.beat,
            keep=lambda: opened.heartbeats.keep(conversation_id),
            open_anew=lambda: opened.client.open(conversation_id),
            on_renewed=self._renewed,
            on_deposed=self.depose,
            failures=self._failures,
            interval=self._interval,
            timing=self._timing,
        )

    def _look_after(self, handle: ConversationHandle, tenure: Tenure) -> None:
        start, forever, pause = self._background.start, self._failures.forever, self._timing.opening[0]
        for task, step in self._telling.steps(handle).items():
            start(forever(task, step, pause=pause))
        start(forever("guard", lambda: self._guard(handle), pause=pause))
        self._holding = start(forever("lease", tenure.hold, pause=pause))
        start(tenure.keep_alive())
        start(tenure.keep_conversation())

    async def _guard(self, handle: ConversationHandle) -> None:
        """Look at the local copy, which other processes' changes reach in milliseconds. No I/O."""
        self._standing.held.compare(handle.leases.get(self._standing.role))
        self._wishes.look(handle)
        await asyncio.sleep(self._timing.guard)

    def _renewed(self, news: News) -> None:
        """Have the conversation, which answers, told what it missed."""
        if not self._standing.deposed.is_set():  # else it was while the lease was asked for
            self._telling.resume(news)

    def doubt(self, error: Exception) -> None:
        """Ask soon whose the conversation is, and whether it answers. At the end of a call nothing is begun anew."""
        is_gone = isinstance(error, LeaseLostError | ConversationNotFoundError | ConversationClosedError)
        if self._standing.is_closing and is_gone and not self._standing.is_of_earlier_lease(error):
            self._telling.give_up()
        elif self._standing.tenure is not None:
            self._doubting.ask()

    def look_now(self) -> None:
        """Ask at once whose the conversation is, and whether it answers."""
        self._standing.held.doubt()

    def depose(self, reason: str) -> None:
        """Be the agent no longer: another one is, or is to be."""
        standing = self._standing
        if standing.deposed.is_set() or standing.is_closing:
            return
        fields = {"conversation_id": standing.conversation_id, "holder": standing.holder, "reason": reason}
        logger.warning("deposed", extra=fields)
        standing.deposed.set()
        if standing.tenure is not None:
            standing.tenure.end()
        self._telling.give_up()

    def renew_no_more(self) -> None:
        """Leave the lease as it is: it is about to be given back."""
        if self._holding is not None:
            self._holding.cancel()

    def doubt_no_more(self) -> None:
        """Forget that it was to be asked whose the conversation is."""
        self._doubting.stop()
