"""A REST API as a source: one page is one item, and nothing of a page is taken before all of it is there.

A **round** asks for every page once, from the greatest value of the cursor that is known on, or from the beginning.
What an item's cursor says is enough to go on within a round after a kill: the page that comes next, where the round was
asked from, and the greatest value so far. Since most APIs give the records *at* that value again, those that landed
are known by their digests and left out; so is a page that came before, in this round or the last, byte for byte.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mainstay.arrays import one_line
from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.landing import Noticed
from mainstay.intake.rest_auth import Authenticator
from mainstay.intake.rest_client import HttpClient
from mainstay.intake.rest_pages import Place, address, first_place, next_place, read_page
from mainstay.intake.rest_records import NoValue, Rank, Value, digest, order, rank, value_reader
from mainstay.intake.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from mainstay.capability.sources import Rest, Source
    from mainstay.intake.landing import Draft, Item, Landing
    from mainstay.intake.rest_client import Answer
    from mainstay.intake.rest_pages import Page
    from mainstay.workspace import Workspace

MAX_TIES: Final = 1_024  # records at the greatest value whose digests are kept; beyond, their key must tell them
MAX_PAGES: Final = 256  # of a round, the newest, whose digests are kept
MAX_REPEATS: Final = 3  # pages one after the other that came before in a round; then it ends
MAX_IDLE_PAGES: Final = 10_000  # one after the other without a new record; then the round ends
MAX_STEP_SECONDS: Final = 20.0  # without a new record; then an item says where to go on
MAX_WAIT_SECONDS: Final = 60.0  # that a page is waited for between calls; a source that wants longer is left
BACKOFF_SECONDS: Final = 0.5  # at most, before the first retry; doubled for each that follows
MAX_RETRY_AFTER_SECONDS: Final = 86_400.0

_RETRIED: Final = frozenset({"source_down", "source_slow", "rate_limited", "not_whole"})
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_TOLD: Final = frozenset({"repeated_page", "place_lost"})  # somebody must know of these, though no item lands
_LOST_PLACE: Final = frozenset({400, 404, 410, 416, 422})  # how an API says that it knows a page no more


class Reached(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a source was asked: the cursor behind an item, as it stands in manifests and commits."""

    of: str  # a digest of what is asked, and how: of another declaration the place means nothing
    field: str | None = None  # whose value is compared
    place: Place | None = None  # the page that comes next; None: the round is over
    since: Value | None = None  # where this round is asked from on
    newest: Value | None = None  # the greatest value so far
    known: tuple[str, ...] = ()  # digests of the records at `since` that landed before this round
    ties: tuple[str, ...] = ()  # of those at `newest` that landed
    pages: tuple[str, ...] = ()  # of the pages of this round
    former: tuple[str, ...] = ()  # of those of the round before


@dataclass(slots=True)
class _Taken:
    """What is kept of a page while it is written."""

    records: int = 0  # of the page
    kept: int = 0  # of them, those that land
    before: int = 0  # of them, those whose value is before where the round was asked from
    absent: int = 0  # of them, those without a value
    changed: int = 0  # of them, those whose value is of another type


