"""What became of recorded items: whoever records them does not wait for it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from agent_worker.failures import Failures
from agent_worker.tenure.backlog import MAX_OWNER_FAILURES, is_trouble
from agent_worker.tenure.recording import Recording
from agent_worker.tenure.standing import Standing
from conversation_actors import ConversationHandle, OutcomeUnknownError
from conversation_actors.errors import ConversationError, OwnerFailedError, RetryableError


@dataclass(slots=True)
class _Round:
    """One look at what became of recorded items, for all who had asked before it began."""

    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    trouble: RetryableError | None = None
    """Why they are not durable yet."""


class Acknowledgements:
    """Learns in rounds whether recorded items are durable; what was refused is told once, by `take_refusal`.

    Items that were refused because the conversation was away, or had another agent meanwhile, are recorded again:
    `Recording.has_missed` is set, and `on_trouble` told.
    """

    def __init__(
        self,
        standing: Standing,
        recording: Recording,
        failures: Failures,
        *,
        on_trouble: Callable[[Exception], None],
        pause: float,
    ) -> None:
        """Take the `pause` in seconds after a round in which nothing could be learnt."""
        self.refused: ConversationError | None = None
        """Why an item was refused for its own sake, until that is told."""
        self._standing, self._recording, self._failures = standing, recording, failures
        self._on_trouble, self._pause = on_trouble, pause
        self._missed_for: ConversationError | None = None
        self._round, self._told_again = _Round(), asyncio.Event()
        self._owner_failures = self._heard = 0
        self._has_looked = self._has_given_up = False

    async def learn(self, handle: ConversationHandle) -> None:
        """Learn once what became of items, when any were recorded or somebody asks.

        Only this task flushes the handle, which tells each task that does of each refusal: so each is heard once.
        """
        await self._recording.to_acknowledge.wait()
        self._recording.to_acknowledge.clear()
        asked, self._round = self._round, _Round()
        asked.trouble = OutcomeUnknownError("it was not learnt whether the items are durable")
        try:
            asked.trouble = await self._flush(handle)
        finally:
            if asked.trouble is not None:
                self._recording.to_acknowledge.set()
            asked.is_over.set()
        if asked.trouble is not None:
            conversation_id = self._standing.conversation_id
            self._failures.count("items", asked.trouble, "items are not durable yet", conversation_id=conversation_id)
            await asyncio.sleep(self._pause)

    async def wait(self) -> None:
        """Return when what was recorded is durable or refused; what has to be recorded again, when it was.

        Raises `RetryableError`s if that cannot be learnt now.
        """
        while True:
            told_again, tellings = self._told_again, self._recording.tellings
            await self._ask()
            if self._has_given_up:
                return
            if self._recording.has_missed:
                await told_again.wait()
            elif tellings == self._recording.tellings:
                return

    async def _ask(self) -> None:
        """Return when what was recorded so far is durable, or refused."""
        asked = self._round
        self._recording.to_acknowledge.set()
        await asked.is_over.wait()
        if asked.trouble is not None:
            raise asked.trouble

    def take_refusal(self) -> ConversationError | None:
        """Return why something was not taken since this was asked last; None if all was."""
        refused = self.refused or self._missed_for
        self.refused = self._missed_for = None
        return refused

    def forget_missed(self) -> None:
        """Note that what was missed is recorded again, or not any more."""
        self._missed_for = None

    def wake(self) -> None:
        """Have those look again who wait for a telling."""
        told_again, self._told_again = self._told_again, asyncio.Event()
        told_again.set()

    def give_up(self) -> None:
        """Wait for nothing any more: this job is the agent no longer."""
        self._has_given_up = True
        self.wake()

    def close(self) -> None:
        """Tell those who still wait that nothing will be learnt."""
        self._round.trouble = OutcomeUnknownError("closed before the items were acknowledged")
        self._round.is_over.set()

    async def _flush(self, handle: ConversationHandle) -> RetryableError | None:
        """Wait until what was recorded is durable, or refused; return why that is not known yet."""
        tellings, (heard, self._heard) = self._recording.tellings, (self._heard, self._recording.sent)
        try:
            await handle.flush()
        except RetryableError as error:
            return error
        except ConversationError as error:
            # a flush hears only of what was put before it: all of that was told again since, if anything was
            is_mended = tellings != self._recording.tellings or self._standing.is_of_earlier_lease(error)
            if not (is_mended and is_trouble(error)):
                self._note_refusal(error)
        else:
            if self._heard > heard:  # else nothing was there to be refused
                self._owner_failures, self._has_looked = 0, False
        return None

    def _note_refusal(self, error: ConversationError) -> None:
        self._failures.count("items", error, "an item was refused", conversation_id=self._standing.conversation_id)
        self._owner_failures = self._owner_failures + 1 if isinstance(error, OwnerFailedError) else 0
        if self._owner_failures >= MAX_OWNER_FAILURES:
            self._owner_failures = 0
            self.refused = error
        elif self._has_given_up or not (is_trouble(error) or self._may_hide_trouble(error)):
            self.refused = error
        else:
            self._missed_for = error if is_trouble(error) else None
            self.refused = self.refused if is_trouble(error) else error
            self._recording.has_missed = True
            self._on_trouble(error)

    def _may_hide_trouble(self, error: ConversationError) -> bool:
        """Whether a refusal that is told with a note, of how many others there were, is to be followed by a look.

        Once, until all is taken: a look at what is refused for its own sake ends in the same.
        """
        is_news = bool(getattr(error, "__notes__", ())) and not self._has_looked
        self._has_looked = self._has_looked or is_news
        return is_news
