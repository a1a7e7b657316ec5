"""Whether what a declaration says of its sources and scheduled batches fits together, and fits its contract.

Each check reports at the place of the key that is wrong, as those of `checks` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mainstay.capability.checks import check_property, one_of
from mainstay.documents import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mainstay.capability.sources import Files, Pages, RestAuth, ScheduledBatch, Secret, Source
    from mainstay.capability.types import Capability
    from mainstay.contract.types import SchemaObject
    from mainstay.documents import Place

KINDS: Final = ("rest", "sql", "files", "push")
ASKED: Final = ("rest", "sql")  # kinds that are asked again and again for what may have been given before
SECRETS: Final = ("variable", "file")
AUTHS: Final = ("bearer", "api_key", "oauth2")
KEYED: Final[Mapping[str, tuple[str, ...]]] = {"repeated": ("correct", "quarantine"), "late": ("correct",)}
TIMED: Final = ("correct", "ignore", "re-decide")  # ways with late rows, which are known by their event time
PAGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "path": ("next_url", "cursor"),
    "parameter": ("cursor", "offset", "number"),
    "first": ("number",),
}  # the styles that have each key
DELIMITED: Final = ("csv",)

KEY_TYPES: Final = ("string", "integer", "number", "boolean", "date", "timestamp", "time")
CURSOR_TYPES: Final = ("string", "integer", "number", "date", "timestamp")
TIME_TYPES: Final = ("date", "timestamp")


def check_sources(place: Place, capability: Capability) -> None:
    """What holds whatever the contract says. `place` is that of the declaration."""
    sources, batches = place.at("sources"), place.at("batches")
    _check_names(sources, [each.name for each in capability.sources])
    _check_names(batches, [each.name for each in capability.batches])
    for i, source in enumerate(capability.sources):
        _check_source(sources.at(i), source)
    for i, batch in enumerate(capability.batches):
        _check_batch(batches.at(i), batch, capability)


def check_source_objects(place: Place, capability: Capability, objects: Mapping[str, SchemaObject | None]) -> None:
    """Sources give records of objects of the contract, and name properties of them."""
    for i, source in enumerate(capability.sources):
        here = place.at("sources", i)
        if source.object is not None and source.object not in objects:
            here.at("object").add(one_of("object", "the contract", source.object, objects), describe(source.object))
            continue
        described = objects.get(object_of(source, capability))
        if described is None:
            continue  # its problem has been told
        if not described.properties:
            here.add("an object with properties", f"{describe(described.name)}, which has none", "object")
            continue
        _check_properties(here, source, described)
    given = {each.name: objects.get(object_of(each, capability)) for each in capability.sources}
    taken = objects.get(capability.objects.input)
    for i, batch in enumerate(capability.batches):
        described = given.get(batch.source)
        if described is not None and described.properties and taken is not None:
            _check_rows(place.at("batches", i), batch, described, taken)


def object_of(source: Source, capability: Capability) -> str:
    """The object of the contract that the records of a source are."""
    return source.object or capability.objects.input


def _check_names(place: Place, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            place.at(i).add("a name that no other has", describe(name), "name")


def _check_source(place: Place, source: Source) -> None:
    given = _exactly_one(place, source, KINDS)
    if source.cursor is not None and not set(given) & set(ASKED):
        place.add(f"no such key; it belongs to {' and '.join(ASKED)}", describe(source.cursor), "cursor")
    if set(given) & set(ASKED) and source.cursor is None and not source.key:
        place.add("cursor or key beside it, as each time every record comes again", "neither")
    if source.rest is not None:
        _check_rest(place, source)
    if source.sql is not None:
        _check_secret(place.at("sql", "url"), source.sql.url)
        _check_columns(place.at("sql", "columns"), source)
    if source.files is not None:
        _check_delimiter(place.at("files"), source.files)
    _check_keyed(place, source)
    silent = source.expected_within_seconds
    if silent is not None and source.push is None and silent < source.every_seconds:
        expected = f"at least every_seconds, which is {source.every_seconds:g}"
        place.add(expected, f"{silent:g}", "expected_within_seconds")


def _check_delimiter(place: Place, files: Files) -> None:
    if files.delimiter is None:
        return
    if files.format not in {None, *DELIMITED}:
        place.add(f"no such key with format {files.format}", describe(files.delimiter), "delimiter")
    if not files.delimiter.isascii() or files.delimiter in '\r\n"':
        place.add("an ASCII character that is neither a quote nor a line break", describe(files.delimiter), "delimiter")


def _check_keyed(place: Place, source: Source) -> None:
    """Ways with records that need their key, or their event time."""
    if len(set(source.key)) < len(source.key):
        place.add("each property once", ", ".join(source.key), "key")
    for name, ways in KEYED.items():
        if getattr(source, name) in ways and not source.key:
            place.add("key beside it, by which the row that it corrects is known", getattr(source, name), name)
    if source.event_time is None:
        if source.late in TIMED:
            place.add("event_time beside it, as no row is late without", source.late, "late")
        if source.allowed_lateness_seconds:
            found = f"{source.allowed_lateness_seconds:g}"
            place.add("event_time beside it, as no row is late without", found, "allowed_lateness_seconds")


def _check_rest(place: Place, source: Source) -> None:
    rest, here = source.rest, place.at("rest")
    if rest is None:
        return
    if rest.cursor_parameter is not None and source.cursor is None:
        here.add("cursor beside rest, whose greatest value it gives", rest.cursor_parameter, "cursor_parameter")
    if source.cursor is not None and rest.cursor_parameter is None:
        here.add("the parameter that asks for records from the cursor on", "nothing", "cursor_parameter")
    _check_pages(here.at("pages"), rest.pages)
    if rest.auth is not None:
        _check_auth(here.at("auth"), rest.auth)


def _check_pages(place: Place, pages: Pages) -> None:
    written = place.value.data if isinstance(place.value.data, dict) else {}
    for key, styles in PAGE_KEYS.items():
        if key in written and pages.style not in styles and getattr(pages, key) is not None:
            belongs = f"no such key with style {pages.style}; it belongs to {', '.join(styles)}"
            place.add(belongs, describe(place.at(key).value.data), key)
    if pages.style in PAGE_KEYS["path"] and pages.path is None:
        place.add(f"this key, which style {pages.style} needs", "nothing", "path")


def _check_auth(place: Place, auth: RestAuth) -> None:
    _exactly_one(place, auth, AUTHS)
    if auth.bearer is not None:
        _check_secret(place.at("bearer"), auth.bearer)
    if auth.api_key is not None:
        _check_secret(place.at("api_key", "key"), auth.api_key.key)
    if auth.oauth2 is not None:
        _check_secret(place.at("oauth2", "client_id"), auth.oauth2.client_id)
        _check_secret(place.at("oauth2", "client_secret"), auth.oauth2.client_secret)


def _check_secret(place: Place, secret: Secret) -> None:
    _exactly_one(place, secret, SECRETS)


def _exactly_one(place: Place, struct: object, names: Iterable[str]) -> list[str]:
    """Which of the keys are given; a problem where it is none or several."""
    given = [name for name in names if getattr(struct, name) is not None]
    if len(given) != 1:
        place.add(f"exactly one of {', '.join(names)}", ", ".join(given) or "none of them")
    return given


def _check_columns(place: Place, source: Source) -> None:
    """What the source is known by is among the columns that are taken."""
    columns = source.sql.columns if source.sql is not None else ()
    if len(set(columns)) < len(columns):
        place.add("each column once", ", ".join(columns))
    needed = (*source.key, *filter(None, (source.cursor, source.event_time)))
    for name in dict.fromkeys(needed) if columns else ():
        if name not in columns:
            place.add("cursor, key and event_time among them", f"no {describe(name)}")


def _check_properties(place: Place, source: Source, described: SchemaObject) -> None:
    for i, name in enumerate(source.key):
        check_property(place.at("key", i), name, described, "object", KEY_TYPES)
    if source.cursor is not None:
        check_property(place.at("cursor"), source.cursor, described, "object", CURSOR_TYPES)
    if source.event_time is not None:
        check_property(place.at("event_time"), source.event_time, described, "object", TIME_TYPES)


def _check_batch(place: Place, batch: ScheduledBatch, capability: Capability) -> None:
    sources = [each.name for each in capability.sources]
    if batch.source not in sources:
        place.add(one_of("source", "this declaration", batch.source, sources), describe(batch.source), "source")


def _check_rows(place: Place, batch: ScheduledBatch, given: SchemaObject, taken: SchemaObject) -> None:
    """The rows of the source have what the input needs; what they have beside it is left out."""
    names = {each.name for each in given.properties}
    lacking = [each.name for each in taken.properties if each.required and each.name not in names]
    if lacking:
        needs = f"a source whose records have what the input {taken.name} needs"
        place.add(needs, f"{describe(given.name)}, without {', '.join(lacking[:5])}", "source")
    if batch.key is not None:
        check_property(place.at("key"), batch.key, given, "object", KEY_TYPES)
