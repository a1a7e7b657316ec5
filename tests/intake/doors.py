"""Doors to try: a contract, items in a landing, and what the tables hold afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.capability.sources import Push, Source
from mainstay.contract.load import parse_contract
from mainstay.intake.door import Door
from mainstay.intake.landing import landing_of
from mainstay.intake.types import ROW, intake_table, quarantine_table
from mainstay.lake.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from mainstay.contract.types import Contract
    from mainstay.intake.landing import Item, Kind, Landing
    from mainstay.intake.types import Judge

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - {name: id, logicalType: integer, required: true, logicalTypeOptions: {minimum: 0}}
      - {name: amount, logicalType: number, logicalTypeOptions: {maximum: 1000}}
      - {name: note, logicalType: string}
      - {name: at, logicalType: timestamp}
"""


def contract(text: str = CONTRACT) -> Contract:
    return parse_contract(text.encode(), "contract.yaml")


def source(**given: Any) -> Source:
    return Source(name="orders", push=Push(), **given)


class Feed:
    """A landing, and the door behind it."""

    def __init__(self, home: Path, declared: Source | None = None, judge: Judge | None = None) -> None:
        self.home = home
        self.source = declared or source()
        self.judge = judge
        self.lake = Lake(home / "lake")

    @property
    def landing(self) -> Landing:
        return landing_of(self.home, "shop", "orders")

    def land(self, content: bytes, kind: Kind = "jsonl", **given: Any) -> Item:
        with self.landing.begin(kind) as draft:
            draft.file.write(content)
            return draft.land(origin="a test", **given)

    def land_records(self, *records: dict[str, Any], **given: Any) -> Item:
        return self.land(b"".join(msgspec.json.encode(each) + b"\n" for each in records), **given)

    def door(self, text: str = CONTRACT) -> Door:
        made = contract(text)
        return Door(self.lake, "shop", self.source, made, made.schema[0], judge=self.judge)

    def take(self, item: Item, text: str = CONTRACT) -> Any:
        return self.door(text).take(item, self.landing.path(item))

    def accepted(self) -> pl.DataFrame:
        return self.lake.table(intake_table("shop", "orders")).frame().sort("mainstay_item", ROW).collect()

    def quarantined(self) -> pl.DataFrame:
        return self.lake.table(quarantine_table("shop", "orders")).frame().sort("mainstay_item", ROW).collect()
