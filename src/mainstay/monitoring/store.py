"""What monitor passes remember in the control database: findings over time, and how the alarm budget stands.

A pass of a capability ends in one transaction: what it found, what passed, and the windows it judged. A pass that is
killed before leaves what was, and is made again; one that was made is known by its windows, and judges none twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace

from mainstay.monitoring.findings import Finding, Standing, worse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from mainstay.state.database import Database

METADATA: Final = sa.MetaData()
FINDINGS: Final = sa.Table(
    "monitor_findings",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),  # the key, and how often it was found before
    sa.Column("capability", sa.String(64), nullable=False),
    sa.Column("key", sa.String(16), nullable=False),
    sa.Column("severity", sa.String(10), nullable=False),
    sa.Column("since", sa.String(32), nullable=False),
    sa.Column("last_seen", sa.String(32), nullable=False),
    sa.Column("resolved", sa.String(32), nullable=True),
    sa.Column("document", sa.LargeBinary(), nullable=False),  # a Standing
)
PASSES: Final = sa.Table(
    "monitor_passes",
    METADATA,
    sa.Column("capability", sa.String(64), primary_key=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("document", sa.LargeBinary(), nullable=False),  # a Memory
)

MOST_SHOWN: Final = 10_000


class Memory(Struct, frozen=True, kw_only=True):
    """What one pass leaves to the next."""

    at: datetime
    judged_until: datetime | None = None  # the end of the newest window that was judged
    position: int = 0  # of the ledger, up to where rows were counted
    windows: int = 0  # that were judged, ever
    waiting: int = 0  # windows that were complete and not judged yet: what stands here is not the newest
    labels: dict[str, dict[str, Any]] = {}  # of each version: what `judged_labels` remembers


class Told(Struct, frozen=True, kw_only=True):
    """What is new of a pass."""

    opened: tuple[Standing, ...] = ()
    resolved: tuple[Standing, ...] = ()


def read_memory(database: Database, capability: str) -> Memory | None:
    """What the last pass left; None where there was none."""

    def work(connection: Connection) -> bytes | None:
        query = sa.select(PASSES.c.document).where(PASSES.c.capability == capability)
        return connection.execute(query).scalar()

    found = database.read(work)
    return None if found is None else msgspec.json.decode(found, type=Memory)


def read_findings(
    database: Database, capability: str, *, since: datetime | None = None, open_only: bool = False
) -> list[Standing]:
    """Findings, the open ones first and among them the worst and newest; `since` keeps those seen at or after it."""

    def work(connection: Connection) -> Sequence[bytes]:
        query = sa.select(FINDINGS.c.document).where(FINDINGS.c.capability == capability)
        if since is not None:
            query = query.where(FINDINGS.c.last_seen >= _text(since))
        if open_only:
            query = query.where(FINDINGS.c.resolved.is_(None))
        return connection.execute(query.order_by(FINDINGS.c.last_seen.desc()).limit(MOST_SHOWN)).scalars().all()

    found = [msgspec.json.decode(each, type=Standing) for each in database.read(work)]
    return sorted(found, key=_rank)


def _rank(standing: Standing) -> tuple[bool, int, float]:
    order = {"critical": 0, "warning": 1, "info": 2}[standing.finding.severity]
    return not standing.is_open, order, -standing.since.timestamp()


def keep(
    database: Database,
    capability: str,
    findings: Iterable[Finding],
    memory: Memory,
    *,
    looked_at: Callable[[Finding], bool] = lambda _: True,
    left: Callable[[Finding], str] = lambda _: "",
    before: datetime | None = None,
) -> Told:
    """Put what a pass found into the database, in one transaction: what is new is opened, what is gone resolved.

    `looked_at` says whether the pass could have found an open finding again; what it did not look at stays. `left` says
    why a finding is of no account any more, and nothing where it is: it is told all the same, and closed with that.
    `before` is what `Memory.at` was when the pass began: where another pass came between, nothing is kept, and it is
    made again by whoever comes next. It is seen at the end of the window that was judged: replayed traffic has its own
    time.
    """
    seen = memory.judged_until or memory.at
    found = {each.key: each for each in findings}

    def work(connection: Connection) -> Told:
        at = connection.execute(sa.select(PASSES.c.at).where(PASSES.c.capability == capability)).scalar()
        if at != (None if before is None else _text(before)):
            return Told()
        query = sa.select(FINDINGS.c.document).where(FINDINGS.c.capability == capability, FINDINGS.c.resolved.is_(None))
        known = {each.finding.key: each for each in _standings(connection, query)}
        opened, resolved = [], []
        for key, finding in found.items():
            why = left(finding)
            standing = known.get(key) or (_closed(connection, finding) if why else None)
            if standing is None:
                made = _ended(_opened(connection, finding, seen), seen, why)
                connection.execute(sa.insert(FINDINGS).values(id=made.id, capability=capability, **_columns(made)))
                opened.append(made)
                continue
            again = _ended(_seen_again(standing, finding, seen), seen, why)
            _update(connection, again)
            resolved += [again] if standing.is_open and why else []
        for key, standing in known.items():
            why = left(standing.finding)
            if key not in found and (why or looked_at(standing.finding)):
                over = replace(standing, resolved=seen, closed=why)
                _update(connection, over)
                resolved.append(over)
        row = {"at": _text(memory.at), "document": msgspec.json.encode(memory)}
        if at is None:
            connection.execute(sa.insert(PASSES).values(capability=capability, **row))
        else:
            connection.execute(sa.update(PASSES).where(PASSES.c.capability == capability).values(**row))
        return Told(opened=tuple(opened), resolved=tuple(resolved))

    return database.write(work)


def close(database: Database, capability: str, left: Callable[[Finding], str], seen: datetime) -> tuple[Standing, ...]:
    """Close the open findings that are of no account any more, by what `left` says; those that were closed."""

    def work(connection: Connection) -> tuple[Standing, ...]:
        query = sa.select(FINDINGS.c.document).where(FINDINGS.c.capability == capability, FINDINGS.c.resolved.is_(None))
        found = [_ended(each, seen, left(each.finding)) for each in _standings(connection, query)]
        closed = tuple(each for each in found if not each.is_open)
        for each in closed:
            _update(connection, each)
        return closed

    return database.write(work)


def _standings(connection: Connection, query: sa.Select[Any]) -> list[Standing]:
    return [msgspec.json.decode(document, type=Standing) for document in connection.execute(query).scalars()]


def _closed(connection: Connection, finding: Finding) -> Standing | None:
    """The same finding as it was closed last, if it was: it goes on as that one, and is not told again."""
    query = sa.select(FINDINGS.c.document).where(FINDINGS.c.capability == finding.capability)
    newest = query.where(FINDINGS.c.key == finding.key).order_by(FINDINGS.c.last_seen.desc()).limit(1)
    return next((each for each in _standings(connection, newest) if each.closed), None)


def _ended(standing: Standing, seen: datetime, why: str) -> Standing:
    """The same, closed where there is a reason."""
    return replace(standing, resolved=seen, closed=why) if why else standing


def _opened(connection: Connection, finding: Finding, now: datetime) -> Standing:
    count = sa.select(sa.func.count()).where(FINDINGS.c.capability == finding.capability, FINDINGS.c.key == finding.key)
    number = connection.execute(count).scalar_one() + 1
    return Standing(
        id=f"{finding.key}-{number}",
        finding=finding,
        since=finding.window_from,
        first_seen=now,
        last_seen=now,
        passes=1,
        worst=None if finding.observed is None else finding.observed.value,
    )


def _seen_again(standing: Standing, finding: Finding, now: datetime) -> Standing:
    value = None if finding.observed is None else finding.observed.value
    worst = standing.worst if value is None else value if standing.worst is None else max(standing.worst, value)
    severity = worse(standing.finding.severity, finding.severity)
    return replace(
        standing,
        finding=replace(finding, severity=severity),
        last_seen=now,
        passes=standing.passes + 1,
        worst=worst,
    )


def _update(connection: Connection, standing: Standing) -> None:
    connection.execute(sa.update(FINDINGS).where(FINDINGS.c.id == standing.id).values(**_columns(standing)))


def _columns(standing: Standing) -> dict[str, Any]:
    return {
        "key": standing.finding.key,
        "severity": standing.finding.severity,
        "since": _text(standing.since),
        "last_seen": _text(standing.last_seen),
        "resolved": None if standing.resolved is None else _text(standing.resolved),
        "document": msgspec.json.encode(standing),
    }


def _text(at: datetime) -> str:
    """An instant that sorts as text does."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