class RestFetcher:
    """Asks one REST API, page by page."""

    def __init__(self, source: Source, landing: Landing, *, pause: Callable[[float], object] = time.sleep) -> None:
        """`pause` waits so many seconds between two calls. Raises Misuse when the declaration cannot be followed."""
        if source.rest is None:
            raise Misuse(f"source {source.name}: expected a source of kind `rest`")
        if (source.cursor is None) != (source.rest.cursor_parameter is None):
            raise Misuse(f"source {source.name}: expected both cursor and rest.cursor_parameter, or neither")
        if source.rest.pages.style in {"next_url", "cursor"} and source.rest.pages.path is None:
            raise Misuse(f"source {source.name}: style {source.rest.pages.style} needs rest.pages.path")
        self._rest: Rest = source.rest
        self._field = source.cursor
        self._landing = landing
        self._pause = pause
        self._client = HttpClient(
            timeout_seconds=self._rest.timeout_seconds, max_answer_bytes=self._rest.max_answer_bytes
        )
        self._auth = Authenticator(self._rest.auth, self._client)
        self._of = _identity(self._rest)
        self._basis: Any = None  # the cursor that `_reached` goes on from
        self._reached: Reached | None = None
        self._begun_here = False  # whether the round under way was begun by this fetcher
        self._over = False  # whether one that was has just ended
        self._asked: set[Place] = set()  # in this round
        self._repeats = 0  # pages one after the other that came before in it
        self._noticed: list[Noticed] = []  # and not told yet

    def step(self, cursor: Any) -> Item | None:
        """Land the next page that has a new record; None once each page of a round has been asked for.

        Where known pages take long to be passed over, an item without records says how far that came.
        """
        reached, ends_at = self._take_up(cursor), time.monotonic() + MAX_STEP_SECONDS
        try:
            for _ in range(MAX_IDLE_PAGES):
                if reached.place is None:
                    if self._over:
                        self._over = False
                        self._tell_unlanded()
                        return None
                    reached = self._begin(reached)
                reached, item = self._take_page(reached)
                if reached.place is None:
                    self._over, self._begun_here = self._begun_here, False
                if item is None and reached.place is not None and time.monotonic() > ends_at:
                    with self._landing.begin("jsonl") as draft:
                        item = self._land(draft, reached, address(self._rest, reached.place, None))
                if item is not None:
                    self._basis = item.cursor
                    return item
        except Unavailable as error:
            detail = redact(error.detail, self._auth.secrets)
            raise Unavailable(error.code, detail, retry_after_seconds=error.retry_after_seconds) from None
        finally:
            self._reached = reached
        self._reached = _abandoned(reached)
        raise Unavailable("repeated_page", f"{MAX_IDLE_PAGES} pages without a new record: the round is ended")

    # Rounds.

    def _take_up(self, cursor: Any) -> Reached:
        """Where to go on behind `cursor`: what this fetcher knows beyond it, where it does."""
        if self._reached is not None and cursor == self._basis:
            return self._reached
        self._basis, self._begun_here, self._over = cursor, False, False
        self._asked.clear()
        try:
            found = Reached(of=self._of, field=self._field) if cursor is None else msgspec.convert(cursor, Reached)
        except msgspec.ValidationError:  # of a source of another kind that had this name before
            found = Reached(of=self._of, field=self._field)
        if found.field != self._field:
            found = Reached(of=self._of, field=self._field)
        if found.of != self._of:
            found = replace(found if found.place is None else _abandoned(found), of=self._of)
        return found

    def _begin(self, reached: Reached) -> Reached:
        self._begun_here = True
        self._asked.clear()
        self._repeats = 0
        return replace(
            reached,
            place=first_place(self._rest.pages),
            since=reached.newest,
            known=reached.ties,
            pages=(),
            former=reached.pages or reached.former,
        )

    def _tell_unlanded(self) -> None:
        """Raise what no item could carry, where somebody must know of it."""
        told = next((each for each in self._noticed if each.code in _TOLD), None)
        if told is not None:
            self._noticed.clear()
            raise Unavailable(told.code, told.detail)

    # Pages.

    def _take_page(self, reached: Reached) -> tuple[Reached, Item | None]:
        """Ask for the page that comes next, and land what is new of it."""
        place: Place = "" if reached.place is None else reached.place
        since = None if reached.since is None else _as_parameter(reached.since)
        url = address(self._rest, place, since)
        answer = self._ask(url)
        if answer.status in _LOST_PLACE and place != first_place(self._rest.pages):
            return self._lose_place(reached, url, answer.status), None
        self._refuse(answer)
        self._asked.add(place)
        page = read_page(self._rest, answer)
        seen = digest(page.array)
        if seen in reached.pages or seen in reached.former:
            return self._skip(reached, place, page, seen, url), None
        with self._landing.begin("jsonl") as draft:
            after, taken = self._write(draft, page, reached)
            behind = self._go_on(after, place, page, taken.records)
            if taken.records:
                self._repeats = 0
                behind = replace(behind, pages=(*behind.pages, seen)[-MAX_PAGES:])
            if not taken.kept:
                return behind, None
            self._notice_records(taken, reached)
            return behind, self._land(draft, behind, url)

    def _land(self, draft: Draft, behind: Reached, url: httpx.URL) -> Item:
        cursor = msgspec.json.decode(msgspec.json.encode(behind))  # as it will be given back
        origin = redact(f"GET {url}", self._auth.secrets)
        noticed = tuple(Noticed(each.code, redact(each.detail, self._auth.secrets)) for each in self._noticed)
        item = draft.land(origin=origin, cursor=cursor, noticed=noticed)
        self._noticed.clear()
        return item

    def _write(self, draft: Draft, page: Page, reached: Reached) -> tuple[Reached, _Taken]:
        """Write the records that did not land before, and find the greatest value of the cursor."""
        taken = _Taken()
        read = None if self._field is None else value_reader(self._field)
        track = _Track(reached)
        for record in page.records():
            taken.records += 1
            if read is None or track.takes(record, read, taken):
                taken.kept += 1
                draft.file.write(one_line(record) + b"\n")
        return track.reached(reached), taken

    def _skip(self, reached: Reached, place: Place, page: Page, seen: str, url: httpx.URL) -> Reached:
        """Go on behind a page whose records have landed: nothing new came in this place."""
        if seen in reached.pages:
            self._repeats += 1
            self._notice("repeated_page", f"{url} gave the records of an earlier page again; they are taken once")
        records = sum(1 for _ in page.records())
        behind = self._go_on(reached, place, page, records)
        if self._repeats >= MAX_REPEATS and behind.place is not None:
            self._notice("repeated_page", f"{MAX_REPEATS} pages one after the other came before: the round is ended")
            return _abandoned(behind)
        return behind if seen in behind.pages else replace(behind, pages=(*behind.pages, seen)[-MAX_PAGES:])

    def _go_on(self, reached: Reached, place: Place, page: Page, records: int) -> Reached:
        """Behind this page; the round ends with its last one, and where pages lead back to one that was asked for."""
        following = next_place(self._rest, place, page, records, self._auth.hidden_parameter)
        if following is None:
            return replace(reached, place=None)
        if following in self._asked:
            self._notice("repeated_page", f"the page behind {page.url.path} was asked for before: the round is ended")
            return replace(reached, place=None) if following == place else _abandoned(reached)
        return replace(reached, place=following)

    def _lose_place(self, reached: Reached, url: httpx.URL, status: int) -> Reached:
        """A page that is not there: with numbers the last one was before it; else the round must be begun anew."""
        if self._rest.pages.style == "number" and status == 404:
            return replace(reached, place=None)
        self._notice("place_lost", f"{url.path}: status {status} for the page that was to come next: begun anew")
        return _abandoned(reached)

    # Calls.

    def _ask(self, url: httpx.URL) -> Answer:
        """The answer at an address, asked for again while that may help. Raises Unavailable."""
        waited = 0.0
        for attempt in range(self._rest.retries + 1):
            try:
                answer = self._call(url)
                if answer.status not in _AGAIN:
                    return answer
                failure = _failure(url, answer)
            except Unavailable as error:
                if error.code not in _RETRIED:
                    raise
                failure = error
            seconds = random.uniform(0, BACKOFF_SECONDS * 2**attempt)  # noqa: S311 - full jitter, no secret
            seconds += failure.retry_after_seconds or 0.0
            if attempt == self._rest.retries or waited + seconds > MAX_WAIT_SECONDS:
                raise failure
            self._pause(seconds)
            waited += seconds
            self._notice(failure.code, f"{failure.detail}; asked again after {seconds:.1f} s")
        raise AssertionError  # the last attempt returns or raises

    def _call(self, url: httpx.URL) -> Answer:
        """One call with credentials, and another where a token was refused that can be renewed."""
        answer = self._call_once(url)
        if answer.status == 401 and self._auth.renew():
            answer = self._call_once(url)
        return answer

    def _call_once(self, url: httpx.URL) -> Answer:
        given = self._auth.credentials()
        for name, value in given.parameters.items():
            url = url.copy_set_param(name, value)
        return self._client.get(url, given.headers)

    def _refuse(self, answer: Answer) -> None:
        """Raise Unavailable unless the call went well."""
        if answer.status in {401, 403}:
            raise Unavailable(
                "not_authorized", f"{answer.url.path}: status {answer.status}: the credentials are refused"
            )
        if not 200 <= answer.status < 300:
            raise Unavailable("source_down", f"{answer.url.path}: status {answer.status}")

    def _notice(self, code: str, detail: str) -> None:
        if all(each.code != code for each in self._noticed):  # one of a kind says it
            self._noticed.append(Noticed(code, detail))

    def _notice_records(self, taken: _Taken, reached: Reached) -> None:
        where = f"of {taken.records} records"
        if taken.before:
            asked = f"{self._field} {reached.since!r}"
            self._notice("cursor_backwards", f"{taken.before} {where} stand before {asked}, from where they were asked")
        if taken.absent:
            self._notice("column_missing", f"{taken.absent} {where} have no {self._field}, which is the cursor")
        if taken.changed:
            self._notice("type_changed", f"{taken.changed} {where} have a {self._field} of another type")


