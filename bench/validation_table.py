"""The table of validation.py: orders, 20 columns of mixed types, of which a known few rows break the contract.

    python bench/validation_table.py make FOLDER ROWS      write table.parquet and bad.json
    python bench/validation_table.py check FOLDER [unique] Mainstay: write clean.parquet and bad.parquet
    python bench/validation_table.py verify FOLDER NAME    are these exactly the right rows, and ours the right reasons?

Each bad row breaks one to three of the rules below; bad.json says which. With `unique`, order_id has to be, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mainstay.contract.columns import compile_columns
from mainstay.contract.load import parse_contract
from mainstay.contract.tables import check_table
from mainstay.contract.tables_types import ROW, VIOLATIONS

if TYPE_CHECKING:
    from numpy.random import Generator

CHUNK_ROWS: Final = 250_000  # made at a time, and a row group
COUNTRIES: Final = ["AT", "CH", "DE", "ES", "FR", "GB", "IT", "US"]
STATES: Final = ["new", "paid", "sent", "delivered", "void"]
DAY: Final = 86_400

_CONTRACT: Final = """\
apiVersion: v3.1.0
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - {name: order_id, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1}}
      - {name: customer_id, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1, maximum: 500000}}
      - {name: store, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1, maximum: 1200}}
      - {name: quantity, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1, maximum: 100}}
      - {name: age, logicalType: integer, logicalTypeOptions: {minimum: 18, maximum: 120}}
      - {name: points, logicalType: integer, logicalTypeOptions: {minimum: 0, exclusiveMaximum: 1000000}}
      - {name: price, logicalType: number, required: true, logicalTypeOptions: {exclusiveMinimum: 0, maximum: 1000}}
      - {name: discount, logicalType: number, required: true, logicalTypeOptions: {minimum: 0, exclusiveMaximum: 1}}
      - {name: latitude, logicalType: number, logicalTypeOptions: {minimum: -90, maximum: 90}}
      - {name: longitude, logicalType: number, logicalTypeOptions: {minimum: -180, maximum: 180}}
      - {name: temperature, logicalType: number}
      - {name: sku, logicalType: string, required: true, logicalTypeOptions: {pattern: '^SKU-\\d{8}$'}}
      - name: country
        logicalType: string
        required: true
        quality: [{metric: invalidValues, arguments: {validValues: [AT, CH, DE, ES, FR, GB, IT, US]}, mustBe: 0}]
      - name: state
        logicalType: string
        required: true
        quality: [{metric: invalidValues, arguments: {validValues: [new, paid, sent, delivered, void]}, mustBe: 0}]
      - name: name
        logicalType: string
        required: true
        classification: restricted
        logicalTypeOptions: {minLength: 2, maxLength: 40}
      - {name: note, logicalType: string, logicalTypeOptions: {maxLength: 40}}
      - name: ordered
        logicalType: date
        required: true
        logicalTypeOptions: {minimum: '2015-01-01', maximum: '2026-12-31'}
      - {name: shipped, logicalType: timestamp, logicalTypeOptions: {minimum: '2015-01-01T00:00:00Z'}}
      - {name: gift, logicalType: boolean, required: true}
      - {name: newsletter, logicalType: boolean}
