"""Rollouts, what happened to them and what was proposed, as rows of the control database.

Every function takes the connection of a transaction that its caller has open, so that a move, its event and the
approval that it rests on are written together or not at all.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from mainstay.errors import Failed
from mainstay.rollout.tables import EVENTS, PROPOSALS, ROLLOUTS
from mainstay.rollout.types import MAX_VERDICTS, RUNNING, Event, Proposal, Rollout, Verdict, instant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, RowMapping

    from mainstay.rollout.types import Action

MAX_EVIDENCE_BYTES: Final = 8 << 20
MAX_LISTED: Final = 10_000

_SHOWN: Final = [column for column in ROLLOUTS.c if column.name != "evidence"]  # evidence is asked for by itself


class Moved(Failed):
    """The rollout was moved meanwhile, by hand or by another process: what was to be written is out of date."""


def new_id(sort: str) -> str:
    """An id that nothing else has, such as `rollout-1f...`."""
    return f"{sort}-{secrets.token_hex(10)}"


# Rollouts.


def add(connection: Connection, rollout: Rollout) -> None:
    """A rollout that begins. The caller has seen that no other runs; two at once are refused by the database."""
    connection.execute(sa.insert(ROLLOUTS).values(**_values(rollout), evidence=b""))


def save(connection: Connection, rollout: Rollout, *, was: int) -> None:
    """Write a rollout over itself, where its last move still is number `was`; its evidence stays.

    Raises Moved where it is not.
    """
    _update(connection, rollout.id, was, _values(rollout))


def save_evidence(connection: Connection, rollout: Rollout, evidence: bytes, verdict: Verdict | None) -> Rollout:
    """Keep what was folded since this move, and what it said. Raises Moved where another move came between."""
    if len(evidence) > MAX_EVIDENCE_BYTES:
        raise Failed(f"rollout {rollout.id}: expected at most {MAX_EVIDENCE_BYTES:,} bytes of evidence")
    verdicts = rollout.verdicts if verdict is None else _with_verdict(rollout.verdicts, verdict)
    _update(connection, rollout.id, rollout.moves, {"evidence": evidence, "verdicts": msgspec.json.encode(verdicts)})
    return msgspec.structs.replace(rollout, verdicts=verdicts)


def _with_verdict(known: tuple[Verdict, ...], verdict: Verdict) -> tuple[Verdict, ...]:
    """The verdicts with a newer one; one that says the same as the last takes its place."""
    return (*(known[:-1] if verdict.same_as(known) else known), verdict)[-MAX_VERDICTS:]


def save_release(connection: Connection, rollout: Rollout, release: int) -> Rollout:
    """Say which release carries out the last move. Raises Moved where another move came between."""
    _update(connection, rollout.id, rollout.moves, {"release": release})
    return msgspec.structs.replace(rollout, release=release)


def find(connection: Connection, rollout: str) -> Rollout | None:
    """The rollout of this id."""
    return _first(connection, ROLLOUTS.c.id == rollout)


def find_running(connection: Connection, capability: str) -> Rollout | None:
    """The rollout of a capability that is on trial now."""
    return _first(connection, sa.and_(ROLLOUTS.c.capability == capability, ROLLOUTS.c.stage.in_(sorted(RUNNING))))


def find_in_production(connection: Connection, capability: str) -> Rollout | None:
    """The rollout that brought into production what is there now, as far as a rollout did."""
    return _first(connection, sa.and_(ROLLOUTS.c.capability == capability, ROLLOUTS.c.stage == "production"))


def list_unsettled(connection: Connection) -> list[Rollout]:
    """The rollouts that may have something to be done: on trial, watched, or with a move that is not carried out."""
    query = (
        sa.select(*_SHOWN)
        .where(
            sa.or_(
                ROLLOUTS.c.stage.in_(sorted(RUNNING)),
                ROLLOUTS.c.release.is_(None),
                sa.and_(ROLLOUTS.c.stage == "production", ROLLOUTS.c.watch_until.is_not(None)),
            )
        )
        .order_by(ROLLOUTS.c.capability, ROLLOUTS.c.begun_at)
        .limit(MAX_LISTED)
    )
    return [_rollout(row) for row in connection.execute(query).mappings()]


def list_rollouts(connection: Connection, capability: str, limit: int = 100) -> list[Rollout]:
    """The newest rollouts of a capability, newest first."""
    query = sa.select(*_SHOWN).where(ROLLOUTS.c.capability == capability)
    ordered = query.order_by(ROLLOUTS.c.begun_at.desc()).limit(min(limit, MAX_LISTED))
    return [_rollout(row) for row in connection.execute(ordered).mappings()]


def load_evidence(connection: Connection, rollout: Rollout) -> bytes:
    """What was folded since the last move; empty when nothing was. Raises Moved where another move came between."""
    query = sa.select(ROLLOUTS.c.evidence).where(ROLLOUTS.c.id == rollout.id, ROLLOUTS.c.moves == rollout.moves)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise Moved(f"rollout {rollout.id}: expected its move {rollout.moves} to be the last one")
    return bytes(found)


def _update(connection: Connection, rollout: str, moves: int, values: dict[str, Any]) -> None:
    where = sa.and_(ROLLOUTS.c.id == rollout, ROLLOUTS.c.moves == moves)
    if connection.execute(sa.update(ROLLOUTS).where(where).values(**values)).rowcount != 1:
        raise Moved(f"rollout {rollout}: expected its move {moves} to be the last one")


def _first(connection: Connection, where: sa.ColumnElement[bool]) -> Rollout | None:
    row = connection.execute(sa.select(*_SHOWN).where(where)).mappings().one_or_none()
    return None if row is None else _rollout(row)


def _values(rollout: Rollout) -> dict[str, Any]:
    values = msgspec.structs.asdict(rollout)
    return values | {"verdicts": msgspec.json.encode(rollout.verdicts)}


def _plain(row: RowMapping) -> dict[str, Any]:
    return {str.__str__(name): value for name, value in row.items()}  # the engine has names of a kind of its own


def _rollout(row: RowMapping) -> Rollout:
    verdicts = msgspec.json.decode(bytes(row["verdicts"]), type=tuple[Verdict, ...])
    return msgspec.convert(_plain(row) | {"verdicts": verdicts}, Rollout)


# What happened.


def add_event(
    connection: Connection, rollout: str, number: int, action: Action, by: str, reason: str, details: Mapping[str, Any]
) -> None:
    """Something that happened, to be put into the ledger when this transaction is made."""
    connection.execute(
        sa.insert(EVENTS).values(
            rollout=rollout,
            number=number,
            at=instant(),
            action=action,
            by=by,
            reason=reason,
            details=msgspec.json.encode(details),
        )
    )


def next_number(connection: Connection, rollout: str) -> int:
    """The number of the event that comes next."""
    last = connection.execute(sa.select(sa.func.max(EVENTS.c.number)).where(EVENTS.c.rollout == rollout)).scalar()
    return 1 if last is None else int(last) + 1


def list_events(connection: Connection, rollout: str) -> list[Event]:
    """What happened to a rollout, oldest first."""
    query = sa.select(EVENTS).where(EVENTS.c.rollout == rollout).order_by(EVENTS.c.number).limit(MAX_LISTED)
    return [_event(row) for row in connection.execute(query).mappings()]


def list_untold(connection: Connection, limit: int = 1_000) -> list[Event]:
    """What is not in the ledger yet, in the order of each rollout."""
    query = sa.select(EVENTS).where(EVENTS.c.entry.is_(None)).order_by(EVENTS.c.at, EVENTS.c.rollout, EVENTS.c.number)
    return [_event(row) for row in connection.execute(query.limit(limit)).mappings()]


def save_entry(connection: Connection, event: Event, entry: str) -> None:
    """Say which entry of the ledger an event is."""
    connection.execute(
        sa.update(EVENTS).where(EVENTS.c.rollout == event.rollout, EVENTS.c.number == event.number).values(entry=entry)
    )


def _event(row: RowMapping) -> Event:
    return msgspec.convert(_plain(row) | {"details": msgspec.json.decode(bytes(row["details"]))}, Event)


# What was proposed.


def add_proposal(connection: Connection, proposal: Proposal) -> None:
    """A move that waits for another person."""
    connection.execute(sa.insert(PROPOSALS).values(**msgspec.structs.asdict(proposal)))


def find_proposal(connection: Connection, proposal: str) -> Proposal | None:
    """The proposal of this id."""
    row = connection.execute(sa.select(PROPOSALS).where(PROPOSALS.c.id == proposal)).mappings().one_or_none()
    return None if row is None else msgspec.convert(_plain(row), Proposal)


def list_proposals(connection: Connection, capability: str | None = None) -> list[Proposal]:
    """The proposals that wait and have not expired, oldest first."""
    query = sa.select(PROPOSALS).where(PROPOSALS.c.verdict.is_(None), PROPOSALS.c.expires_at > instant())
    if capability is not None:
        query = query.where(PROPOSALS.c.capability == capability)
    ordered = query.order_by(PROPOSALS.c.proposed_at).limit(MAX_LISTED)
    return [msgspec.convert(_plain(row), Proposal) for row in connection.execute(ordered).mappings()]


def was_refused(connection: Connection, rollout: str, digest: str) -> bool:
    """Whether somebody withdrew a proposal that was bound to the same."""
    where = sa.and_(PROPOSALS.c.rollout == rollout, PROPOSALS.c.digest == digest, PROPOSALS.c.verdict == "withdrawn")
    return connection.execute(sa.select(PROPOSALS.c.id).where(where).limit(1)).scalar() is not None


def settle_proposal(connection: Connection, proposal: Proposal, verdict: str, by: str) -> None:
    """Approve or withdraw a proposal, once. Raises Moved where somebody did so before."""
    done = connection.execute(
        sa.update(PROPOSALS)
        .where(PROPOSALS.c.id == proposal.id, PROPOSALS.c.verdict.is_(None))
        .values(verdict=verdict, settled_by=by, settled_at=instant())
    )
    if done.rowcount != 1:
        raise Moved(f"proposal {proposal.id}: expected it to wait for somebody, it was settled before")
