"""The Ray actor that owns a conversation: a plain class, made remote in `conversation_actors.runtime.cluster`.

Only what has to happen in the actor's own process is here, because a fork server must not have imported it.
"""

from conversation_actors.runtime.host import ActivationHost
from conversation_actors.runtime.termination import listen

listen()  # see there why at import


class ConversationActor(ActivationHost):
    """An `ActivationHost` in a process that hears SIGTERM."""
