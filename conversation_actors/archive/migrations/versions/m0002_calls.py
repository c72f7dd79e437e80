"""What the feed makes of entries: happenings for webhooks, the records of calls; and how far they are delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _of_life() -> sa.Column[int]:
    return sa.Column("life_id", _NUMBER, sa.ForeignKey("archive_lives.id", ondelete="CASCADE"), nullable=False)


def _of_conversation() -> tuple[sa.Column[str], ...]:
    return sa.Column("tenant", sa.Text, nullable=False), sa.Column("conversation_id", sa.Text, nullable=False)


def upgrade() -> None:
    """Add the feed's cursor to lives, and the tables. Nobody is told of what is archived already."""
    for name in ("fed", "quiet", "ticks"):
        op.add_column("archive_lives", sa.Column(name, _NUMBER, nullable=False, server_default="0"))
    lives = sa.table("archive_lives", *(sa.column(name) for name in ("seq", "fed", "quiet", "deleted_at")))
    is_deleted = lives.c.deleted_at.is_not(None)
    op.execute(  # as one statement: it writes every row anew
        lives.update().values(quiet=lives.c.seq, fed=sa.case((is_deleted, lives.c.seq), else_=lives.c.fed))
    )
    op.add_column("archive_superseded", sa.Column("is_unread", sa.Boolean, nullable=False, server_default=sa.false()))
    is_ahead = sa.text("fed < seq")
    op.create_index(
        "archive_lives_ahead", "archive_lives", ["tenant", "id"], postgresql_where=is_ahead, sqlite_where=is_ahead
    )
    op.create_table(
        "archive_feeds",
        _of_life(),
        *_of_conversation(),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.PrimaryKeyConstraint("life_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("archive_feeds_due", "archive_feeds", ["tenant", "due_at"])
    op.create_table(
        "archive_happenings",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        _of_life(),
        *_of_conversation(),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.UniqueConstraint("life_id", "event_id", name="archive_happenings_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("archive_happenings_order", "archive_happenings", ["tenant", "conversation_id", "id"])
    op.create_table(
        "archive_sessions",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        _of_life(),
        *_of_conversation(),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.UniqueConstraint("tenant", "conversation_id", "call_id", name="archive_sessions_call"),
    )
    op.create_index("archive_sessions_started", "archive_sessions", ["tenant", "started_at", "id"])
    op.create_index("archive_sessions_life", "archive_sessions", ["life_id"])
    op.create_table(
        "archive_session_people",
        sa.Column("session_id", _NUMBER, sa.ForeignKey("archive_sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "identity"),
        sqlite_with_rowid=False,
    )
    op.create_index("archive_session_people_identity", "archive_session_people", ["identity", "session_id"])
    op.create_table(
        "archive_deliveries",
        sa.Column("destination", sa.Text, nullable=False),
        *_of_conversation(),
        sa.Column("delivered_id", _NUMBER, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_at", sa.Double),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", sa.Double),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("destination", "tenant", "conversation_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "archive_dead_letters",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("happening_id", _NUMBER, sa.ForeignKey("archive_happenings.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text, nullable=False),
        sa.Column("dead_at", sa.Double, nullable=False),
        sa.UniqueConstraint("happening_id", "destination", name="archive_dead_letters_key"),
    )
