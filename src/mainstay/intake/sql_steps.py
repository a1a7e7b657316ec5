"""One step of an SQL source: which rows are read, and how they land."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.landing import Noticed
from mainstay.intake.sql_database import Unfit, column
from mainstay.intake.sql_place import AT_HIGH, AT_LOW, BETWEEN, MAX_TIES, Place, Sum, Ties, Whole
from mainstay.intake.sql_rows import Chunks, write_lines, write_parquet

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from mainstay.intake.landing import Item, Landing
    from mainstay.intake.sql_database import Column, Database

UNUSABLE: Final = "cursor_unusable"
BACKWARDS: Final = "cursor_backwards"
TIES: Final = "cursor_ties"

_STREAMED: Final = {"stream_results": True}

_UNUSABLE_DETAIL: Final = "rows whose cursor value is null, infinite, in the future or of another type wait"
_BACKWARDS_DETAIL: Final = "the table ends before the cursor; its rows are taken again when they come behind it"
_TIES_DETAIL: Final = f"more rows came with the value that the last step ended at, which had more than {MAX_TIES}"
_UNFIT_DETAIL: Final = "a value that no column of its type holds: these rows land as JSON lines"


class Watch(Protocol):
    """Looks at every row that is read, once and in order, and says whether it lands."""

    def keep(self, row: Sequence[Any]) -> bool: ...


W = TypeVar("W", bound=Watch)


class Asked(NamedTuple):
    """A table of a database, and the columns that are taken."""

    connection: sa.Connection
    database: Database
    table: sa.FromClause
    columns: list[Column]

    def column(self, name: str) -> Column:
        """One of the columns."""
        return next(each for each in self.columns if each.name == name)

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.columns]

    def first(self, value: Any, *where: sa.ColumnElement[bool], by: Any = None, after: int = 0) -> Any:
        """The first value of what is asked for, in the order of `by`; None where there is none."""
        statement = sa.select(value).select_from(self.table).where(*where).order_by(by).offset(after or None).limit(1)
        return self.connection.execute(statement).scalar()


class Query(NamedTuple):
    """Which rows are read. `marks` stand behind the columns and tell a Watch what a row is."""

    where: sa.ColumnElement[bool]
    marks: list[sa.ColumnElement[Any]]
    order: sa.ColumnElement[Any] | None = None

    def rows(self, asked: Asked, values: Sequence[sa.ColumnElement[Any]]) -> sa.CursorResult[Any]:
        """The rows, as a stream."""
        statement = sa.select(*values, *self.marks).select_from(asked.table).where(self.where).order_by(self.order)
        return asked.connection.execute(statement, execution_options=_STREAMED)


class Told(NamedTuple):
    """What an item says of itself."""

    origin: str
    noticed: tuple[Noticed, ...] = ()


def land_rows(
    asked: Asked, landing: Landing, query: Query, watch: Callable[[], W], place: Callable[[W], Any], told: Told
) -> Item | None:
    """Land what a query reads and a watch keeps; None where that is nothing. `place` is the cursor behind it."""
    try:
        with landing.begin("parquet") as draft:
            seen = watch()
            with query.rows(asked, [each.asked for each in asked.columns]) as result:
                rows = write_parquet(draft.path, asked.columns, Chunks(result, seen.keep))
            cursor = msgspec.to_builtins(place(seen))
            return draft.land(origin=told.origin, cursor=cursor, noticed=told.noticed) if rows else None
    except (Unfit, sa.exc.DataError, UnicodeDecodeError) as error:
        if isinstance(error, sa.exc.DataError) and getattr(error.orig, "sqlstate", None):
            raise  # it is the server's, of a view that cannot be computed
        noticed = (*told.noticed, Noticed("type_changed", _UNFIT_DETAIL))
    with landing.begin("jsonl") as draft:
        seen = watch()
        with query.rows(asked, asked.database.as_json(asked.columns)) as result:
            rows = write_lines(
                draft.file, lambda row: asked.database.line(asked.columns, row), Chunks(result, seen.keep)
            )
        cursor = msgspec.to_builtins(place(seen))
        return draft.land(origin=told.origin, cursor=cursor, noticed=noticed) if rows else None


def take_whole(asked: Asked, landing: Landing, before: Whole | None, most: int, origin: str) -> Item | None:
    """All rows of a table, when they are not those of the last time. Raises Misuse when there are more than `most`."""
    if asked.first(sa.literal(1), after=most) is not None:
        raise Misuse(
            f"{origin}: expected at most `rows`={most} rows of a table that comes whole, found more",
            hint="Declare `cursor`, the column that says what is new; or raise `rows`.",
        )
    text = asked.database.told_apart(asked.columns)
    query = Query(sa.true(), [text])
    seen = Sum()
    with query.rows(asked, []) as result:
        for row in result:
            seen.keep(row)
    if before == seen.whole:
        return None
    return land_rows(asked, landing, query, Sum, lambda watched: watched.whole, Told(f"{origin}, whole"))


class CursorStep:
    """A step along the cursor column. `top` is up to where rows may be read; None: it is to be asked for."""

    def __init__(self, asked: Asked, by: Column, place: Place | None, *, has_key: bool, top: Any) -> None:
        self.top = top
        self._asked = asked
        self._database = asked.database
        self._by = by
        self._value = column(by.name)
        self._place = None if place is None or place.value is None else place
        self._told_before = [] if place is None else place.told
        self._has_key = has_key
        self._usable = asked.database.usable(asked.connection, asked.table, by)
        self._noticed: list[Noticed] = []
        self._told: list[str] = []

    def take(self, landing: Landing, most: int, origin: str) -> Item | None:
        """Land what is new, about `most` rows; without any, what there is to tell."""
        if self.top is None:
            waiting = any(self._asked.first(sa.literal(1), each) is not None for each in self._usable.others)
            self._tell(UNUSABLE, _UNUSABLE_DETAIL, so=waiting)
            self._tell(BACKWARDS, _BACKWARDS_DETAIL, so=self._is_behind())
        else:
            self._told = self._told_before
        high = self._high(most)
        told = Told(origin, tuple(self._noticed))
        item = None
        if high is not None or self._place is not None:
            item = self._land(landing, high, told)
        if item is None and (told.noticed or self._told != self._told_before):
            return self._land_nothing(landing, told)
        return item

    def _tell(self, code: str, detail: str, *, so: bool) -> None:
        """Something that lasts: it is told when it begins."""
        if so:
            self._told.append(code)
            if code not in self._told_before:
                self._noticed.append(Noticed(code, detail))

    # Which rows.

    def _high(self, most: int) -> Any:
        """The value that this step ends at; None where no row is above the place."""
        above = [self._usable.which]
        if self._place is not None:
            above.append(self._value > self._bound(self._place.value))
        if self.top is None:
            if self._asked.first(sa.literal(1), *above) is None:
                return None
            top = self._database.top(self._asked.connection, self._asked.table, self._by, self._usable.which)
            self.top = top.value
            self._noticed += top.noticed
        if self.top is None:
            return None
        above.append(self._value <= self._bound(self.top))
        shown = self._database.shown(self._by)
        last = self._asked.first(shown, *above, by=self._value.desc())
        high = None if last is None else self._asked.first(shown, *above, by=self._value, after=most - 1)
        if high is None or high == last:
            self.top = None
            high = last
        if isinstance(high, bytes):
            raise Unavailable("type_changed", "a value of the cursor column is a text that is no UTF-8")
        return high

    def _is_behind(self) -> bool:
        """Whether every row of the table is before the place."""
        if self._place is None:
            return False
        at_or_above = self._value >= self._bound(self._place.value)
        return (
            self._asked.first(sa.literal(1), at_or_above) is None
            and self._asked.first(sa.literal(1), self._usable.which) is not None
        )

    def _ties(self, place: Place) -> tuple[bool, Counter[bytes] | None]:
        """Whether rows at the place are read again, and those that are known by their digests."""
        if place.columns and set(place.columns) <= set(self._asked.names):
            return True, place.known()
        at_place = self._value == self._bound(place.value)
        count = self._asked.first(sa.func.count(), at_place)
        if count <= place.ties:
            return False, None
        if not self._has_key:
            raise Unavailable(TIES, f"{_TIES_DETAIL}, and without a `key` none can be told apart")
        return True, None

    # How they land.

    def _land(self, landing: Landing, high: Any, told: Told) -> Item | None:
        place = self._place
        if place is None:
            query = Query(self._between(None, high, again=False), self._marks(None, high), self._value)
            return self._land_to(landing, query, None, high, told)
        again, known = self._ties(place)
        if again and known is None:
            detail = f"{_TIES_DETAIL}: all of them come again, and are known by their key"
            told = Told(told.origin, (*told.noticed, Noticed(TIES, detail)))
        if high is not None:
            query = Query(self._between(place, high, again=again), self._marks(place, high), self._value)
            return self._land_to(landing, query, known, high, told)
        if not again:
            return None
        query = Query(self._value == self._bound(place.value), self._marks(place, None))

        def behind(seen: Ties) -> Place:
            if known is None:
                return seen.place(place.value, self._asked.names, self._told)
            return seen.added_to(place, self._told)

        return land_rows(self._asked, landing, query, lambda: Ties(known, counted=AT_LOW), behind, told)

    def _land_to(
        self, landing: Landing, query: Query, known: Counter[bytes] | None, high: Any, told: Told
    ) -> Item | None:
        def behind(seen: Ties) -> Place:
            return seen.place(high, self._asked.names, self._told)

        return land_rows(self._asked, landing, query, lambda: Ties(known), behind, told)

    def _between(self, place: Place | None, high: Any, *, again: bool) -> sa.ColumnElement[bool]:
        conditions = [self._usable.which, self._value <= self._bound(high)]
        if place is not None:
            low = self._bound(place.value)
            conditions.append(self._value >= low if again else self._value > low)
        return sa.and_(*conditions)

    def _marks(self, place: Place | None, high: Any) -> list[sa.ColumnElement[Any]]:
        """Where a row stands, and at the ends the text by which it is told from others."""
        ends: list[tuple[sa.ColumnElement[bool], int, list[Column]]] = []
        if place is not None:
            known = [self._asked.column(name) for name in place.columns if name in self._asked.names]
            ends.append((self._value == self._bound(place.value), AT_LOW, known or self._asked.columns))
        if high is not None:
            ends.append((self._value == self._bound(high), AT_HIGH, self._asked.columns))
        where = sa.case(*((is_at, code) for is_at, code, _ in ends), else_=BETWEEN)
        text = sa.case(*((is_at, self._database.told_apart(columns)) for is_at, _, columns in ends), else_=None)
        return [where, text]

    def _land_nothing(self, landing: Landing, told: Told) -> Item | None:
        """Tell what there is to tell, without a row."""
        place = replace(self._place or Place(value=None, ties=0), told=self._told)
        with landing.begin("jsonl") as draft:
            return draft.land(origin=told.origin, cursor=msgspec.to_builtins(place), noticed=told.noticed)

    def _bound(self, value: Any) -> sa.ColumnElement[Any]:
        return self._database.bound(self._by, value)
