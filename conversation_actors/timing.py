"""How long owners and clients wait: what no setting says, in one object that is passed in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations in seconds; a pair is the first and the longest pause of a `Backoff`.

    A test passes shorter ones. What an operator may want to change is a setting instead.
    """

    # store
    embedded_ready: float = 60.0
    """How long a server of our own may take to answer; loading gigabytes of journal takes a while."""
    embedded_stop: float = 15.0
    """How long it may take to end."""
    embedded_answer: float = 2.0
    """How long it may take to answer one question."""

    # activation
    write: tuple[float, float] = (0.02, 1.0)
    """Between two attempts to write to a store that does not answer."""
    forget: float = 1.0
    """How long those who follow may still be told what was before the past was forgotten: it is on its way to them."""
    again: float = 1.0
    """From a failure that nobody foresaw to the next try: long enough to burden nobody, whatever it was."""

    # runtime
    ask: tuple[float, float] = (0.01, 0.5)
    """Between two attempts to reach an owner."""
    pool_look: float = 30.0
    """Between two looks of the warm pool for new nodes, at which it counts the workers that are there."""
    pool_count: float = 10.0
    """How long workers that were started may not be there yet, and would be missed by a count."""
    pool_gather: float = 0.25
    """From an opening to the refill: by then the first that found none ready, if there are such, has told."""
    membership_calls: float = 5.0
    """How long calls that still wait for an old head may take to be answered by a new one; a second is usual."""

    restart: float = 1.0
    """How long an owner may be restarting until it is asked whether its cluster is there at all."""

    # client
    dormant: tuple[float, float] = (0.1, 1.0)
    """How often an owner is looked for while none runs; none is started only to watch."""
    entries: float = 0.25
    """How long a write that is acknowledged waits for the poll to bring it, before it asks for the whole state."""
    read: tuple[float, float] = (0.01, 0.5)
    """Between two attempts to read a conversation where it is stored."""
    read_away: float = 5.0
    """For how long no read asks a replica that has not answered: one that hangs takes its whole time-out."""
    outbox: tuple[float, float] = (0.05, 1.0)
    """Between two attempts to deliver what the outbox holds."""
    outbox_grace: float = 0.1
    """How much longer than its deadline a call waits for the batch it is in, which can tell why."""
    joined: float = 2.0
    """How long a client that closes waits for its joining of Ray to end before it is cancelled."""
    tell: float = 5.0
    """How long a deletion may take to tell the owner of it."""


TIMING = Timing()
"""What everything uses that is told nothing else."""
