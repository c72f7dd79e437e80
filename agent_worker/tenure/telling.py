"""All that a job has to tell its conversation: items, changes, marks and removals, until they are durable."""

import asyncio
from collections.abc import Callable
from typing import Any

from agent_worker.failures import Failures
from agent_worker.tenure.acknowledgements import Acknowledgements
from agent_worker.tenure.backlog import Changes, Operation
from agent_worker.tenure.once import Marks
from agent_worker.tenure.pulse import News
from agent_worker.tenure.recording import OnMissed, Recording, tell
from agent_worker.tenure.removals import Removals
from agent_worker.tenure.role import attribute_name
from agent_worker.tenure.standing import Standing
from agent_worker.timing import TIMING, Timing
from conversation_actors import ConversationHandle, Item, OutcomeUnknownError, Settings
from conversation_actors.errors import ConversationError, RetryableError

SETTLE_SECONDS = 1.0
"""How long a call waits for what was recorded, where it waits at all."""

Step = Callable[[], Any]
"""One step of what goes on as long as this job has the conversation."""


class Telling:
    """What one job tells, of each kind in its own order; whoever is away, it is told when they are back.

    Nothing here blocks, nor raises for the sake of Ray or Redis, but what says that it waits.
    """

    def __init__(
        self,
        standing: Standing,
        failures: Failures,
        *,
        settings: Settings,
        on_trouble: Callable[[Exception], None],
        timing: Timing = TIMING,
    ) -> None:
        """Begin with nothing to tell. `on_trouble` is told why something waits, and cannot be told now."""
        self._standing, self._failures, self._timing = standing, failures, timing
        self._patience = settings.timeouts.command.total_seconds()
        self.recording = Recording(standing, failures, item_bytes=settings.history.item_bytes, on_trouble=on_trouble)
        self.items = Acknowledgements(
            standing, self.recording, failures, on_trouble=on_trouble, pause=timing.opening[0]
        )
        self.changes = Changes(
            failures,
            lease=lambda: standing.lease,
            on_trouble=on_trouble,
            room=settings.history.attributes_bytes,
            timing=timing,
        )
        self.marks = Marks(lambda: standing.held_to_tell, failures, on_trouble=on_trouble, timing=timing)
        self._removals = Removals(self.changes.put, self._all_taken)
        self._on_changes_missed: list[OnMissed] = [self._removals.put_again]

    def on_changes_missed(self, callback: OnMissed) -> None:
        """Have `callback` look again at what operations tell of, when the conversation answers after a drop."""
        self._on_changes_missed.append(callback)

    def later(self, operation: Operation) -> None:
        """Do something with the handle, after all that was put here before."""
        self.changes.put(operation)

    def note(self, name: str, value: Any) -> None:
        """Set a shared attribute of this role; None removes it."""
        self.changes.note(attribute_name(name, self._standing.role), value)

    def record(self, item: Item) -> None:
        """Send an item, or keep it: see `Recording.record`."""
        self.recording.record(item)

    def remove(self, item_ids: tuple[str, ...]) -> None:
        """Take items out of the conversation, and forget what was stored before."""
        self.recording.take_out(item_ids)
        self._removals.put(item_ids)

    async def _all_taken(self) -> None:
        """Return when what was noted and recorded so far is stored, or refused."""
        await self.changes.notes_taken()
        await self.items.wait()

    def steps(self, handle: ConversationHandle) -> dict[str, Step]:
        """Return what is to be repeated as long as this job has the conversation, by the names of the tasks."""
        return {
            "notes": lambda: self.changes.write_notes(handle),
            "changes": lambda: self.changes.operate(handle),
            "items": lambda: self.items.learn(handle),
        }

    # When it is durable.

    async def flush(self) -> None:
        """Return when all that was put before is durable, or refused for its own sake.

        Raises what `ConversationHandle.flush` raises.
        """
        if self._standing.handle is None:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self.changes.settled()
                await self.marks.settled()
                await self.items.wait()
        except TimeoutError:
            message = f"{len(self.changes)} changes, or items, are not acknowledged after {self._patience} s"
            raise OutcomeUnknownError(message) from None
        refused = self.items.take_refusal()
        if refused is not None:
            raise refused

    async def settled(self) -> None:
        """Return when what was recorded is durable, or after a second; at once while the conversation is not open."""
        if self._standing.handle is None:
            return
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.items.wait()
        except (ConversationError, TimeoutError) as error:
            conversation_id = self._standing.conversation_id
            self._failures.count("settled", error, "not durable yet", conversation_id=conversation_id)

    async def is_durable(self, timeout: float) -> bool:  # noqa: ASYNC109  # asked of, not waited with
        """Return whether all that was recorded so far is durable, at the latest after `timeout` seconds.

        False if an item was refused meanwhile, or this job is not the agent any more. Never raises.
        """
        refused = self.items.refused
        try:
            async with asyncio.timeout(timeout):
                await self._standing.opened.wait()
                await self._wait_at_last()
        except (ConversationError, TimeoutError) as error:
            conversation_id = self._standing.conversation_id
            self._failures.count("durable", error, "not durable yet", conversation_id=conversation_id)
            return False
        is_refused = self.items.refused is not None and self.items.refused is not refused
        return not (is_refused or self._standing.deposed.is_set() or self._standing.handle is None)

    async def _wait_at_last(self) -> None:
        """Wait for the items, again and again if that may help; not in a conversation that is another agent's."""
        while not self._standing.deposed.is_set():
            try:
                await self.items.wait()
            except RetryableError:
                await asyncio.sleep(self._timing.guard)
            else:
                return

    # When the conversation was away, and when this job has it no more.

    @property
    def has_missed(self) -> bool:
        """Whether the conversation lacks something that it has to be told again."""
        return self.recording.has_missed or self.changes.has_missed

    def begin(self) -> None:
        """Send what has waited until the conversation was open."""
        # those that waited come before those that were missed because too many waited
        has_missed, self.recording.has_missed = self.recording.has_missed, False
        self.recording.record_waiting()
        self.recording.has_missed = self.recording.has_missed or has_missed

    def resume(self, news: News) -> None:
        """Have everything told that a conversation that answers has missed."""
        is_afresh = news is News.AFRESH
        # what was recorded in another lease's name meanwhile was refused
        are_items_missed = news is not News.NONE or self.recording.has_missed
        are_changes_missed = is_afresh or self.changes.has_missed
        self.recording.has_missed = False
        self.items.forget_missed()
        self.changes.resume(is_afresh=is_afresh)
        if self._standing.view is not None:
            self.marks.look(self._standing.view)  # of what was done in the life before, the new one is told at once
        if are_items_missed:
            self.recording.tell_again(is_afresh=is_afresh)
        if are_changes_missed:
            tell(self._on_changes_missed, self._failures, self._standing, is_afresh=is_afresh)
        self.items.wake()

    def give_up(self) -> None:
        """Forget what waits: another agent has the conversation, or the call ends without one."""
        self.recording.forget_waiting()
        self.changes.give_up()
        self.marks.give_up()
        self.items.give_up()

    def send_the_rest(self) -> None:
        """Send what waits, though something before it was missed: nobody will record that again."""
        if self._standing.handle is not None and self.recording.has_waiting:
            self.recording.has_missed = False
            self.recording.record_waiting()

    def close(self) -> None:
        """Tell whoever still waits that nobody is left who would tell anything."""
        self.changes.give_up()
        self.marks.give_up()
        self.items.close()
