"""How long owners and clients wait if no setting says so, in one object that is passed in."""

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
    """How long that server may take to end."""
    embedded_answer: float = 2.0
    """How long that server may take to answer one question."""

    # activation
    write: tuple[float, float] = (0.02, 1.0)
    """Pauses between attempts to write to a store that does not answer."""
    forget: float = 1.0
    """How long followers may still be told entries from before the past was forgotten: those may be on their way."""
    again: float = 1.0
    """The pause between an unforeseen failure and the next try: long enough to burden nobody, whatever the failure
    was."""

    # archive
    archive_look: tuple[float, float] = (0.05, 0.25)
    """The shortest and the longest time between two looks of an archiver for what waits; the more conversations are
    listed, the longer."""
    archive_claim: float = 10.0
    """How long an archiver that died keeps others from the backlogs that it had claimed."""
    archive_again: tuple[float, float] = (0.2, 5.0)
    """Pauses between attempts to archive while a server does not do what is asked of it."""
    archive_faulty: tuple[float, float] = (1.0, 60.0)
    """Pauses between attempts to archive a conversation that cannot be archived, although others can."""
    archive_quiet: float = 60.0
    """How long a conversation has nothing waiting before it leaves the listing, and counts as idle."""
    archive_upkeep: float = 600.0
    """The time between two searches for conversations that the archive, or the listing, does not know."""
    archive_purge: float = 3600.0
    """The time between two removals of what the archive has kept for long enough."""
    archive_feed: float = 1.0
    """The time between two looks of a feed for calls that are over by now, and for entries that it was not told of."""
    archive_restart: tuple[float, float] = (0.5, 60.0)
    """Pauses before an archiver that ended by itself is started again."""
    archive_leave: float = 5.0
    """How long an archiver that is to end may take to finish what it has begun."""

    # webhooks
    webhook_look: float = 0.1
    """The time between two looks of a deliverer for what is to be delivered."""
    webhook_again: tuple[float, float] = (1.0, 900.0)
    """Pauses between attempts to deliver a happening."""
    webhook_quiet: float = 60.0
    """A destination that has taken nothing for so long, and refuses, counts as down."""
    webhook_claim: float = 20.0
    """How long a deliverer works on a conversation before another one may. The time that an answer may take is added:
    who died keeps others away for both."""
    webhook_recent: tuple[float, float] = (5.0, 60.0)
    """How often what is younger than the second is looked through again: transactions end in another order than they
    began in."""
    webhook_sweep: float = 600.0
    """The time between two searches through the whole outbox."""
    webhook_leave: float = 5.0
    """How long a deliverer that is to end may wait for answers."""

    # line
    line_connect: float = 1.0
    """How long an owner may take to be connected to and to prove itself."""
    line_answer: float = 1.0
    """How long an answer by a line may take before the owner is asked by Ray's call too."""
    line_address: float = 10.0
    """How long an owner may take to tell, by Ray's call, where it listens."""
    line_again: tuple[float, float] = (0.05, 30.0)
    """Pauses between attempts to have a line."""
    line_proof: float = 2.0
    """How long whoever connects may take to prove itself, and before that, if TLS is spoken, for the TLS handshake."""
    line_stalled: float = 30.0
    """How long a client may take nothing of what it was sent before its line is closed."""
    line_quiet: float = 30.0
    """How long a poll by a line may bring nothing before the owner is asked for a sign of life."""
    line_silent: float = 180.0
    """How long a client may say nothing before its line is closed. One that lives says something when a poll has been
    quiet, and after every fourth push that it has taken."""
    line_sweep: float = 5.0
    """How long after an owner begins to listen it removes sockets that dead owners have left."""
    line_poll: float = 60.0
    """How long a subscription waits for entries before it looks once more."""
    line_crowded: tuple[float, float] = (0.05, 1.0)
    """Pauses of a subscription whose place is taken, again and again, by another poll of the same watcher."""
    line_leave: float = 0.25
    """How long what was answered may take to leave when the owner's process ends."""

    # runtime
    join: tuple[float, float] = (0.5, 5.0)
    """Pauses between attempts to be let in by Ray's client server (``ray://``)."""
    ask: tuple[float, float] = (0.01, 0.5)
    """Pauses between attempts to reach an owner."""
    restart: float = 1.0
    """How long an owner may be restarting before somebody checks whether its cluster is there at all."""
    pool_look: float = 30.0
    """The time between two looks of the warm pool for new nodes. At each look, the pool counts the workers that are
    there."""
    pool_count: float = 10.0
    """How long workers that were started may take to be there; an earlier count would miss them."""
    pool_gather: float = 0.25
    """From an opening to the refill: by then, the first opening that found no worker ready, if there is one, has said
    so."""
    membership_calls: float = 5.0
    """How long calls that still wait for an old head may take to be answered by a new one; a second is usual."""

    # client
    dormant: tuple[float, float] = (0.1, 1.0)
    """Pauses between looks for an owner while none runs; nobody starts one only to watch."""
    entries: float = 0.25
    """How long an acknowledged write waits for the poll to bring it before it asks for the whole state."""
    read: tuple[float, float] = (0.01, 0.5)
    """Pauses between attempts to read a conversation from the store."""
    opening: tuple[float, float] = (0.5, 30.0)
    """Pauses between attempts to open a conversation in the background, whose stored state is shown already."""
    read_away: float = 5.0
    """How long no read asks a replica that has not answered: a replica that hangs takes its whole time-out."""
    outbox: tuple[float, float] = (0.05, 1.0)
    """Pauses between attempts to deliver what the outbox holds."""
    outbox_grace: float = 0.1
    """How much longer than its deadline a call waits for the batch that it is in, because the batch can tell what is
    wrong."""
    joined: float = 2.0
    """How long a client that closes waits for its joining of Ray to end before the joining is cancelled."""
    tell: float = 5.0
    """How long a deletion may take to tell the owner about it."""


TIMING = Timing()
"""The durations that are used if no others are passed in."""
