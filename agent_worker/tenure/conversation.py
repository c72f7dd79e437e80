"""A conversation as one job holds it: opened, leased, and shown to be alive.

Two things outside of this process may be away: Ray and Redis. Neither may cost the caller the call. So a
job waits for its conversation only for a while; what happens meanwhile is kept, and recorded later. A conversation
that is gone in the middle of a call is opened again, and told what the job still knows.

`CallConversation` is what the rest of the program uses. Its parts have a file each: `standing` (what the job is now),
`role_view` (what it sees), `briefing` (what it was called for), `opening` and `leaving`, `sign_of_life` (its
heartbeat), `telling` (items, changes, marks and removals on their way), `wishes` (what successors ask) and `upkeep`
(what else goes on meanwhile).
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic import BaseModel

from agent_worker.failures import Failures
from agent_worker.settings import CallSettings, TakeoverSettings
from agent_worker.tenure.assignment import Assignment, RestartReason
from agent_worker.tenure.backlog import Operation
from agent_worker.tenure.call_end import CallEnd
from agent_worker.tenure.once import Todo
from agent_worker.tenure.parts import Parts
from agent_worker.tenure.post import Post
from agent_worker.tenure.recording import OnMissed, OnRemoved
from agent_worker.tenure.role import AGENT, AGENT_ROLE, LEASE
from agent_worker.tenure.standing import Standing
from agent_worker.tenure.succession import HANDOVER, LEASE_DURATION, REFUSED
from agent_worker.timing import TIMING, Timing
from conversation_actors import Item, Participant, Settings
from conversation_actors.calls.outcome import Outcome

__all__ = ["AGENT", "HANDOVER", "LEASE", "LEASE_DURATION", "REFUSED", "CallConversation", "OnMissed", "Post"]


class CallConversation:
    """A conversation, held by one job. Made by `open_conversation`; belongs to the job's event loop.

    What it writes carries the agent's lease: once another agent has taken over, nothing more of this one's
    is taken. `record` and `later` never block and never raise for the sake of Ray or Redis.

    What looks after the conversation in the background is ended by nothing but `aclose`, or a successor: what goes
    wrong there is counted in `failures`, which the heartbeat's record shows, and tried again.
    """

    def __init__(
        self,
        conversation_id: str,
        *,
        holder: str,
        post: Post,
        assignment: Assignment,
        role: str = AGENT_ROLE,
        store: Settings | None = None,
        call: CallSettings | None = None,
        takeover: TakeoverSettings | None = None,
        outcome: type[BaseModel] | None = None,
        timing: Timing = TIMING,
    ) -> None:
        """Connect nothing before `open`. `store` None: read the environment. `outcome`: see `set_outcome`."""
        self.settings = call or CallSettings()
        stored = store or Settings()
        self.backend, self.tenant = stored.backend, stored.tenant
        """The back end of the application's own, if there is one, and whose conversations these are."""
        self.timing = timing
        """How long the parts of the call wait."""
        self.failures = Failures()
        """What went wrong in the background of this call."""
        self._standing = Standing(conversation_id, role=role, holder=holder, post=post)
        parts = Parts(
            self._standing,
            assignment,
            self.failures,
            settings=stored,
            takeover=takeover or TakeoverSettings(),
            timing=timing,
        )
        self._copy, self._briefing, self._telling = parts.copy, parts.briefing, parts.telling
        self._life, self._wishes, self._once = parts.life, parts.wishes, parts.once
        self._opening, self._upkeep, self._leaving = parts.opening, parts.upkeep, parts.leaving
        self._outcome = parts.outcome
        self._outcome.kind = outcome

    def __repr__(self) -> str:
        """Show which conversation, and whether it is open."""
        return f"<CallConversation {self.id!r} {'open' if self.is_open else 'not open yet'}>"

    # Who this job is, and what it is to the conversation.

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._standing.conversation_id

    @property
    def life(self) -> str:
        """The conversation's life in which this job has its lease; empty without a lease."""
        tenure = self._standing.tenure
        return "" if tenure is None else tenure.lease.life

    @property
    def role(self) -> str:
        """Which of several agents of one conversation this one is: each is followed by itself."""
        return self._standing.role

    @property
    def holder(self) -> str:
        """The job's id, by which it holds the lease."""
        return self._standing.holder

    @property
    def post(self) -> Post:
        """Where this agent stands."""
        return self._standing.post

    @property
    def deposed(self) -> asyncio.Event:
        """Set when another agent has the call, or is about to: this one has to leave it."""
        return self._standing.deposed

    @property
    def handover_asked(self) -> asyncio.Event:
        """Set when a successor waits for this agent to finish its sentence and to release the lease."""
        return self._wishes.handover_asked

    @property
    def redialled(self) -> asyncio.Event:
        """Set while an agent in another room asks for the conversation, and has no answer: see `refuse_redial`."""
        return self._wishes.redialled

    @property
    def is_restart(self) -> bool:
        """Whether an agent of this role held this call before, and died or gave it over."""
        return self._briefing.is_restart

    @property
    def restart_reason(self) -> RestartReason | None:
        """Why this agent follows another one; None if it follows nobody, or is not open yet."""
        return self._briefing.restart_reason

    @property
    def is_planned_handover(self) -> bool:
        """Whether this job follows an agent that gave the call over in order."""
        return self._briefing.assignment.is_planned

    @property
    def is_waiting_for_handover(self) -> bool:
        """Whether another agent has the call, and gives it over when this one is `ready`."""
        return self.is_planned_handover and not self.is_open

    @property
    def is_open(self) -> bool:
        """Whether the conversation is open, and this job its agent."""
        return self._standing.handle is not None

    @property
    def is_over(self) -> bool:
        """Whether the call has ended in order, and not only this agent's part in it."""
        return self._standing.is_over

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether this agent leaves, or has left, a call that goes on: handed over, deposed, or interrupted."""
        return self._standing.goes_on_elsewhere

    @property
    def lost(self) -> int:
        """Items that could not be kept: too many waited."""
        return self._telling.recording.lost

    async def confirm(self) -> bool:
        """Ask Redis whether this job is still the agent. See `SignOfLife.confirm`."""
        return await self._life.confirm()

    async def may_be_others(self) -> bool:
        """Return whether another agent has the call, as far as anybody can tell. See `SignOfLife.may_be_others`."""
        return await self._life.may_be_others()

    async def is_another_here(self) -> bool:
        """Return whether Redis has another living agent of this role in this room. Raises if Redis does not answer."""
        return await self._life.is_another_here()

    # What it sees. The recorder and the restore use it: see agent_worker.session.protocol.Conversation.

    @property
    def items(self) -> tuple[Item, ...]:
        """The history, as far as it is this role's; empty while the conversation cannot be read."""
        return self._copy.items

    @property
    def seq(self) -> int:
        """The position of the local copy; 0 while the conversation cannot be read."""
        return self._copy.seq

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Who is and was here, by identity."""
        return self._copy.participants

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes."""
        return self._copy.attributes

    def noted(self, name: str) -> Any:
        """Return a shared attribute, as an agent of this role has set it by `note`; None if there is none."""
        return self._copy.noted(name)

    @property
    def is_beside(self) -> bool:
        """Whether this agent has another role in a call that `agent` leads: what is said of the call is that one's."""
        return self._copy.is_beside

    @property
    def is_full(self) -> bool:
        """Whether the history is near a bound, so that old items may have left it."""
        return self._copy.is_full

    async def find_pictures(self, addresses: Iterable[str]) -> Mapping[str, str]:
        """Return the data of pictures in the archive. See `ConversationHandle.find_pictures`."""
        return {} if self._standing.view is None else await self._standing.view.find_pictures(addresses)

    # What it tells.

    def record(self, item: Item, /) -> None:
        """Take an item for sending. Raises what the item's form deserves, and `OverloadedError`.

        If the conversation has missed earlier items, this one waits until those were recorded again. One that was
        taken before anybody knew of that is stored before them: the conversation keeps the order in which it takes.
        """
        self._telling.record(item)

    def takes_picture(self, address: str) -> bool:
        """Tell whether a picture is one for the archive; while the conversation is not open, none is."""
        return self._standing.handle is not None and self._standing.handle.takes_picture(address)

    async def keep_picture(self, address: str) -> str:
        """Give the archive a picture. See `ConversationHandle.keep_picture`."""
        return address if self._standing.handle is None else await self._standing.handle.keep_picture(address)

    def later(self, operation: Operation) -> None:
        """Do something with the handle, after all that was put here before. Failures are counted.

        If the conversation does not answer, or too much waits, what waits is dropped: see `on_changes_missed`.
        """
        self._telling.later(operation)

    def remove(self, *item_ids: str) -> None:
        """Take items out of the conversation, and forget what was stored before. Kept until it is done; never waits.

        What waits to be recorded is taken out too, and what was recorded or noted before is stored first, so that the
        store holds none of it at the end. See `ConversationHandle.remove`.
        """
        self._telling.remove(item_ids)

    def note(self, name: str, value: Any) -> None:
        """Set a shared attribute; None removes it. Kept, as its latest value, until it is taken or refused.

        A name that begins with ``livekit.`` is this role's own: see `noted`.
        """
        self._telling.note(name, value)

    def set_outcome(self, outcome: Outcome) -> None:
        """Say what came of the call: a mapping of JSON values, or a pydantic model. The last one counts.

            conversation.set_outcome({"resolved": True, "order": "1042"})

        It is in the call's session record. Never waits: see `note`. May be said until the job has ended, also in a
        shutdown callback; a job that has the call no longer is not heard. Raises `InvalidInputError` for what does not
        fit the model that `attach` was given as `outcome`, and `ItemTooLargeError`.
        """
        self._outcome.set(outcome)

    def once(self, name: str) -> AbstractAsyncContextManager[Todo]:
        """Do something at most once in the conversation's life, whichever job or role gets to it, and whatever dies.

            async with conversation.once("dial") as todo:
                if todo:
                    await dial()

        Waits until the conversation is open, or can be read by a job that stands by for it. That it begins is durable
        before the body runs. An `Exception` of the body takes that back, so that it may be tried again; if the
        process dies in the body it stays begun, and later jobs get a `Todo` that is false and `is_unknown`. Raises
        `InvalidInputError` for a name that is none, and `NoRoomError`, before the body, if the conversation is full.
        """
        return self._once.do(name)

    def on_removed(self, callback: OnRemoved) -> None:
        """Have `callback` told of what is removed: whoever records again what is missed, is not to record that.

        At once of what is removed here; of what others remove, before anything is recorded again.
        """
        self._telling.recording.on_removed(callback)

    def on_items_missed(self, callback: OnMissed) -> None:
        """Have `callback` record again what the conversation lacks, when it answers after having missed items."""
        self._telling.recording.on_missed(callback)

    def on_changes_missed(self, callback: OnMissed) -> None:
        """Have `callback` look again at what `later` tells of, when the conversation answers after a drop."""
        self._telling.on_changes_missed(callback)

    async def flush(self) -> None:
        """Return when all that was put before is durable, or refused for its own sake.

        Raises what `ConversationHandle.flush` raises.
        """
        await self._telling.flush()

    async def settled(self) -> None:
        """Return when what was recorded is durable, or after a second: the call waits for nothing longer.

        While the conversation is not open it returns at once.
        """
        await self._telling.settled()

    async def is_durable(self, timeout: float) -> bool:  # noqa: ASYNC109  # asked of, not waited with
        """Return whether all that was recorded so far is durable, at the latest after `timeout` seconds.

        False if an item was refused meanwhile, and if this job is not the agent any more. Never raises.
        """
        return await self._telling.is_durable(timeout)

    # From the first try to open it to the end.

    async def open(self) -> bool:
        """Wait for the conversation, for at most `CallSettings.open_timeout`; return whether it is open by then.

        In a planned handover it can only be read by then: it is given over when this job is `ready`. Raises
        `LeaseHeldError` if another agent has this call and is alive (and, in another room, has somebody there
        or does not answer), `CallDeclinedError` if this job shall not take it, and `RefusedError`s that no waiting
        mends.
        """
        self._opening.begin(self._upkeep.begin)
        return await self._opening.wait(self.settings.open_timeout.total_seconds()) and self.is_open

    async def wait_open(self) -> None:
        """Return when the conversation is open, however late. Raises as `open` does."""
        await self._opening.until_open()

    def ready(self) -> None:
        """Let the agent that has the call be asked to give it over: this job's session could listen at once."""
        self._opening.ready()

    async def refuse_redial(self) -> None:
        """Tell the agent in another room that the call goes on here; never raises. It may ask again."""
        await self._wishes.refuse_redial()

    def ended(self, how: CallEnd | None = None) -> None:
        """Note that the call is over: nobody is there any more, or whoever may end it has. Idempotent."""
        self._standing.end(how)

    def left(self) -> None:
        """Note that this job ends, and the call does not: another agent is to come, or has come. Idempotent."""
        self._standing.leave()

    async def release(self, how: CallEnd | None = None) -> None:
        """End as the agent, in order: all is durable, nobody needs to take over. Idempotent, never raises.

        The conversation is told `how` the call ended, unless that is known already: see `ended`.
        """
        await self._leaving.release(how)

    async def hand_over(self) -> None:
        """End as the agent for the successor that has asked; never raises.

        The heartbeat's record stays: the successor's takes its place, and if it died meanwhile another one is called.
        """
        await self._leaving.hand_over()

    async def aclose(self) -> None:
        """Let go of everything, sending what is still to be sent. Releases nothing: see `release`."""
        await self._leaving.aclose()
