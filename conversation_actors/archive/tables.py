"""The tables of the archive. A change here needs a migration (`migrations/versions`), and its name in `REVISIONS`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

REVISIONS = ("0001", "0002", "0003")
"""The migrations that made the tables as they are here, in order."""
REVISION = REVISIONS[-1]
VERSION_TABLE = "archive_version"
"""The table in which Alembic notes the migration; the database may have tables of somebody else's Alembic."""

metadata = MetaData()

_Number = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER counts by itself in SQLite


def _of_life() -> Column[int]:
    return Column("life_id", _Number, ForeignKey("archive_lives.id", ondelete="CASCADE"), nullable=False)


lives = Table(
    "archive_lives",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("life", Text, nullable=False),
    Column("start", _Number, nullable=False),  # the position at which the life began: its first entry is start + 1
    Column("seq", _Number, nullable=False),  # the last position that is archived
    Column("epoch", _Number, nullable=False),  # of the last entry
    Column("owner", Text, nullable=False),  # the claim that wrote the last entry
    Column("lineage", Text, nullable=False),  # JSON: the claims before that, the oldest first, as `store.base.Ancestor`
    Column("created_at", Double, nullable=False),  # seconds since the epoch, by the owners' clocks, as all times here
    Column("active_at", Double, nullable=False),  # of the last entry
    Column("deleted_at", Double),  # by the archiver's clock: only the row is left, to keep late records out
    Column("is_lacking", Boolean, nullable=False, server_default=false()),  # Redis may know more: see `filling`
    # The feed's cursor: the last position that it has read. Below `start` stands for `start`.
    Column("fed", _Number, nullable=False, server_default="0"),
    # Up to this position nobody is told of happenings: the entries came by a migration or an import.
    Column("quiet", _Number, nullable=False, server_default="0"),
    # A back end is told of what comes at this position and later ones, by every step since; NULL: of nothing yet.
    Column("reported_from", _Number),
    # Rises with each step of the feed, and whenever entries are set aside: nobody goes on from what is old.
    Column("ticks", _Number, nullable=False, server_default="0"),
    UniqueConstraint("tenant", "conversation_id", "life", name="archive_lives_key"),
    Index("archive_lives_active", "tenant", "active_at"),
)
Index(
    "archive_lives_lacking",
    lives.c.tenant,
    lives.c.id,
    postgresql_where=lives.c.is_lacking,
    sqlite_where=lives.c.is_lacking,
)

_is_ahead = text("fed < seq")
Index("archive_lives_ahead", lives.c.tenant, lives.c.id, postgresql_where=_is_ahead, sqlite_where=_is_ahead)

entries = Table(
    "archive_entries",
    metadata,
    _of_life(),
    Column("seq", _Number, nullable=False),
    Column("epoch", _Number, nullable=False),
    Column("at", Double, nullable=False),
    Column("event", Text, nullable=False),  # the stored name of the event (`state.events.EVENT_NAMES`)
    Column("data", LargeBinary, nullable=False),  # the entry as the journal had it; without what was to be forgotten
    PrimaryKeyConstraint("life_id", "seq"),
    sqlite_with_rowid=False,
)

items = Table(
    "archive_items",
    metadata,
    _of_life(),
    Column("item_id", Text, nullable=False),
    Column("seq", _Number, nullable=False),  # the entry that brought the item to where it is
    Column("place", Integer, nullable=False),  # among the items of that entry, from 0; below 0 see `Writer`
    Column("is_evicted", Boolean, nullable=False),  # it has left the window: if it comes again, it comes at the end
    Column("type", Text, nullable=False),
    Column("role", Text),
    Column("call_id", Text),
    Column("data", LargeBinary, nullable=False),  # the item's line, as the author wrote it last
    PrimaryKeyConstraint("life_id", "item_id"),
    UniqueConstraint("life_id", "seq", "place", name="archive_items_order"),
    sqlite_with_rowid=False,
)

gaps = Table(
    "archive_gaps",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _of_life(),
    Column("from_seq", _Number, nullable=False),
    Column("to_seq", _Number),  # None: nobody knows
    Column("reason", Text, nullable=False),
    Column("noted_at", Double, nullable=False),
    Index("archive_gaps_life", "life_id"),
)

