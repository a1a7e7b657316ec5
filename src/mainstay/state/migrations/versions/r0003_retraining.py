"""Requests for retraining."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "retraining_requests",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("capability", sa.String(64), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("asked_at", sa.String(32), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
    op.create_index("retraining_requests_capability", "retraining_requests", ["capability", "asked_at"])
    unsettled = sa.text("status IN ('open', 'running')")
    op.create_index(
        "retraining_requests_one_unsettled",
        "retraining_requests",
        ["capability"],
        unique=True,
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )
