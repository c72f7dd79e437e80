"""How long the parts of a call and of a worker wait: what no setting says, in one object that is passed in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations in seconds; a pair is the first and the longest pause of a `Backoff`.

    A test passes shorter ones. What an operator may want to change is a setting instead.
    """

    # tenure: being the one agent of a conversation
    guard: float = 0.1
    """Between two looks at whose the lease is, and what is asked of the agent, in the local copy."""
    handover_look: float = 0.02
    """Between two looks at whether the agent before has let go of the lease."""
    opening: tuple[float, float] = (0.2, 5.0)
    """Between two attempts to open a conversation, and between two doubts whether it still answers."""
    flush: float = 5.0
    """How long the end of a call waits for what was recorded, and then for the lease to be given back."""
    operation: float = 30.0
    """How long one operation on the conversation may take, its repeats with it."""
    backlog_pause: float = 0.05
    """Before changes are tried again that the conversation did not take."""
    renew: float = 20.0
    """Between two renewals of the lease."""
    keep: float = 30.0
    """Between two times that a conversation in use is kept; less if it is kept for less than two minutes."""
    pulse_look: float = 0.02
    """Between two looks at whether the local copy shows a new lease."""
    pulse: tuple[float, float] = (0.2, 5.0)
    """Between two attempts to renew the lease."""
    once: tuple[float, float] = (0.05, 2.0)
    """Between two attempts to mark what is to be done once."""
    expected_patience: float = 2.0
    """How long several callers have to note which call is whose; each does as soon as LiveKit has answered it."""
    expected_look: float = 0.05
    """Between two looks at what they have noted."""

    # call: from the first word to the successor
    room_poll: float = 0.05
    """Between two looks at the room's state."""
    room_retry: float = 0.5
    """Before a step that the end of the call hangs on is tried once more."""
    room_quiet: float = 0.75
    """How long nobody may speak before a handover: longer than the offline turn detection waits for a turn's end."""
    room_lost: float = 0.5
    """How long a session may be quiet before an answer that has not begun counts as lost."""
    room_stream: float = 5.0
    """How long a handover waits for streams that are being sent; the handover's own limit is 20 s."""
    farewell: float = 10.0
    """How long a farewell may take, with all that is said before it: a voice that hangs must not keep anybody."""
    farewell_quiet: float = 5.0
    """How long a farewell lets the agent finish what it is saying."""
    tracks_together: float = 0.2
    """How long changes of tracks are gathered: a page opens its microphone and its camera one after the other."""
    guard_answer: float = 5.0
    """How long a job in another thread may take to say what becomes of a room; then the room stays."""
    entrypoint: float = 3.0
    """How long after its session's start an entrypoint's lines count as its opening."""
    identity: float = 5.0
    """How long a job waits for the participant that names its conversation."""
    end_callbacks: float = 5.0
    """How long a conversation stays open at a job's end for what else is done then, which may set the outcome."""
    data_pause: float = 1.0
    """Before it is asked again whether data messages are durable."""

    # session: an `AgentSession` and its conversation
    turn_slack: float = 1.0
    """How much longer than LiveKit's longest wait a turn may take to end."""
    task_closing: float = 10.0
    """How long a session may take to close after it cancels its tasks; later it has cancelled one only."""
    interim: tuple[float, float] = (1.0, 30.0)
    """For how long what is heard before it is final is told to nobody, after somebody did not take it."""
    picture: float = 10.0
    """How long the copy of one picture may take."""

    # worker: processes and their deaths
    jobs_look: float = 0.02
    """Between two looks at a worker's jobs."""
    ghost: float = 20.0
    """How long LiveKit's server is asked who is in a room: a participant whose process died is there for 22 s."""
    gone: float = 0.5
    """How long a participant may still be in a room after the end of its process, though it has left."""
    ask: float = 5.0
    """How soon another successor is asked for when nobody has taken the call; doubled with each."""
    takeover_longest_retry: float = 30.0
    """The longest pause between two attempts at a takeover."""
    empty_room: float = 1.0
    """Between two looks into a room that nobody is in."""
    takeover_redis: float = 0.25
    """Between two attempts at a takeover while Redis does not answer."""
    last_note: float = 10.0
    """How long it is tried to note in a conversation that its agent died and nobody is in the room."""
    rooms_answer: float = 5.0
    """How long LiveKit's server may take to answer."""
    health: float = 3.0
    """How long Ray, Redis and LiveKit may each take to show that they are well."""
    health_fresh: float = 1.0
    """How long their answers are told again: whoever asks often burdens none of them."""
    migration_look: float = 0.05
    """Between two looks at who has a call that is to move."""
    migration_declined: tuple[float, float] = (0.2, 2.0)
    """How soon another successor is asked for when one has declined: LiveKit's server knows of no worker to avoid."""
    server_retry: float = 1.0
    """Before a worker that ends tries once more to give its calls over."""
    supervisor_look: float = 0.5
    """Between two looks at whether a worker's supervisor lives."""
    restart_delays: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
    """Before a worker that ended is started again, by how often it has ended in a row."""

    # development: the caller's page
    page_join: float = 5.0
    """How long a token waits for an agent to be called: better to be alone in a room than to have no room."""
    page_read: float = 10.0
    """How long what was said before is waited for; the call goes on meanwhile."""


TIMING = Timing()
"""What everything uses that is told nothing else."""
