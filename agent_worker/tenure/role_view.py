"""What a job sees of its conversation, without asking anybody."""

import time
from collections.abc import Mapping
from typing import Any

from agent_worker.tenure.role import AGENT_ROLE, attribute_name, own_items
from agent_worker.tenure.standing import Standing
from conversation_actors import Item, Participant
from conversation_actors.items import bytes_of
from conversation_actors.settings import HistoryLimits

_FULL_SHARE = 0.75
"""Of a bound of the history: what leaves is a message, or a call with its output, which may be a quarter of it."""


class RoleView:
    """The conversation as an agent of the job's role is to see it. No I/O.

    What it shows is the handle's local copy, less what belongs to other roles.
    """

    def __init__(self, standing: Standing, bounds: HistoryLimits) -> None:
        """Take the `bounds` of the history."""
        self._standing, self._bounds = standing, bounds
        self._own: tuple[tuple[Item, ...], tuple[Item, ...]] = ((), ())

    @property
    def items(self) -> tuple[Item, ...]:
        """The history, as far as it is this role's; empty while the conversation cannot be read."""
        items = self._all_items
        if self._own[0] is not items:
            self._own = items, own_items(items, self._standing.role)
        return self._own[1]

    @property
    def _all_items(self) -> tuple[Item, ...]:
        return () if self._standing.view is None else self._standing.view.items

    @property
    def seq(self) -> int:
        """The position of the copy; 0 while the conversation cannot be read."""
        return 0 if self._standing.view is None else self._standing.view.seq

    @property
    def participants(self) -> Mapping[str, Participant]:
        """Who is and was here, by identity; nobody while the conversation is not open."""
        return {} if self._standing.handle is None else self._standing.handle.participants

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Shared attributes; none while the conversation is not open."""
        return {} if self._standing.handle is None else self._standing.handle.attributes

    def noted(self, name: str) -> Any:
        """Return a shared attribute, as an agent of this role has noted it; None if there is none."""
        return self.attributes.get(attribute_name(name, self._standing.role))

    @property
    def is_beside(self) -> bool:
        """Whether this agent has another role in a call that `agent` leads: what is said of the call is that one's."""
        handle = self._standing.handle
        lead = None if self._standing.role == AGENT_ROLE or handle is None else handle.leases.get(AGENT_ROLE)
        return lead is not None and lead.expires_at > time.time()

    @property
    def is_full(self) -> bool:
        """Whether the history is near a bound, so that old items may have left it."""
        items = self._all_items
        if len(items) >= _FULL_SHARE * self._bounds.items:
            return True
        return bytes_of([item.to_stored() for item in items]) >= _FULL_SHARE * self._bounds.bytes
