"""One active control process: a lease in the database, with an epoch that fences whoever had it before.

Times are those of the database. Whoever takes the lease raises its epoch, and what a holder writes it writes through
`Lease.write`, which looks at the epoch in the same transaction: a holder that was stopped for a while, and is not the
holder any more, changes nothing.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import sqlalchemy as sa

from mainstay.errors import Failed
from mainstay.state.database import now_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from mainstay.state.database import Database

T = TypeVar("T")

CONTROL: Final = "control"  # the lease of the process that steers

METADATA: Final = sa.MetaData()
LEASES: Final = sa.Table(
    "leases",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(255), nullable=False),
    sa.Column("epoch", sa.BigInteger(), nullable=False),
    sa.Column("expires_at", sa.Double(), nullable=False),  # seconds since 1970, by the database's clock
)


class LeaseLost(Failed):
    """Another process holds the lease now: whoever held it before stops."""


class Standing(NamedTuple):
    """Who holds a lease."""

    holder: str
    epoch: int
    seconds_left: float  # negative: it ran out


class Lease:
    """A lease as one process has it, or waits for it. Threads of a process may share one once it is taken."""

    def __init__(self, database: Database, seconds: float, *, name: str = CONTROL, holder: str = "") -> None:
        self._database = database
        self._name = name
        self.seconds = seconds
        self.holder = holder or own_name()
        self.epoch = 0  # above 0 once it was taken

    def take(self) -> bool:
        """Take it where nobody holds it, or its time ran out; whether it was taken."""

        def work(connection: Connection) -> int:
            now = now_seconds(connection)
            row = connection.execute(_of(self._name).with_for_update()).one_or_none()
            mine = {"holder": self.holder, "expires_at": now + self.seconds}
            if row is None:
                connection.execute(sa.insert(LEASES).values(name=self._name, epoch=1, **mine))
                return 1
            if row.expires_at > now:
                return 0
            epoch = int(row.epoch) + 1
            connection.execute(sa.update(LEASES).where(LEASES.c.name == self._name).values(epoch=epoch, **mine))
            return epoch

        self.epoch = self._database.write(work)
        return self.epoch > 0

    def renew(self) -> None:
        """Hold it for its whole time from now. Raises LeaseLost when another has it, Failed when nobody answers."""

        def work(connection: Connection) -> None:
            until = now_seconds(connection) + self.seconds
            connection.execute(sa.update(LEASES).where(LEASES.c.name == self._name).values(expires_at=until))

        self.write(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction, as `Database.write`, only while this is the holder. Raises LeaseLost."""

        def fenced(connection: Connection) -> T:
            self.check(connection)
            return work(connection)

        return self._database.write(fenced)

    def check(self, connection: Connection) -> None:
        """Hold the lease for the rest of this transaction. Raises LeaseLost when another process has it."""
        row = connection.execute(_of(self._name).with_for_update()).one_or_none()
        if row is None or row.epoch != self.epoch or row.holder != self.holder:
            found = "nobody" if row is None else f"{row.holder} in epoch {row.epoch}"
            raise LeaseLost(f"lease {self._name}: expected {self.holder} in epoch {self.epoch}, found {found}")

    def give_up(self) -> None:
        """Let another have it at once. Nothing happens where another has it already."""

        def work(connection: Connection) -> None:
            ended = now_seconds(connection) - 1
            connection.execute(
                sa.update(LEASES)
                .where(LEASES.c.name == self._name, LEASES.c.epoch == self.epoch, LEASES.c.holder == self.holder)
                .values(expires_at=ended)
            )

        self._database.write(work)


def standing(database: Database, name: str = CONTROL) -> Standing | None:
    """Who holds a lease, or held it last; None where nobody ever did."""

    def work(connection: Connection) -> Standing | None:
        row = connection.execute(_of(name)).one_or_none()
        return None if row is None else Standing(row.holder, row.epoch, row.expires_at - now_seconds(connection))

    return database.read(work)


def own_name() -> str:
    """Who this process is: its machine, its number there, and what tells it from one before with that number."""
    return f"{socket.gethostname()[:128]}/{os.getpid()}/{secrets.token_hex(4)}"


def _of(name: str) -> sa.Select[tuple[str, int, float]]:
    return sa.select(LEASES.c.holder, LEASES.c.epoch, LEASES.c.expires_at).where(LEASES.c.name == name)
