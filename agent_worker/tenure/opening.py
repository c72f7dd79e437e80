"""How a job comes to its conversation: tried until it is open, or refused for good, however long that takes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agent_worker.failures import Failures
from agent_worker.settings import TakeoverSettings
from agent_worker.tenure.assignment import CallDeclinedError
from agent_worker.tenure.background import Background
from agent_worker.tenure.briefing import Briefing
from agent_worker.tenure.once import Marks
from agent_worker.tenure.role import LEASE
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.succession import Succession, Successor
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationClient, ConversationHandle, Heartbeats, Lease, LeaseHeldError, Settings
from conversation_actors.backoff import Backoff
from conversation_actors.errors import ConversationError, ConversationNotFoundError, RefusedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation whose lease this job has just acquired, and the connections by which it has it."""

    handle: ConversationHandle
    lease: Lease
    client: ConversationClient
    heartbeats: Heartbeats


OnOpened = Callable[[Opened], Awaitable[None]]
"""Told that the lease is here; a failure of it is one of the opening, which is tried again."""


class Opening:
    """The way of one job to its conversation, in the background of a call that may begin without it."""

    def __init__(
        self,
        standing: Standing,
        briefing: Briefing,
        failures: Failures,
        *,
        settings: Settings,
        takeover: TakeoverSettings,
        marks: Marks,
        background: Background,
        timing: Timing = TIMING,
    ) -> None:
        """Connect nothing before `begin`."""
        self.stack = AsyncExitStack()
        """What is connected."""
        self._standing, self._briefing, self._failures = standing, briefing, failures
        self._settings, self._takeover, self._timing = settings, takeover, timing
        self._marks, self._background = marks, background
        self._is_readable, self._is_ready = asyncio.Event(), asyncio.Event()
        self._refusal: ConversationError | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, on_opened: OnOpened) -> None:
        """Try to open the conversation from now on; `on_opened` begins what goes on as long as this job has it."""
        self._task = self._background.start(self._open_at_last(on_opened))
        tell_marks = self._failures.forever("marks", self._marks.tell, pause=self._timing.opening[0])
        self._background.start(tell_marks)  # a job that stands by has marks to tell too

    def ready(self) -> None:
        """Note that this job's session could listen at once: see `Succession`."""
        self._is_ready.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the conversation for so long; return whether that was enough. Raises as `until_open` does.

        In a planned handover it can only be read by then.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._until_told_whose()
        except TimeoutError:
            self._briefing.has_begun_without = not self._briefing.is_known.is_set()
            logger.warning(
                "the call starts without its conversation", extra={"conversation_id": self._standing.conversation_id}
            )
            return False
        self._raise_refusal()
        return True

    async def until_open(self) -> None:
        """Return when the conversation is open, however late. Raises why it was refused for good."""
        await self._standing.opened.wait()
        self._raise_refusal()

    async def until_told_whose(self) -> None:
        """Return when it is open; to a job that stands by, when it can be read: it is given over to one that is ready.

        Raises as `until_open` does.
        """
        await self._until_told_whose()
        self._raise_refusal()

    async def _until_told_whose(self) -> None:
        await self._briefing.is_known.wait()
        await (self._is_readable if self._briefing.assignment.is_planned else self._standing.opened).wait()

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    async def break_off(self) -> None:
        """Try no more, if anything still does, and have nobody follow: this job leaves in order."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._standing.handle is None:
            await self._briefing.announcement.withdraw()

    async def _open_at_last(self, on_opened: OnOpened) -> None:
        """Try until it is open, or refused; whatever else goes wrong is counted, and tried again after a pause."""
        backoff = Backoff(self._timing.opening)
        while self._standing.handle is None and self._refusal is None:
            try:
                await on_opened(await self._open())
            except Exception as error:  # noqa: BLE001  # whatever it is, the call goes on, and the next try may do
                if isinstance(error, RefusedError) and not isinstance(error, ConversationNotFoundError):
                    await self._refuse(error)
                    break
                told, conversation_id = "the conversation cannot be opened yet", self._standing.conversation_id
                self._failures.count("open", error, told, conversation_id=conversation_id)
                await self._failures.at_most_once("open", self.stack.aclose)
                await backoff.wait()
        self._briefing.is_known.set()
        self._is_readable.set()
        self._standing.opened.set()

    async def _refuse(self, error: RefusedError) -> None:
        self._refusal = error
        self._standing.deposed.set()
        if isinstance(error, LeaseHeldError | CallDeclinedError):
            await self._briefing.announcement.withdraw()
        self._marks.give_up()

    async def _open(self) -> Opened:
        """Try once to become the agent."""
        heartbeats = await self.stack.enter_async_context(Heartbeats(self._settings, lease=LEASE))
        await self._briefing.learn(heartbeats)
        client = await self.stack.enter_async_context(ConversationClient(self._settings))
        handle = await client.open(self._standing.conversation_id)
        self._standing.view = handle
        self._marks.look(handle)
        self._is_readable.set()
        if handle.closing is not None:
            # whoever ended it did not know that somebody would call again
            await handle.reopen_conversation()
        return Opened(handle, await self._succession(handle, heartbeats).acquire(), client, heartbeats)

    def _succession(self, handle: ConversationHandle, heartbeats: Heartbeats) -> Succession:
        standing = self._standing
        return Succession(
            Successor(standing.conversation_id, standing.role, standing.holder, standing.post.room),
            handle,
            heartbeats,
            self._briefing.assignment,
            settings=self._takeover,
            is_ready=self._is_ready,
            on_restart=self._briefing.follow,
            timing=self._timing,
        )