"""

# Column, rule, and a value that breaks it.
BREACHES: Final[tuple[tuple[str, str, Any], ...]] = (
    ("order_id", "minimum", -7),
    ("customer_id", "maximum", 500_001),
    ("customer_id", "required", None),
    ("store", "minimum", 0),
    ("quantity", "maximum", 101),
    ("age", "minimum", 17),
    ("points", "exclusive-maximum", 1_000_000),
    ("price", "exclusive-minimum", 0.0),
    ("price", "required", None),
    ("discount", "exclusive-maximum", 1.0),
    ("latitude", "maximum", 90.5),
    ("longitude", "type", float("nan")),
    ("temperature", "type", float("inf")),
    ("sku", "pattern", "SKU-1234567"),
    ("country", "valid-values", "XX"),
    ("state", "valid-values", "Paid"),
    ("name", "max-length", "ä" * 41),
    ("name", "min-length", "é"),
    ("note", "max-length", "n" * 41),
    ("ordered", "minimum", 16_400),
    ("shipped", "minimum", 1_400_000_000 * 1_000_000),
    ("gift", "required", None),
)
SHARE_BAD: Final = 0.001


def contract(*, unique: bool = False) -> bytes:
    """The contract; with `unique`, order_id occurs once."""
    text = _CONTRACT.replace("order_id, logicalType: integer,", "order_id, logicalType: integer, unique: true,")
    return (text if unique else _CONTRACT).encode()


def make(folder: Path, rows: int, seed: int = 0, *, share_bad: float = SHARE_BAD) -> None:
    """Write `table.parquet`, and `bad.json`: of each bad row, from 1, the column and rule of each breach."""
    rng = np.random.default_rng(seed)
    bad = np.sort(rng.choice(rows, max(1, int(rows * share_bad)), replace=False))
    truth: dict[int, list[tuple[str, str]]] = {}
    parts = []
    for first in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - first)
        frame = _good_rows(rng, first, count)
        frame = _spoiled(rng, frame, bad[(bad >= first) & (bad < first + count)] - first, first, truth)
        parts.append(folder / f"part{first}.parquet")
        frame.write_parquet(parts[-1], compression="snappy", row_group_size=CHUNK_ROWS)
    pl.scan_parquet(parts).sink_parquet(
        folder / "table.parquet", compression="snappy", row_group_size=CHUNK_ROWS, engine="streaming"
    )
    for part in parts:
        part.unlink()
    (folder / "bad.json").write_text(json.dumps(truth))


def _good_rows(rng: Generator, first: int, count: int) -> pl.DataFrame:
    def whole(low: int, high: int, kind: Any) -> pl.Series:
        return pl.Series(rng.integers(low, high, count)).cast(kind)

    def nullable(values: pl.Series, share: float) -> pl.Series:
        return values.scatter(np.flatnonzero(rng.random(count) < share), None)

    def texts(prefix: str, numbers: pl.Series, digits: int = 0) -> pl.Series:
        return (prefix + numbers.cast(pl.String).str.zfill(digits)).alias("")

    def chosen(values: list[str]) -> pl.Series:
        return pl.Series(values).gather(rng.integers(0, len(values), count))

    columns: dict[str, pl.Series] = {
        "order_id": pl.Series(np.arange(first + 1, first + count + 1)),
        "customer_id": whole(1, 500_001, pl.Int64),
        "store": whole(1, 1_201, pl.Int32),
        "quantity": whole(1, 101, pl.Int16),
        "age": nullable(whole(18, 121, pl.Int16), 0.1),
        "points": nullable(whole(0, 1_000_000, pl.Int64), 0.05),
        "price": pl.Series(np.round(rng.uniform(0.01, 1000, count), 2)),
        "discount": pl.Series(np.round(rng.uniform(0, 0.9, count), 3)),
        "latitude": nullable(pl.Series(rng.uniform(-90, 90, count)), 0.02),
        "longitude": nullable(pl.Series(rng.uniform(-180, 180, count)), 0.02),
        "temperature": nullable(pl.Series(rng.normal(15, 8, count)).cast(pl.Float32), 0.2),
        "sku": texts("SKU-", whole(0, 10**8, pl.Int64), 8),
        "country": chosen(COUNTRIES),
        "state": chosen(STATES),
        "name": texts("Customer ", whole(0, 3_000_000, pl.Int64)),
        "note": nullable(texts("note ", whole(0, 1_000, pl.Int64)), 0.3),
        "ordered": whole(18_000, 20_000, pl.Int32).cast(pl.Date),
        "shipped": nullable(whole(1_555_200_000, 1_728_000_000, pl.Int64) * 1_000_000, 0.15).cast(
            pl.Datetime("us", "UTC")
        ),
        "gift": pl.Series(rng.random(count) < 0.2),
        "newsletter": nullable(pl.Series(rng.random(count) < 0.5), 0.1),
    }
    return pl.DataFrame(columns)


def _spoiled(
    rng: Generator, frame: pl.DataFrame, rows: Any, first: int, truth: dict[int, list[tuple[str, str]]]
) -> pl.DataFrame:
    """The frame with one to three breaches in each of some rows."""
    places: dict[int, list[int]] = {}
    for row in rows.tolist():
        taken: set[str] = set()
        for number in rng.permutation(len(BREACHES))[: rng.integers(1, 4)].tolist():
            name, rule, _ = BREACHES[number]
            if name not in taken:
                taken.add(name)
                places.setdefault(number, []).append(row)
                truth.setdefault(first + row + 1, []).append((name, rule))
    for number, spoiled in places.items():
        name, _, value = BREACHES[number]
        physical = pl.Series([value], dtype=frame[name].to_physical().dtype)
        column = frame[name].scatter(spoiled, physical.cast(frame.schema[name])[0])
        frame = frame.with_columns(column)
    return frame


def check(folder: Path, *, unique: bool = False) -> None:
    """What is measured of Mainstay: the contract is read and compiled, the table checked, both outputs written."""
    declared = parse_contract(contract(unique=unique), "contract.yaml").schema[0]
    check_table(folder / "table.parquet", compile_columns(declared), folder / "clean.parquet", folder / "bad.parquet")


def verify(folder: Path, *, with_reasons: bool) -> None:
    """Raises SystemExit unless clean.parquet holds the right rows, in order, and bad.parquet every reason."""
    truth = {int(row): breaches for row, breaches in json.loads((folder / "bad.json").read_text()).items()}
    height = pl.scan_parquet(folder / "table.parquet").select(pl.len()).collect().item()
    kept = np.ones(height, dtype=np.bool_)
    kept[np.fromiter(truth, dtype=np.int64) - 1] = False
    table = pl.scan_parquet(folder / "table.parquet").select("order_id").collect().filter(pl.Series(kept))
    clean = pl.scan_parquet(folder / "clean.parquet").select("order_id").collect()
    if not clean.sort("order_id").equals(table.sort("order_id")):
        raise SystemExit(f"expected {table.height} clean rows, found {clean.height}, or others")
    if with_reasons:
        bad = pl.read_parquet(folder / "bad.parquet")
        found = {
            row: sorted([each["field"], each["rule"]] for each in reasons if each["rule"] != "unique")
            for row, reasons in zip(bad[ROW].to_list(), bad[VIOLATIONS].to_list(), strict=True)
        }
        expected = {row: sorted(breaches) for row, breaches in truth.items()}
        if found != expected or not clean.equals(table):
            raise SystemExit("expected exactly the breaches that were made, and the order of the rows, found others")


if __name__ == "__main__":
    where = Path(sys.argv[2])
    match sys.argv[1]:
        case "make":
            make(where, int(sys.argv[3]))
        case "check":
            check(where, unique="unique" in sys.argv[3:])
        case "verify":
            verify(where, with_reasons=sys.argv[3].startswith("mainstay"))
