"""What monitor passes found, and what one leaves to the next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "monitor_findings",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("capability", sa.String(64), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(10), nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("last_seen", sa.String(32), nullable=False),
        sa.Column("resolved", sa.String(32), nullable=True),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
    op.create_index("monitor_findings_capability", "monitor_findings", ["capability", "last_seen"])
    still = sa.text("resolved IS NULL")
    op.create_index(
        "monitor_findings_one_open",
        "monitor_findings",
        ["capability", "key"],
        unique=True,
        sqlite_where=still,
        postgresql_where=still,
    )
    op.create_table(
        "monitor_passes",
        sa.Column("capability", sa.String(64), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
