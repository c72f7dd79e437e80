"""Where an agent stands."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Post:
    """Where an agent stands: written beside its heartbeat, so that whoever takes over knows where to go."""

    room: str
    agent_name: str
    agent_identity: str
    group: str = ""
    """The worker process that the job belongs to."""
    worker_id: str = ""
    """The same worker, as LiveKit's server names it."""
    dispatch_id: str = ""
    """The dispatch that the job came by: its successors' are to be alike."""
    metadata: str = ""
    """What that dispatch has told the job."""
