"""An `AgentSession` and its conversation, each made of the other: no room and no process is known here."""
