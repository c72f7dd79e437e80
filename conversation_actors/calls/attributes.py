"""The shared attributes by which agents and workers tell of a call, and the field that tags their items.

`agent_worker` writes them; a test compares the names.
"""

from typing import NamedTuple

AGENT_ROLE = "agent"
"""The role of the agent whose lease, of this name too, tells whether a call goes on."""
CALL = "livekit.call"
"""``{ended, at}``: the agent has ended the call, and why; noted before it gives its lease back."""
AGENT = "livekit.agent"
"""Who the agent is (``holder``); None: it is going; ``state``: `GIVEN_UP`."""
GIVEN_UP = "given up"
HANDOVER = "livekit.handover"
"""``{to, from, refused}``: a successor asks the agent for the call."""
USAGE = "livekit.usage"
"""``{models, holder}``: what the models of one job were used for so far."""
ERROR = "livekit.error"
"""The last failure of a model."""
OUTCOME = "call.outcome"
"""What the application says that the call has led to."""
ROLE_FIELD = "agent_role"
"""In the stored form of an item that an agent of another role has recorded."""
_OWN, _ROLE = "livekit.", "livekit.role."


class Attribute(NamedTuple):
    """An attribute as agents of a role have it."""

    role: str
    name: str
    """As the agent of the role `agent` calls it."""


def attribute_of(stored: str) -> Attribute:
    """Return whose attribute a stored name is; a role may have dots in it, a name has none."""
    if not stored.startswith(_ROLE):
        return Attribute(AGENT_ROLE, stored)
    role, _, name = stored.removeprefix(_ROLE).rpartition(".")
    return Attribute(role, _OWN + name)
