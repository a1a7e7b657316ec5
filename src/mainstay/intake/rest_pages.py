"""The pages of an API: what address a page has, what records an answer holds, and what page comes next.

A place is what a page is called: "" or a number for the first one, else what the answer before it named, or how many
records or pages came before it. What an answer says beside its records is read, and no object made of the rest.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import httpx
import msgspec
from msgspec import UNSET, Raw, UnsetType

from mainstay.errors import NOT_READ
from mainstay.intake.fetching import Unavailable
from mainstay.intake.rest_client import follow
from mainstay.intake.rest_records import split_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mainstay.capability.sources import Pages, Rest
    from mainstay.intake.rest_client import Answer

Place: TypeAlias = str | int

MAX_PLACE_CHARACTERS: Final = 8_192  # of an address or a token; it is kept beside every item

_OWN_PARAMETER: Final = {"cursor": "cursor", "offset": "offset", "number": "page"}
_NAMED: Final = frozenset({"link", "next_url"})  # styles whose places are addresses
_BOM: Final = b"\xef\xbb\xbf"

_check_json = msgspec.json.Decoder(Raw).decode
_decode_token = msgspec.json.Decoder(str | int | None).decode


class Page(NamedTuple):
    """What one answer holds."""

    array: memoryview  # the JSON array of its records, or the one record that it is
    single: bool  # whether it is that
    links: Mapping[str | None, Mapping[str, str]]
    url: httpx.URL
    document: bytes

    def records(self) -> Iterator[bytes]:
        """Each record's own bytes, as they came."""
        return iter((bytes(self.array).strip(),)) if self.single else split_records(self.array)


def first_place(pages: Pages) -> Place:
    """What the first page is called."""
    return {"offset": 0, "number": pages.first}.get(pages.style, "")


def address(rest: Rest, place: Place, since: str | None) -> httpx.URL:
    """Where a page is asked for; `since` is where records are asked from on. It holds no credentials."""
    if rest.pages.style in _NAMED and place != "":
        return httpx.URL(str(place))
    parameters: dict[str, str] = dict(rest.parameters)
    if since is not None and rest.cursor_parameter is not None:
        parameters[rest.cursor_parameter] = since
    if rest.pages.size is not None:
        parameters[rest.pages.size_parameter] = str(rest.pages.size)
    own = _OWN_PARAMETER.get(rest.pages.style)
    if own is not None and place != "":
        parameters[rest.pages.parameter or own] = str(place)
    return httpx.URL(rest.url, params=parameters) if parameters else httpx.URL(rest.url)


def read_page(rest: Rest, answer: Answer) -> Page:
    """The records of an answer. Raises Unavailable (not_json, not_whole, records_missing)."""
    document = answer.body.removeprefix(_BOM)
    try:
        _check_json(document)
    except NOT_READ as error:
        raise _no_json(answer, document, str(error)) from None
    found = Raw(document) if rest.records is None else _dig(document, rest.records)
    place = "the answer itself" if rest.records is None else f"its field {rest.records!r}"
    if found is None:
        raise Unavailable("records_missing", f"expected records in {place}, found no such field")
    array = memoryview(found)
    kind = bytes(array[:32]).lstrip()[:1]
    single = kind == b"{" and rest.records is None
    if not single and kind not in {b"[", b"n"}:
        raise Unavailable("records_missing", f"expected an array of records in {place}, found {_sort(kind)}")
    if kind == b"n":  # null: many write an empty list so
        array = memoryview(b"[]")
    return Page(array, single, answer.links, answer.url, document)


def next_place(rest: Rest, place: Place, page: Page, records: int, hidden_parameter: str | None) -> Place | None:
    """What the page behind this one is called; None: this is the last.

    With styles offset and number the last one is empty: an API may give fewer records than it was asked for. An address
    is kept without `hidden_parameter`, which holds a secret. Raises Unavailable (not_json, redirected, too_large).
    """
    match rest.pages.style:
        case "none":
            return None
        case "offset":
            return int(place) + records if records else None
        case "number":
            return int(place) + 1 if records else None
        case "cursor":
            return _token(page, rest.pages.path or "") or None
        case "next_url":
            named = _token(page, rest.pages.path or "")
        case _:
            named = _linked(page)
    if not named:
        return None
    target = follow(page.url, named)
    if hidden_parameter is not None and hidden_parameter in target.params:
        target = target.copy_remove_param(hidden_parameter)
    return _bounded(str(target))


def _token(page: Page, path: str) -> str:
    """What a field of the answer says, as text; "" when it is absent, null or empty."""
    found = _dig(page.document, path)
    try:
        value = None if found is None else _decode_token(found)
    except NOT_READ:
        raise Unavailable(
            "not_json", f"expected text, a number or null in {path!r}, which names the next page"
        ) from None
    return _bounded("" if value is None else str(value))


def _linked(page: Page) -> str:
    """The address of the relation `next` (RFC 8288); "" when there is none."""
    relations = ((link.get("rel", "").lower().split(), link.get("url", "")) for link in page.links.values())
    return next((url for names, url in relations if "next" in names), "")


def _bounded(place: str) -> str:
    if len(place) > MAX_PLACE_CHARACTERS:
        raise Unavailable("too_large", f"what names the next page has more than {MAX_PLACE_CHARACTERS} characters")
    return place


def _dig(document: bytes, path: str) -> Raw | None:
    """The field at `path`, dots between, of a document that is JSON; None when there is none."""
    found = Raw(document)
    for name in path.split("."):
        try:
            part = _field_decoder(name)(found).value
        except NOT_READ:  # not an object
            return None
        if part is UNSET:
            return None
        found = part
    return found


@cache
def _field_decoder(name: str) -> Any:
    """Decodes one field of an object; msgspec passes over the others."""
    part = msgspec.defstruct("Part", [("value", Raw | UnsetType, UNSET)], rename={"value": name})
    return msgspec.json.Decoder(part).decode


def _no_json(answer: Answer, document: bytes, fault: str) -> Unavailable:
    """What an answer is that is no JSON; nothing of its content is told, as it may be anybody's."""
    said = answer.headers.get("content-type", "no content type")[:80]
    begins = document[:256].lstrip().lower()
    if begins.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return Unavailable("not_json", f"expected JSON, found a page of HTML ({said}, {len(document)} bytes)")
    if not document:
        return Unavailable("not_json", f"expected JSON, found nothing ({said})")
    if "truncated" in fault and begins[:1] in {b"{", b"["}:
        return Unavailable("not_whole", f"the answer ended before its end: {len(document)} bytes of JSON")
    return Unavailable("not_json", f"expected JSON ({said}, {len(document)} bytes): {fault}")


def _sort(kind: bytes) -> str:
    return {b"{": "an object", b'"': "text", b"t": "true", b"f": "false"}.get(kind, "a number")
