"""What callers say into the first words of an agent that follows another one.

While a session's first speech sounds, LiveKit gives its recogniser silence instead of the caller, for three seconds
unless the application says otherwise: the canceller of echoes in the caller's client has to adapt to the agent's voice
first. In a call in which an agent has spoken it has done so: to listen is better than to lose what the caller says.
"""

from collections.abc import Iterable
from typing import Any

from livekit.agents import AgentSession

from conversation_actors.items import Item, Message

_GIVEN, _LEFT = "_aec_warmup_duration_explicit", "_aec_warmup_remaining"
"""LiveKit's own: nothing public tells, or changes, what a session was made with. Before 1.7 there is no first one."""


def listen_from_the_start(session: AgentSession[Any], said: Iterable[Item]) -> None:
    """Let the session hear its caller during its own first speech, if an agent is among those who `said` something.

    Call it before the session starts. A time that the application has given (`aec_warmup_duration`) stays, from
    livekit-agents 1.7 on: before, a session does not know whether it was given.
    """
    if getattr(session, _GIVEN, False) or not any(map(_is_by_an_agent, said)):
        return
    session.options.aec_warmup_duration = None
    setattr(session, _GIVEN, True)  # else it is set anew when a participant is linked
    setattr(session, _LEFT, 0.0)


def _is_by_an_agent(item: Item) -> bool:
    return isinstance(item, Message) and item.role == "assistant"
