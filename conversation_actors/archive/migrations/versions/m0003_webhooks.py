"""What deliverers of the outbox look for: what is due, what is to be delivered once more, what was told at all."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add indexes of what is due and of whose it is, the table of replays, and from where on a back end is told."""
    op.add_column("archive_lives", sa.Column("reported_from", _NUMBER))
    op.create_index("archive_deliveries_due", "archive_deliveries", ["destination", "tenant", "next_at"])
    op.create_index("archive_deliveries_conversation", "archive_deliveries", ["tenant", "conversation_id"])
    op.create_table(
        "archive_replays",
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("happening_id", _NUMBER, sa.ForeignKey("archive_happenings.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("happening_id", "destination"),
        sqlite_with_rowid=False,
    )
