"""Names under which a call is noted in its conversation: whoever writes them and whoever folds the call share them."""

AGENT_LEASE = "agent"
"""The lease by which a call's state goes; agents of other roles hold leases of their own names."""
CALL = "livekit.call"
"""``{ended, at, holder}``, and ``reason`` if the application gave one: the end of a call that ended in order.

``ended`` is `COMPLETED` or `LEFT`; ``at`` is in seconds since the epoch; ``holder`` is the job that ended it. Noted
before the lease is given back, and removed when the next agent begins."""
COMPLETED = "completed"
"""Of a call: the agent, or the application, has ended it."""
LEFT = "left"
"""Of a call: nobody was in its room any more."""
OUTCOME = "call.outcome"
"""``{value, at}``: what came of the call, as the application has set it last; see `calls.outcome`."""
AGENT = "livekit.agent"
"""``{holder, room, since}``: who the agent is; ``{holder: None, state, of, …}`` if there is none, and why.

``of`` is the job that has died."""
HANDOVER = "livekit.handover"
"""``{to, from}``: the successor that has asked the agent to give the call over; removed when that is done."""
ERROR = "livekit.error"
"""``{type, source, recoverable, at}``: the last failure of a model; a later one takes its place.

``stack``, if the worker's settings want it: where in the code it happened, without the error's message."""
NO_AGENT_COMES = "given up"
"""The ``state`` in `AGENT` if agents died, and no other one is called."""
NOBODY_THERE = "nobody there"
"""The ``state`` in `AGENT` if the agent died, and nobody is in the room: no other one is called."""
REFUSED = "refused"
"""In `HANDOVER`: the agent keeps the call."""
ROLE_FIELD = "agent_role"
"""In the stored form of an item that an agent of another role has recorded."""
USAGE = "livekit.usage"
"""``{holder, models, at}``: what the models of that job have used so far, all in all; a later one takes its place."""
_OWN_PREFIX = "livekit."
_ROLE_PREFIX = "livekit.role."


def attribute_of_role(name: str, role: str) -> str:
    """Return the attribute in which an agent of this role keeps what it calls `name`; the application's stay.

    `role` is also the name of that agent's lease.
    """
    if role == AGENT_LEASE or not name.startswith(_OWN_PREFIX):
        return name
    return f"{_ROLE_PREFIX}{role}.{name.removeprefix(_OWN_PREFIX)}"


def name_of_role(attribute: str) -> tuple[str, str]:
    """Return what the agent of a role calls this attribute, and the role: the reverse of `attribute_of_role`."""
    role, dot, name = attribute.removeprefix(_ROLE_PREFIX).rpartition(".")
    if not attribute.startswith(_ROLE_PREFIX) or not dot:
        return attribute, AGENT_LEASE
    return _OWN_PREFIX + name, role