superseded = Table(
    "archive_superseded",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _of_life(),
    Column("seq", _Number, nullable=False),
    Column("epoch", _Number, nullable=False),
    Column("at", Double, nullable=False),
    Column("event", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("noted_at", Double, nullable=False),
    Column("is_unread", Boolean, nullable=False, server_default=false()),  # the feed had not read it before
    Index("archive_superseded_life", "life_id"),
)
"""Entries that Redis has lost after they were archived, and in whose place others came."""

checkpoints = Table(
    "archive_checkpoints",
    metadata,
    _of_life(),
    Column("seq", _Number, nullable=False),
    Column("data", LargeBinary, nullable=False),  # the state at `seq`, as a snapshot (`codec.stored_snapshot`)
    PrimaryKeyConstraint("life_id"),
    sqlite_with_rowid=False,
)
"""States to begin from, so that a conversation comes back without all of its entries being replayed."""

pictures = Table(
    "archive_pictures",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("digest", Text, nullable=False),  # SHA-256 of the data, in hexadecimal
    Column("media_type", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("kept_at", Double, nullable=False),
    PrimaryKeyConstraint("tenant", "conversation_id", "digest"),
    sqlite_with_rowid=False,
)

feeds = Table(
    "archive_feeds",
    metadata,
    _of_life(),
    Column("tenant", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("state", Text, nullable=False),  # JSON: what the entries up to `archive_lives.fed` have come to
    Column("due_at", Double),  # when an open call counts as over if nothing comes
    PrimaryKeyConstraint("life_id"),
    Index("archive_feeds_due", "tenant", "due_at"),
    sqlite_with_rowid=False,
)
"""Where the feed stands in a life: see `feed`."""

happenings = Table(
    "archive_happenings",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _of_life(),
    Column("tenant", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("event_id", Text, nullable=False),  # the same for every delivery, and for whoever reads the entries again
    Column("type", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("seq", _Number, nullable=False),
    Column("place", Integer, nullable=False),  # among the happenings of that entry, from 0
    Column("data", Text, nullable=False),  # JSON
    UniqueConstraint("life_id", "event_id", name="archive_happenings_event"),
    Index("archive_happenings_order", "tenant", "conversation_id", "id"),
    sqlite_autoincrement=True,  # a number that was given is never given again: cursors stand at them
)
"""The outbox. Within a conversation the ids rise in the order of commits, so that a cursor passes over nothing."""

sessions = Table(
    "archive_sessions",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _of_life(),
    Column("tenant", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=False),
    Column("data", Text, nullable=False),  # JSON: `SessionRecord.to_dict`
    UniqueConstraint("tenant", "conversation_id", "call_id", name="archive_sessions_call"),
    Index("archive_sessions_started", "tenant", "started_at", "id"),
    Index("archive_sessions_life", "life_id"),
)
"""The record of each call that is over."""

session_people = Table(
    "archive_session_people",
    metadata,
    Column("session_id", _Number, ForeignKey("archive_sessions.id", ondelete="CASCADE"), nullable=False),
    Column("identity", Text, nullable=False),
    PrimaryKeyConstraint("session_id", "identity"),
    Index("archive_session_people_identity", "identity", "session_id"),
    sqlite_with_rowid=False,
)
"""Who took part in a call."""

deliveries = Table(
    "archive_deliveries",
    metadata,
    Column("destination", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("delivered_id", _Number, nullable=False, server_default="0"),  # of the last happening that is done with
    Column("attempts", Integer, nullable=False, server_default="0"),  # for the next happening
    Column("next_at", Double),  # when somebody has to look at it; NULL: nothing is to be delivered
    Column("claimed_by", Text),
    Column("claimed_until", Double),
    Column("last_error", Text),
    PrimaryKeyConstraint("destination", "tenant", "conversation_id"),
    Index("archive_deliveries_due", "destination", "tenant", "next_at"),
    Index("archive_deliveries_conversation", "tenant", "conversation_id"),
    sqlite_with_rowid=False,
)
"""How far the outbox is delivered: a cursor for each destination and conversation."""

dead_letters = Table(
    "archive_dead_letters",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("destination", Text, nullable=False),
    Column("happening_id", _Number, ForeignKey("archive_happenings.id", ondelete="CASCADE"), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("dead_at", Double, nullable=False),
    UniqueConstraint("happening_id", "destination", name="archive_dead_letters_key"),
)
"""Happenings that a destination did not take in all attempts."""

replays = Table(
    "archive_replays",
    metadata,
    Column("destination", Text, nullable=False),
    Column("happening_id", _Number, ForeignKey("archive_happenings.id", ondelete="CASCADE"), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("happening_id", "destination"),
    sqlite_with_rowid=False,
)
"""Happenings that are to be delivered once more, wherever the cursor is."""
