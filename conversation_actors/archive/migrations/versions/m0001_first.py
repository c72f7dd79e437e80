"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _of_life() -> sa.Column[int]:
    return sa.Column("life_id", _NUMBER, sa.ForeignKey("archive_lives.id", ondelete="CASCADE"), nullable=False)


def _entry() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("epoch", _NUMBER, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "archive_lives",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("life", sa.Text, nullable=False),
        sa.Column("start", _NUMBER, nullable=False),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("epoch", _NUMBER, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lineage", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("active_at", sa.Double, nullable=False),
        sa.Column("deleted_at", sa.Double),
        sa.Column("is_lacking", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.UniqueConstraint("tenant", "conversation_id", "life", name="archive_lives_key"),
    )
    op.create_index("archive_lives_active", "archive_lives", ["tenant", "active_at"])
    lacking = sa.column("is_lacking", sa.Boolean)
    op.create_index(
        "archive_lives_lacking", "archive_lives", ["tenant", "id"], postgresql_where=lacking, sqlite_where=lacking
    )
    op.create_table(
        "archive_entries",
        _of_life(),
        *_entry(),
        sa.PrimaryKeyConstraint("life_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "archive_items",
        _of_life(),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("is_evicted", sa.Boolean, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("role", sa.Text),
        sa.Column("call_id", sa.Text),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("life_id", "item_id"),
        sa.UniqueConstraint("life_id", "seq", "place", name="archive_items_order"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "archive_gaps",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        _of_life(),
        sa.Column("from_seq", _NUMBER, nullable=False),
        sa.Column("to_seq", _NUMBER),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("noted_at", sa.Double, nullable=False),
    )
    op.create_index("archive_gaps_life", "archive_gaps", ["life_id"])
    op.create_table(
        "archive_superseded",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        _of_life(),
        *_entry(),
        sa.Column("noted_at", sa.Double, nullable=False),
    )
    op.create_index("archive_superseded_life", "archive_superseded", ["life_id"])
    op.create_table(
        "archive_checkpoints",
        _of_life(),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("life_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "archive_pictures",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("kept_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "conversation_id", "digest"),
        sqlite_with_rowid=False,
    )
