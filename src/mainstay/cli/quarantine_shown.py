"""What `mainstay quarantine` says: facts for programs, and lines for people."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mainstay.cli.common import columns
from mainstay.documents import shorten
from mainstay.intake.quarantine import without_numbers
from mainstay.intake.types import ARRIVED_AT, CONTRACT, HEADER, ITEM, KIND, ORIGIN, RAW, REASON, ROW, VIOLATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.intake.quarantine import Group, Grouped, Quarantine
    from mainstay.intake.quarantine_masks import Masks
    from mainstay.intake.quarantine_settling import Done, Intention
    from mainstay.intake.quarantine_trial import Trial

_SHOWN: Final = 100  # characters of an example


def list_facts(
    source: str, grouped: Grouped, groups: list[dict[str, Any]], under_way: Intention | None
) -> dict[str, Any]:
    """The open rows of a source."""
    hidden = grouped.groups[len(groups) :]
    return {
        "source": source,
        "open_rows": grouped.rows,
        "groups": groups,
        "more_groups": len(hidden),
        "more_rows": sum(group.rows for group in hidden) + grouped.uncounted,
        "under_way": None if under_way is None else {"how": under_way.how, "rows": under_way.rows, "at": under_way.at},
    }


def group_facts(quarantine: Quarantine, masks: Masks, group: Group) -> dict[str, Any]:
    """One rule, with a few rows that break it."""
    held = quarantine.rows(group.examples)
    examples = []
    for place in group.examples:
        row = held[place]
        broken = next((each for each in row[VIOLATIONS] or () if _is_of(group, each)), None)
        examples.append(
            {
                "item": place[0],
                "row": place[1],
                "expected": None if broken is None else broken["expected"],
                "found": None if broken is None else masks.found(broken["field"], broken["found"]),
                "record": shorten(masks.raw(row[KIND], row[HEADER], row[RAW]), _SHOWN),
            }
        )
    return {**group._asdict(), "examples": examples}


def _is_of(group: Group, violation: dict[str, str]) -> bool:
    return violation["rule"] == group.rule and without_numbers(violation["field"]) == group.field


def list_lines(name: str, facts: dict[str, Any]) -> Iterator[str]:
    """The open rows of a source, for people."""
    source = facts["source"]
    if under_way := facts["under_way"]:
        yield (
            f"{name} {source}: {counted(under_way['rows'], 'row')} are being {under_way['how']}, or were when that was"
            " stopped; the next replay or discard finishes it"
        )
    if not facts["open_rows"]:
        return
    yield f"{name} {source}: {counted(facts['open_rows'], 'open row')} in quarantine"
    head = ["ROWS", "ITEMS", "FIELD", "RULE", "CONTRACT", "ARRIVED"]
    table = columns([head, *map(_group_row, facts["groups"])])
    yield f"  {table[0]}"
    for line, group in zip(table[1:], facts["groups"], strict=True):
        yield f"  {line}"
        for each in group["examples"]:
            said = "" if each["found"] is None else f"expected {each['expected']}, found {each['found']}; "
            yield f"      {each['item']}:{each['row']}  {said}{each['record']}"
    if facts["more_groups"] or facts["more_rows"]:
        yield f"  and {facts['more_rows']:,} rows by further rules; see them with --limit"


def _group_row(group: dict[str, Any]) -> list[str]:
    oldest, newest = _short(group["oldest"]), _short(group["newest"])
    arrived = oldest if oldest == newest else f"{oldest} to {newest}"
    return [f"{group['rows']:,}", f"{group['items']:,}", group["field"], group["rule"], group["contract"], arrived]


def row_facts(quarantine: Quarantine, masks: Masks, row: dict[str, Any]) -> dict[str, Any]:
    """One row, whole."""
    item, number = row[ITEM], row[ROW]
    first = quarantine.first_of(item, number)
    before = None if first is None else quarantine.row(*first)
    fate = quarantine.fate(item, number)
    return {
        "item": item,
        "row": number,
        "origin": row[ORIGIN],
        "arrived_at": row[ARRIVED_AT],
        "contract": row[CONTRACT],
        "reason": row[REASON],
        "violations": [{**each, "found": masks.found(each["field"], each["found"])} for each in row[VIOLATIONS] or ()],
        "kind": row[KIND],
        "record": masks.raw(row[KIND], row[HEADER], row[RAW]),
        "masked": masks.hides,
        "raw_base64": None if masks.hides else base64.b64encode(row[RAW]).decode(),
        "came_first": None
        if first is None or before is None
        else {"item": first[0], "row": first[1], "origin": before[ORIGIN], "arrived_at": before[ARRIVED_AT]},
        "became": None if fate is None else fate._asdict(),
    }


def row_lines(facts: dict[str, Any]) -> list[str]:
    """One row, for people."""
    lines = [
        ("row", f"{facts['item']}:{facts['row']}"),
        ("origin", facts["origin"]),
        ("arrived", _short(facts["arrived_at"])),
        ("contract", facts["contract"]),
        ("reason", facts["reason"]),
    ]
    if first := facts["came_first"]:
        came = f"as {first['item']}:{first['row']}, {_short(first['arrived_at'])}, {first['origin']}"
        lines.append(("came first", came))
    lines += [
        ("broken", f"{each['field']} {each['rule']}: expected {each['expected']}, found {each['found']}")
        for each in facts["violations"]
    ]
    lines.append(("record", facts["record"]))
    if facts["masked"]:
        lines.append(("", "classified values are masked; see all with --unmasked"))
    lines.append(("became", _became(facts["became"])))
    return [f"{name:<12} {value}" for name, value in lines]


def _became(fate: dict[str, Any] | None) -> str:
    if fate is None:
        return "open"
    said = f"{fate['how']} {_short(fate['at'])} by {fate['by']}: {fate['reason']}; recorded as {fate['entry']}"
    if fate["into_item"] is None:
        return said
    then = {
        "accepted": "and accepted",
        "held": "and in quarantine again",
        None: "which has not come through the door, or was known already",
    }[fate["verdict"]]
    return f"{said}; as {fate['into_item']}:{fate['into_row']}, {then}"


def trial_lines(trial: Trial) -> Iterator[str]:
    """What a replay would come to, for people."""
    yield f"under {trial.contract}, of {counted(trial.rows, 'open row')}:"
    rows = [
        ("would pass", trial.accepted, f", {trial.coerced:,} of them coerced" if trial.coerced else ""),
        ("known", trial.repeated, ", and not kept twice"),
        ("would not", trial.quarantined, ""),
        ("unreadable", trial.skipped, "; they stay where they are: discard them"),
    ]
    for name, count, more in rows:
        if count or name == "would pass":
            yield f"  {name:<14} {count:,}{more}"
    for broken in trial.broken:
        yield f"      {broken.rows:,}  {broken.field}:{broken.rule}"


def done_lines(done: Done, name: str, source: str) -> Iterator[str]:
    """What became of rows, for people."""
    facts = [(done.how, counted(done.rows, "row")), ("recorded as", done.entry)]
    if done.items:
        numbers = ", ".join(map(str, done.items))
        facts.append(("waits as", f"item {numbers}, for the door; or run: mainstay intake run {name} {source}"))
    if done.skipped:
        facts.append(("left open", f"{counted(done.skipped, 'row')} that no contract can read"))
    for what, value in facts:
        yield f"{what:<12} {value}"


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _short(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
