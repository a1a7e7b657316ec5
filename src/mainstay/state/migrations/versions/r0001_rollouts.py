"""The lease of the control process, and rollouts with what was proposed and what happened."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_RUNNING = sa.text("stage IN ('shadow', 'canary')")
_IN_FORCE = sa.text("stage = 'production'")


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("capability", sa.String(64), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("champion", sa.String(80), nullable=True),
        sa.Column("stage", sa.String(20), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Double(), nullable=False),
        sa.Column("begun_at", sa.String(32), nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("base", sa.Integer(), nullable=False),
        sa.Column("release", sa.Integer(), nullable=True),
        sa.Column("watch_until", sa.String(32), nullable=True),
        sa.Column("moves", sa.Integer(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.Column("verdicts", sa.LargeBinary(), nullable=False),
    )
    op.create_index("rollouts_capability", "rollouts", ["capability", "begun_at"])
    for name, where in (("rollouts_one_running", _RUNNING), ("rollouts_one_in_production", _IN_FORCE)):
        op.create_index(name, "rollouts", ["capability"], unique=True, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "rollout_events",
        sa.Column("rollout", sa.String(40), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=False),
        sa.Column("entry", sa.String(80), nullable=True),
    )
    op.create_table(
        "rollout_proposals",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("capability", sa.String(64), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("stage", sa.String(20), nullable=False),
        sa.Column("rollout", sa.String(40), nullable=False),
        sa.Column("percent", sa.Double(), nullable=True),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("proposed_by", sa.String(255), nullable=False),
        sa.Column("proposed_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=True),
        sa.Column("settled_by", sa.String(255), nullable=True),
        sa.Column("settled_at", sa.String(32), nullable=True),
    )
    op.create_index("rollout_proposals_open", "rollout_proposals", ["capability", "verdict"])