class _Track:
    """The greatest value of the cursor, and which records at it and at the round's beginning are known."""

    def __init__(self, reached: Reached) -> None:
        self._since = None if reached.since is None else rank(reached.since)
        self._known = frozenset(reached.known)
        self._newest = None if reached.newest is None else rank(reached.newest)
        self._ties = dict.fromkeys(reached.ties)

    def takes(self, record: bytes, read: Callable[[bytes], Value], taken: _Taken) -> bool:
        """Whether a record is new, as far as can be told; counts what is wrong with it."""
        try:
            value = rank(read(record))
        except NoValue as error:
            taken.absent += error.absent
            taken.changed += not error.absent
            return True
        if self._since is not None:
            place = order(value, self._since)
            if place == 0 and digest(record) in self._known:
                return False
            taken.before += place == -1
        self._move(value, record, taken)
        return True

    def _move(self, value: Rank, record: bytes, taken: _Taken) -> None:
        place = 1 if self._newest is None else order(value, self._newest)
        if place is None:
            taken.changed += 1
        elif place > 0:
            self._newest, self._ties = value, {digest(record): None}
        elif place == 0 and len(self._ties) < MAX_TIES:
            self._ties[digest(record)] = None

    def reached(self, reached: Reached) -> Reached:
        """The same place, with what the records of a page moved."""
        newest = None if self._newest is None else self._newest.value
        return replace(reached, newest=newest, ties=tuple(self._ties))


