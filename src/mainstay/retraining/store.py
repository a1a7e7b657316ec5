"""Requests for retraining in the control database: at most one of a capability is open, and each says what came of it.

open     waits for the control process
running  a run has taken it; a control process that begins anew goes on with it
ended    with what came of it: better, not_better, unknown, same, failed or withdrawn
barred   it was asked for and may not be, with what bars it
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import sqlalchemy as sa

from mainstay.errors import Misuse
from mainstay.retraining.types import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from sqlalchemy import Connection, Row

    from mainstay.retraining.triggers import Barred, Wish
    from mainstay.retraining.types import Status
    from mainstay.state.database import Database

    T = TypeVar("T")
    Write: TypeAlias = Callable[[Callable[[Connection], T]], T]

METADATA: Final = sa.MetaData()
REQUESTS: Final = sa.Table(
    "retraining_requests",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("capability", sa.String(64), nullable=False),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("asked_at", sa.String(32), nullable=False),
    sa.Column("document", sa.LargeBinary(), nullable=False),  # a Request
)
MOST_SHOWN: Final = 1_000


def ask(database: Database, capability: str, wish: Wish, by: str) -> tuple[Request, bool]:
    """Put a request, unless one is open or running already; the one that stands, and whether it is new."""
    request = _request(capability, wish, by)

    def work(connection: Connection) -> tuple[Request, bool]:
        standing = _unsettled(connection, capability)
        if standing is not None:
            return standing, False
        _insert(connection, request)
        return request, True

    return database.write(work)


def bar(database: Database, capability: str, barred: Barred, by: str) -> tuple[Request, bool]:
    """Remember that something asked and may not; once for what bars it. The one that stands, and whether it is new."""
    made = _request(capability, barred.wish, by)
    request = msgspec.structs.replace(
        made, status="barred", barred_by=barred.findings, why=barred.why, ended_at=made.asked_at
    )

    def work(connection: Connection) -> tuple[Request, bool]:
        before = _newest(connection, capability, "barred")
        if before is not None and set(before.barred_by) & set(barred.findings):
            return before, False
        _insert(connection, request)
        return request, True

    return database.write(work)


def change(database: Database, request: Request, *, write: Write[Request] | None = None) -> Request:
    """Write a request as it is now, with `write` where a lease fences. Raises Misuse when there is none of its id."""

    def work(connection: Connection) -> Request:
        changed = connection.execute(
            sa.update(REQUESTS)
            .where(REQUESTS.c.id == request.id)
            .values(status=request.status, document=msgspec.json.encode(request))
        )
        if not changed.rowcount:
            raise Misuse(f"retraining {request.id}: expected a request, found none")
        return request

    return (write or database.write)(work)


def withdraw(database: Database, capability: str, why: str) -> Request:
    """Take the open request of a capability back. Raises Misuse when there is none, or a run has taken it."""

    def work(connection: Connection) -> Request:
        standing = _unsettled(connection, capability)
        if standing is None or standing.status != "open":
            found = "none" if standing is None else "one that is running"
            raise Misuse(f"{capability}: expected an open request for retraining, found {found}")
        ended = msgspec.structs.replace(
            standing, status="ended", ending="withdrawn", why=why, ended_at=datetime.now(UTC)
        )
        connection.execute(
            sa.update(REQUESTS)
            .where(REQUESTS.c.id == ended.id)
            .values(status=ended.status, document=msgspec.json.encode(ended))
        )
        return ended

    return database.write(work)


def find(database: Database, beginning: str) -> Request:
    """The one request whose id begins so. Raises Misuse when there is none, or several."""

    def work(connection: Connection) -> Sequence[Row[tuple[bytes]]]:
        query = sa.select(REQUESTS.c.document).where(REQUESTS.c.id.startswith(beginning, autoescape=True)).limit(2)
        return connection.execute(query).all()

    found = database.read(work)
    if len(found) != 1:
        raise Misuse(f"{beginning!r}: expected the beginning of one retraining request, found {len(found) or 'none'}")
    return _read(found[0].document)


def unsettled(database: Database, capability: str) -> Request | None:
    """The request of a capability that is open or running; None where there is none."""
    return database.read(lambda connection: _unsettled(connection, capability))


def requests_of(database: Database, capability: str | None = None, limit: int = 100) -> list[Request]:
    """The newest requests, the newest first."""

    def work(connection: Connection) -> Sequence[Row[tuple[bytes]]]:
        query = sa.select(REQUESTS.c.document).order_by(REQUESTS.c.asked_at.desc()).limit(min(limit, MOST_SHOWN))
        return connection.execute(query if capability is None else query.where(_of(capability))).all()

    return [_read(row.document) for row in database.read(work)]


def last_ended(database: Database, capability: str) -> datetime | None:
    """When the last run of a capability ended; one that was withdrawn or barred never ran."""

    def work(connection: Connection) -> Sequence[Row[tuple[bytes]]]:
        query = sa.select(REQUESTS.c.document).where(_of(capability), REQUESTS.c.status == "ended")
        return connection.execute(query.order_by(REQUESTS.c.asked_at.desc()).limit(MOST_SHOWN)).all()

    ended = (_read(row.document) for row in database.read(work))
    return next((each.ended_at for each in ended if each.ending != "withdrawn"), None)


def _request(capability: str, wish: Wish, by: str) -> Request:
    return Request(
        id=str(uuid.uuid4()),
        capability=capability,
        cause=wish.cause,
        reason=wish.reason,
        findings=wish.findings,
        asked_by=by,
        asked_at=datetime.now(UTC),
    )


def _insert(connection: Connection, request: Request) -> None:
    connection.execute(
        sa.insert(REQUESTS).values(
            id=request.id,
            capability=request.capability,
            status=request.status,
            asked_at=request.asked_at.isoformat(timespec="microseconds"),
            document=msgspec.json.encode(request),
        )
    )


def _unsettled(connection: Connection, capability: str) -> Request | None:
    query = sa.select(REQUESTS.c.document).where(_of(capability), REQUESTS.c.status.in_(("open", "running")))
    row = connection.execute(query).first()
    return None if row is None else _read(row.document)


def _newest(connection: Connection, capability: str, status: Status) -> Request | None:
    query = sa.select(REQUESTS.c.document).where(_of(capability), REQUESTS.c.status == status)
    row = connection.execute(query.order_by(REQUESTS.c.asked_at.desc()).limit(1)).first()
    return None if row is None else _read(row.document)


def _of(capability: str) -> sa.ColumnElement[bool]:
    return REQUESTS.c.capability == capability


def _read(document: bytes) -> Request:
    return msgspec.json.decode(document, type=Request)
