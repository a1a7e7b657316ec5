"""The tables of rollouts in the control database."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData()

_RUNNING: Final = sa.text("stage IN ('shadow', 'canary')")
_IN_FORCE: Final = sa.text("stage = 'production'")

ROLLOUTS: Final = sa.Table(
    "rollouts",
    METADATA,
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
    sa.Column("evidence", sa.LargeBinary(), nullable=False),  # JSON, as `evidence` folds it
    sa.Column("verdicts", sa.LargeBinary(), nullable=False),  # JSON: the newest, oldest first
    sa.Index("rollouts_capability", "capability", "begun_at"),
    sa.Index("rollouts_one_running", "capability", unique=True, sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    sa.Index(
        "rollouts_one_in_production", "capability", unique=True, sqlite_where=_IN_FORCE, postgresql_where=_IN_FORCE
    ),
)
EVENTS: Final = sa.Table(
    "rollout_events",
    METADATA,
    sa.Column("rollout", sa.String(40), primary_key=True),
    sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("by", sa.String(255), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("details", sa.LargeBinary(), nullable=False),  # JSON
    sa.Column("entry", sa.String(80), nullable=True),
)
PROPOSALS: Final = sa.Table(
    "rollout_proposals",
    METADATA,
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
    sa.Index("rollout_proposals_open", "capability", "verdict"),
)