def open_fetcher(_workspace: Workspace, _capability_name: str, source: Source, landing: Landing) -> RestFetcher:
    """The fetcher of a source of kind `rest`."""
    return RestFetcher(source, landing)


def _abandoned(reached: Reached) -> Reached:
    """A round that did not go to its end: the next one asks from where it did, as pages may give the newest first."""
    return replace(reached, place=None, newest=reached.since, ties=reached.known)


def _identity(rest: Rest) -> str:
    """What tells one list of pages from another: where they are, and how they are counted."""
    asked = (rest.url, rest.records, rest.parameters, rest.pages, rest.cursor_parameter)
    return digest(msgspec.json.encode(asked, order="sorted"))


def _as_parameter(value: Value) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _failure(url: httpx.URL, answer: Answer) -> Unavailable:
    """An answer that may be another one later."""
    seconds = _retry_after(answer.headers.get("retry-after", ""))
    code = "rate_limited" if answer.status == 429 else "source_down"
    return Unavailable(code, f"{url.path}: status {answer.status}", retry_after_seconds=seconds)


def _retry_after(said: str) -> float | None:
    """`Retry-After` in seconds (RFC 9110, section 10.2.3), a number or a date; None when it says neither."""
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), MAX_RETRY_AFTER_SECONDS)
