"""LiveKit agents whose conversations outlive their process.

    await attach(session, ctx)   # before session.start
    await session.start(agent=Assistant(), room=ctx.room)

restores what the job's conversation holds into the session, records everything that happens from then on, and has
another agent take over when this one dies. Only this package knows LiveKit; conversations are those of
`conversation_actors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agent_worker.extras import missing_extra

if TYPE_CHECKING:
    from agent_worker.call.attach import Attached, attach
    from agent_worker.call.opening import open_conversation
    from agent_worker.session.protocol import Conversation
    from agent_worker.session.recorder import Recorder
    from agent_worker.session.restoration import INTERRUPTED_OUTPUT, Restored, active_agent, restore
    from agent_worker.tenure.assignment import RestartReason
    from agent_worker.tenure.conversation import CallConversation
    from agent_worker.tenure.once import Todo
    from agent_worker.worker.migration import migrate

__all__ = [
    "INTERRUPTED_OUTPUT",
    "Attached",
    "CallConversation",
    "Conversation",
    "Recorder",
    "RestartReason",
    "Restored",
    "Todo",
    "active_agent",
    "attach",
    "migrate",
    "open_conversation",
    "restore",
]

_MODULES = {
    "CallConversation": "tenure.conversation",
    "Conversation": "session.protocol",
    "migrate": "worker.migration",
    "Recorder": "session.recorder",
    "INTERRUPTED_OUTPUT": "session.restoration",
    "Restored": "session.restoration",
    "active_agent": "session.restoration",
    "restore": "session.restoration",
    "Attached": "call.attach",
    "attach": "call.attach",
    "open_conversation": "call.opening",
    "RestartReason": "tenure.assignment",
    "Todo": "tenure.once",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is used: the supervisor of a worker needs none of LiveKit's agents (127 MB)."""
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (sentence := missing_extra(error, f"{__name__}.{name}")) is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from error
