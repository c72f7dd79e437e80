"""What came of a call, as its application sets it: at any time, and also while the job ends."""

import asyncio
import logging
import time
from typing import Any

from pydantic import BaseModel

from agent_worker.failures import Failures
from agent_worker.tenure.role import AGENT_ROLE
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.telling import Telling
from agent_worker.timing import TIMING, Timing
from conversation_actors.calls.names import OUTCOME
from conversation_actors.calls.outcome import FIELD, Outcome, outcome_note, outcome_value
from conversation_actors.values import encode

logger = logging.getLogger(__name__)

_TASK = "outcome"


class CallOutcome:
    """The outcome of one job's call, on its way into the conversation.

    LiveKit begins all that is to be done at a job's end at the same time: the application may know the outcome when the
    lease has been given back. Then it is written in nobody's name, unless another agent has the conversation already.
    """

    def __init__(
        self, standing: Standing, telling: Telling, failures: Failures, *, limit: int, timing: Timing = TIMING
    ) -> None:
        """`limit`: bytes that all attributes may have together."""
        self.kind: type[BaseModel] | None = None
        """What every outcome has to fit; None: any mapping will do. Set by whoever opens the conversation."""
        self._standing, self._telling, self._failures = standing, telling, failures
        self._limit, self._timing = limit, timing
        self._late: set[asyncio.Task[None]] = set()
        self._is_over = False

    def set(self, outcome: Outcome) -> None:
        """Take an outcome; the last one counts. Never waits.

        Raises `InvalidInputError` for one that does not fit, and `ItemTooLargeError`. One that comes when this job has
        the call no longer is counted, and not kept.
        """
        note = outcome_note(outcome_value(outcome, self.kind), time.time())
        encode(note, FIELD, limit=self._limit)
        if self._standing.goes_on_elsewhere or self._is_over:
            self._refuse("this job has the call no longer")
        elif not self._standing.is_closing:
            self._telling.note(OUTCOME, note)
        else:
            self._telling.changes.withdraw(OUTCOME)
            task = asyncio.create_task(self._failures.at_most_once(_TASK, lambda: self._write(note)))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def settled(self) -> None:
        """Return when what came late is written, or cannot be; none is taken after that. Never raises."""
        while self._late:
            await asyncio.wait(self._late)
        self._is_over = True

    async def _write(self, note: dict[str, Any]) -> None:
        handle, own = self._standing.handle, self._standing.holder
        if handle is None:
            self._refuse("the conversation was never open")
            return
        agent = handle.leases.get(AGENT_ROLE)
        if agent is not None and agent.holder != own and self._standing.role == AGENT_ROLE:
            self._refuse("the next call has begun")
            return
        async with asyncio.timeout(self._timing.flush):
            await handle.set_attributes({OUTCOME: note})

    def _refuse(self, reason: str) -> None:
        self._failures.add(_TASK)
        fields = {"conversation_id": self._standing.conversation_id, "reason": reason}
        logger.warning("an outcome was not kept", extra=fields)
