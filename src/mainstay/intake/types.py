"""What the parts of the intake say to each other. No table library is loaded by it.

An item (`landing.Item`) is taken by the door (`door.Door`) in parts. Of each part the facts are told to a judge before
anything of it is written; where the judge says Hold, nothing is, and Held is raised. What was found on the way is a
Finding; codes are listed in `findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from mainstay.contract.types import Rule  # noqa: TC001 - the same
from mainstay.errors import Failed
from mainstay.intake.landing import Item  # noqa: TC001 - the same

# Columns that the tables `intake/...` and `quarantine/...` have beside those of the contract.
ITEM: Final = "mainstay_item"  # Int64: the number of the landing item a row came in
ROW: Final = "mainstay_row"  # Int64, from 1 in the item; with ITEM it names a record for good
ARRIVED_AT: Final = "mainstay_arrived_at"  # Datetime("us", "UTC"): when the item landed
ORIGIN: Final = "mainstay_origin"  # String: that of the item
CONTRACT: Final = "mainstay_contract"  # String: id@version of the contract that judged the row
DAY: Final = "mainstay_day"  # Date of arrival in UTC; the partition
# `intake/...` only.
EVENT_AT: Final = "mainstay_event_at"  # Datetime("us", "UTC"); null where the source declares none, or the row has none
LATE: Final = "mainstay_late"  # String: null, or what the source declared for late rows: join, correct or re-decide
COERCED: Final = "mainstay_coerced"  # String: JSON, the original value of each field that was coerced; else null
EXTRA: Final = "mainstay_extra"  # String: JSON, the fields that the contract does not know; else null
# `quarantine/...` only.
RAW: Final = "mainstay_raw"  # Binary: the record's bytes as they came; of a Parquet file its JSON
VIOLATIONS: Final = "mainstay_violations"  # List(Struct(field, rule, expected, found)), all texts
REASON: Final = "mainstay_reason"  # String: one of `Reason`
# The quarantine's replay writes RAW back as an item of the same kind, so a row must say how it is read:
KIND: Final = (
    "mainstay_kind"  # String: csv or jsonl, what RAW is a record of (of a Parquet file jsonl: RAW is its JSON)
)
HEADER: Final = "mainstay_header"  # String: of a CSV row JSON, [delimiter, name of a column, ...]; of any other null

REPLAY_OF: Final = "replay of "  # begins the origin of what came out of quarantine again
DOOR_WRITER: Final = "door"  # as the tables' commits name it
ROW_BITS: Final = 32  # of its position: how many rows of the item are done; what is above is the item

Reason: TypeAlias = Literal["rules", "late", "repeated", "unreadable", "refused"]


def item_of(position: int | None) -> int:
    """The item that the door is in, or has come to the end of, by its position; 0 before the first."""
    return (position or 0) >> ROW_BITS


def intake_table(capability: str, source: str) -> str:
    """The name of the table of accepted rows."""
    return f"intake/{capability}/{source}"


def quarantine_table(capability: str, source: str) -> str:
    """The name of the table of rows that were not accepted."""
    return f"quarantine/{capability}/{source}"


def settled_table(capability: str, source: str) -> str:
    """The name of the table that says what became of quarantined rows."""
    return f"settled/{capability}/{source}"


class Finding(Struct, frozen=True):
    """Something that was not as it should be."""

    code: str  # of the closed list in `findings`
    detail: str  # for people; holds no secret, and no value that the contract classifies
    count: int = 1  # of rows, where it is about rows
    item: int | None = None  # the number of the item it was found in
    field: str | None = None  # of the contract or the source, where it is about one


class BrokenRule(Struct, frozen=True):
    """How many rows of a part break one rule at one field. Items of an array count together, as `lines[].sku`."""

    field: str
    rule: Rule
    rows: int


class PartFacts(Struct, frozen=True, kw_only=True):
    """What the door found of some consecutive rows of an item, before anything of them is written."""

    item: Item
    contract: str  # id@version
    first_row: int  # in the item, from 1
    rows: int
    last: bool  # whether the item ends with them
    columns: dict[str, str]  # as they came; types of Polars, of CSV `text`, of JSON as in `integer|null`
    unknown: tuple[str, ...]  # columns that the contract does not know
    missing: tuple[str, ...]  # fields of the contract that no row has
    accepted: int  # the coerced and late ones among them
    coerced: int
    quarantined: int  # for any reason
    late: int  # whatever became of them
    repeated: int  # known records that came again and were counted, not kept
    broken: tuple[BrokenRule, ...]  # by frequency, at most 1000
    bad: Sequence[int]  # the numbers in the item, in order, of the rows that broke a rule
    newest_event_at: datetime | None  # of these rows
    watermark: datetime | None  # behind which a row is late, once these rows are taken
    rejected: bool = False  # the item is no file of its kind: it is one quarantined row


class Hold(Struct, frozen=True):
    """Why a source stops at the door. Its items stay where they landed."""

    code: str  # of the closed list in `findings`
    reason: str  # for people
    fallback: bool = True  # whether the capability goes to its fallback until the source is released


Judge: TypeAlias = Callable[[PartFacts], Hold | None]


class Taken(Struct, frozen=True, kw_only=True):
    """What became of an item, or of the part of it that was taken. rows = accepted + quarantined + repeated."""

    item: int
    rows: int
    accepted: int  # the coerced and late ones among them
    coerced: int
    quarantined: int
    late: int
    repeated: int
    findings: tuple[Finding, ...] = ()
    rejected: bool = False


class Held(Failed):
    """The judge held a part: of it and of what follows in the item nothing was written."""

    def __init__(self, hold: Hold, taken: Taken) -> None:
        """`taken` is what became of the parts of the item before it."""
        super().__init__(
            f"item {taken.item}: held at row {taken.rows + 1}: {hold.reason}",
            hint="Nothing is lost: what came stays where it landed. Release the source when the cause is mended.",
        )
        self.hold = hold
        self.taken = taken
