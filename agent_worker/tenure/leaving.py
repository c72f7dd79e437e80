"""How a job stops being the agent in order: all is told, and the lease is given back."""

import asyncio

from agent_worker.failures import Failures
from agent_worker.tenure.background import Background
from agent_worker.tenure.call_end import CallEnd
from agent_worker.tenure.call_outcome import CallOutcome
from agent_worker.tenure.opening import Opening
from agent_worker.tenure.role import AGENT, AGENT_ROLE
from agent_worker.tenure.sign_of_life import SignOfLife
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.succession import HANDOVER
from agent_worker.tenure.telling import Telling
from agent_worker.tenure.upkeep import Upkeep
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle
from conversation_actors.calls.names import CALL


class Leaving:
    """The end of one job's part in a call: because the call is over, or for a successor that has asked."""

    def __init__(
        self,
        standing: Standing,
        failures: Failures,
        *,
        opening: Opening,
        life: SignOfLife,
        telling: Telling,
        upkeep: Upkeep,
        outcome: CallOutcome,
        background: Background,
        timing: Timing = TIMING,
    ) -> None:
        """Take what is to be ended."""
        self._standing, self._failures, self._timing = standing, failures, timing
        self._opening, self._life, self._telling = opening, life, telling
        self._upkeep, self._outcome, self._background = upkeep, outcome, background

    async def release(self, how: CallEnd | None = None) -> None:
        """End as the agent, in order: all is durable, nobody needs to take over. Idempotent, never raises.

        The conversation is told `how` the call ended, as the last thing before the lease is given back.
        """
        self._standing.end(how)
        if self._standing.handle is None and not self._standing.is_closing:
            await self._opening.break_off()
        await self._let_go(is_over=True)

    async def hand_over(self) -> None:
        """End as the agent for the successor that has asked; never raises.

        The heartbeat's record stays: the successor's takes its place, and if it died meanwhile another one is called.
        """
        self._standing.leave()
        await self._let_go(is_over=False)

    async def _let_go(self, *, is_over: bool) -> None:
        standing = self._standing
        handle = standing.handle
        if handle is None or standing.is_closing or standing.deposed.is_set():
            return
        standing.is_closing = True
        standing.held.is_ending = True
        self._telling.note(AGENT, None)
        self._telling.note(HANDOVER, None)
        conversation_id = standing.conversation_id
        try:
            async with asyncio.timeout(self._timing.flush):
                await self._telling.flush()
        except Exception as error:  # noqa: BLE001  # whatever was not taken, the lease can still be given back
            self._failures.count("release", error, "not all was taken", conversation_id=conversation_id)
        self._upkeep.renew_no_more()  # what is given back now must not be renewed
        try:
            async with asyncio.timeout(self._timing.flush):
                await self._give_back(handle, is_over=is_over)
        except Exception as error:  # noqa: BLE001  # its heartbeat stops with this process, and a worker finds out
            self._failures.count("release", error, "the lease was not released", conversation_id=conversation_id)

    async def _give_back(self, handle: ConversationHandle, *, is_over: bool) -> None:
        if not await self._life.keep_record():
            self._standing.leave()  # taken over a moment ago: the record is the successor's
            return
        if is_over:
            await self._failures.at_most_once("call_end", lambda: self._note_end(handle))
            self._standing.is_released = True  # first: a beat is refused once it has stopped
            await self._life.stop()
        await handle.release_lease(self._standing.lease)

    async def _note_end(self, handle: ConversationHandle) -> None:
        """Note that the call has ended, by whose agent the call goes; it is known now that no other one has it.

        If the conversation does not answer, enough time is left to end the heartbeat's record, and give the lease back.
        """
        standing = self._standing
        if standing.role == AGENT_ROLE:
            end = standing.call_end or CallEnd.by_participants(handle.participants)
            async with asyncio.timeout(self._timing.flush / 2):
                await handle.set_attributes({CALL: end.note(standing.holder)}, lease=standing.lease)

    async def aclose(self) -> None:
        """Let go of everything, sending what is still to be sent. Releases nothing: see `release`."""
        self._standing.is_closing = True
        await self._outcome.settled()
        self._upkeep.doubt_no_more()
        self._telling.send_the_rest()
        await self._background.stop()
        self._telling.close()
        await self._opening.stack.aclose()
