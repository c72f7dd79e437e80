"""LiveKit agents whose conversations outlive their process.

    attached = await attach(session, agent, conversation)   # before session.start
    await session.start(agent)

restores what the conversation holds into the session, and records everything that happens from then on.
Only this package knows LiveKit; conversations are those of `conversation_actors`.
"""

from agent_worker.conversation import Conversation
from agent_worker.recorder import Recorder
from agent_worker.restore import INTERRUPTED_OUTPUT, Restored, restore
from agent_worker.session import Attached, attach

__all__ = ["INTERRUPTED_OUTPUT", "Attached", "Conversation", "Recorder", "Restored", "attach", "restore"]
