"""What one job is to its conversation at the moment: what the parts of a `CallConversation` all go by."""

import asyncio

from agent_worker.tenure.call_end import CallEnd
from agent_worker.tenure.once import Held
from agent_worker.tenure.post import Post
from agent_worker.tenure.pulse import Tenure
from agent_worker.tenure.role import check_role
from conversation_actors import ConversationHandle, Lease, LeaseLostError


class Standing:
    """Who a job is, which conversation it is there for, and whether it is the agent: not yet, now, or no longer.

    It does nothing by itself. Whoever changes it is named with each field.
    """

    def __init__(self, conversation_id: str, *, role: str, holder: str, post: Post) -> None:
        """Begin as a job on its way to the conversation. Raises `InvalidInputError` for a role that is none."""
        self.conversation_id = conversation_id
        """Changed by `Briefing` if the job was called for another one than its room tells."""
        self.role = check_role(role)
        self.holder = holder
        self.post = post
        self.view: ConversationHandle | None = None
        """The conversation, once it can be read; set by `Opening`."""
        self.handle: ConversationHandle | None = None
        """The same, once this job is its agent; set by `Upkeep`."""
        self.tenure: Tenure | None = None
        """The time as its agent, once that has begun; set by `Upkeep`."""
        self.opened = asyncio.Event()
        """Set, by `Opening`, when the conversation is open, or refused for good."""
        self.deposed = asyncio.Event()
        """Set when another agent has the call, or is about to: by `Upkeep`, or by `Opening` if this one was refused."""
        self.is_closing = False
        """Whether this job ends as the agent, in order or not; set by `Leaving`."""
        self.is_released = False
        """Whether it let go of a call that is over; set by `Leaving`."""
        self.call_end: CallEnd | None = None
        """How the call ended, as far as whoever ended it has said; set by `end`."""
        self._has_ended = self._has_left = False

    @property
    def is_over(self) -> bool:
        """Whether the call has ended in order, and not only this agent's part in it."""
        return self._has_ended and not self.goes_on_elsewhere

    @property
    def goes_on_elsewhere(self) -> bool:
        """Whether this agent leaves, or has left, a call that goes on: handed over, deposed, or interrupted."""
        return self._has_left or self.deposed.is_set()

    def end(self, how: CallEnd | None = None) -> None:
        """Note that the call is over; the first who knows says how. Idempotent."""
        self._has_ended = True
        self.call_end = how if self.call_end is None else self.call_end.and_then(how)

    def leave(self) -> None:
        """Note that this job ends, and the call does not. Idempotent; it is for good."""
        self._has_left = True

    @property
    def held(self) -> Tenure:
        """The tenure of a job that has one."""
        assert self.tenure is not None
        return self.tenure

    @property
    def lease(self) -> Lease:
        """The lease in whose name this job writes."""
        return self.held.lease

    @property
    def held_to_tell(self) -> Held | None:
        """What marks are written to; at the end of a call too, until the lease is given back."""
        if self.deposed.is_set() or self.view is None:
            return None
        return self.view, None if self.tenure is None else self.tenure.lease

    def is_of_earlier_lease(self, error: Exception) -> bool:
        """Whether what was refused came in the name of a lease that this job has taken anew since."""
        if not isinstance(error, LeaseLostError) or self.tenure is None:
            return False
        lease = self.tenure.lease
        return error.name == lease.name and error.token != lease.token
