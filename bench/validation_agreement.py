"""Are both executions of a contract one? Random contracts, random tables, every row also as a JSON record.

    python bench/validation_agreement.py RECORDS [SEED]

A row's JSON is read by the record validator (fast path and walk), its columns by the column validator; both must tell
the same violations of the same rows. Ends with 1 at the first that differs, and shows it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.columns import compile_columns
from mainstay.contract.columns_records import plain
from mainstay.contract.load import parse_contract
from mainstay.contract.validator import compile_object
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.types import SchemaObject

    Make = Callable[[random.Random], Any]

ROWS: Final = 2_000  # of a table
COLUMNS: Final = 3
DEPTH: Final = 2  # of objects and arrays
NULL_SHARE: Final = 0.1

_EPOCH_SECONDS: Final = 1_704_067_200  # 2024-01-01
_TEXTS: Final = (
    "", "a", "ab", "abc", "ABC1", "abc-123", "é", "日本", "x@example.com", "x@y", "10.0.0.1", "::1", "example.com",
    "http://e.com/a",
    "123e4567-e89b-12d3-a456-426614174000", "2024-02-29", "2023-02-29", "2024-01-01T00:00:00Z",
    "2024-01-01T00:00:00", "12:00:00",
    "2024-01-01T05:30:00.123+05:30", "11:59:59.999Z", "two\nlines", "tab\t", "٣",
)  # fmt: skip  # one a line would fill a page
_PATTERNS: Final = (
    "^a",
    "c$",
    r"^[A-Z]{3}\d$",
    r"\w+-\d+",
    "(?i)^ABC",
    r"^\S*$",
    "^.{1,3}$",
    "(?=.*c)a",
    "[^a-z]",
    r"\bab",
)
_FORMATS: Final = ("email", "uuid", "uri", "hostname", "ipv4", "ipv6")
_BOUNDS: Final = (-3, -0.5, 0, 0.5, 1, 2, 7, 10, 100, 1e6)


def agree(records: int, seed: int) -> Counter[str]:
    """Hold so many records to both validators, and count what was found. SystemExit at the first difference."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    while counts["records"] < records:
        declared = _contract(chance)
        if declared is None:
            counts["contracts that say what they may not"] += 1
            continue
        _hold(declared, _table(chance, declared), counts)
    return counts


def _hold(declared: SchemaObject, table: pl.DataFrame, counts: Counter[str]) -> None:
    by_record, by_column = compile_object(declared), compile_columns(declared)
    checked = by_column.check(table)
    found = dict(zip(checked.bad_rows, checked.violations, strict=True))
    for number, record in enumerate(_records(table, by_column)):
        try:
            raw = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError):  # no JSON: only the walk can be asked
            expected = by_record.check(record)
        else:
            expected = by_record.violations(raw)
        if found.get(number, ()) != expected:
            print(
                f"a difference\n{declared}\n{table[number].to_dicts()}\n{expected}\n{found.get(number)}",
                file=sys.stderr,
            )
            raise SystemExit(1)
        counts["records"] += 1
        counts["bad records"] += bool(expected)
        counts.update(f"rule {violation.rule}" for violation in expected)
    counts["contracts"] += 1


def _records(table: pl.DataFrame, validator: ColumnValidator) -> list[dict[str, Any]]:
    nodes = dict(validator.nodes)
    columns = [plain(table[name], nodes.get(name)) for name in table.columns]
    return [
        {name: value for name, value in zip(table.columns, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


# Contracts


def _contract(chance: random.Random) -> SchemaObject | None:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "draft",
        "schema": [{"name": "thing", "properties": _properties(chance, COLUMNS, DEPTH)}],
    }
    try:
        return parse_contract(json.dumps(document).encode(), "contract.yaml").schema[0]
    except InvalidDocument:
        return None


def _properties(chance: random.Random, count: int, depth: int) -> list[dict[str, Any]]:
    return [{"name": f"p{i}", **_property(chance, depth)} for i in range(count)]


def _property(chance: random.Random, depth: int) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "date", "timestamp", "time"] + ["object", "array"] * (depth > 0)
    kind = chance.choice(kinds)
    made: dict[str, Any] = {"logicalType": kind, "required": chance.random() < 0.1}
    made["logicalTypeOptions"] = _options(chance, kind)
    if kind == "object":
        made["properties"] = _properties(chance, 3, depth - 1)
    if kind == "array":
        made["items"] = _property(chance, depth - 1)
    if kind in {"string", "integer", "number"} and chance.random() < 0.15:
        valid = {"string": _TEXTS[1:9], "integer": range(12), "number": [0.5, 1, 2.25, 7]}[kind]
        made["quality"] = [{"metric": "invalidValues", "arguments": {"validValues": [*valid]}, "mustBe": 0}]
    if chance.random() < 0.1:
        made["classification"] = "restricted"
    return made


def _options(chance: random.Random, kind: str) -> dict[str, Any]:
    def some(**options: Any) -> dict[str, Any]:
        return {name: value for name, value in options.items() if chance.random() < 0.15}

    low, high = sorted(chance.sample(_BOUNDS, 2))
    match kind:
        case "string":
            lengths = {"minLength": chance.randrange(3), "maxLength": chance.randrange(3, 12)}
            return some(**lengths, pattern=chance.choice(_PATTERNS), format=chance.choice(_FORMATS))
        case "integer":
            name = f"{chance.choice('iu')}{chance.choice((8, 16, 32, 64, 128))}"
            return some(minimum=low, exclusiveMaximum=high, multipleOf=chance.choice((2, 3, 0.5, 1.5)), format=name)
        case "number":
            return some(
                exclusiveMinimum=low, maximum=high, multipleOf=chance.choice((0.1, 0.01, 0.25, 3)), format="f32"
            )
        case "date":
            return some(minimum="2023-12-30", exclusiveMaximum="2024-01-05")
        case "timestamp":
            zone = chance.choice((True, False))
            return some(exclusiveMinimum="2023-12-31T23:59:59.5Z", maximum="2024-01-02T00:00:00+01:00", timezone=zone)
        case "time":
            return some(minimum="11:59:59.999", maximum="13:00:00+01:00", timezone=chance.choice((True, False)))
        case "array":
            return some(minItems=1, maxItems=3, uniqueItems=True)
        case "object":
            return some(minProperties=1, maxProperties=2, required=[f"p{chance.randrange(3)}"])
    return {}


# Tables


def _table(chance: random.Random, declared: SchemaObject) -> pl.DataFrame:
    columns = [_column(chance, each, ROWS).alias(each.name) for each in declared.properties if chance.random() < 0.95]
    if chance.random() < 0.1 or not columns:
        columns.append(pl.Series("extra", [chance.choice((None, None, 1)) for _ in range(ROWS)], dtype=pl.Int8))
    return pl.DataFrame(columns)


def _column(chance: random.Random, declared: Any, rows: int) -> pl.Series:
    kind = declared.logical_type
    if chance.random() < 0.03:
        kind = chance.choice(list(_TYPES))
    if kind == "object" and declared.properties:
        inner = [_column(chance, each, rows).alias(each.name) for each in declared.properties if chance.random() < 0.9]
        if inner:
            return _holed(chance, pl.DataFrame(inner).to_struct("s"))
    if kind == "array" and declared.items is not None:
        items = _column(chance, declared.items, rows * 2).alias("it").to_frame().with_row_index("row")
        pairs = items.group_by(pl.col("row") // 2, maintain_order=True).agg("it")
        sizes = pl.Series("size", [chance.randrange(3) for _ in range(rows)])
        return _holed(chance, pairs.with_columns(sizes).select(pl.col("it").list.head("size")).to_series())
    types = _TYPES.get(kind, _TYPES["string"])
    dtype, make = chance.choice(types)
    values = [None if chance.random() < NULL_SHARE else make(chance) for _ in range(rows)]
    made = pl.Series(values, dtype=_PHYSICAL.get(type(dtype), dtype), strict=True)
    return made if made.dtype == dtype else made.cast(dtype)


def _holed(chance: random.Random, series: pl.Series) -> pl.Series:
    present = pl.Series("present", [chance.random() >= NULL_SHARE for _ in range(len(series))])
    return pl.DataFrame([present, series.alias("it")]).select(pl.when("present").then("it")).to_series()


def _integers(low: int, high: int) -> Make:
    near = (low, high, -1, 0, 1, 2**53 + 1, 2**31, 2**63 - 1)
    edges = [n for n in near if low <= n <= high]
    return lambda chance: chance.choice(edges) if chance.random() < 0.1 else chance.randrange(max(low, -5), 13)


def _double(chance: random.Random) -> float:
    if chance.random() < 0.05:
        return chance.choice(
            (float("nan"), float("inf"), -0.0, 1e300, 5e-324, 2.0**53 + 2, 0.30000000000000004, 1e15 + 0.3)
        )
    return chance.choice((float(chance.randrange(-3, 12)), chance.randrange(-300, 1200) / 100, chance.uniform(-5, 15)))


def _moments(per_second: int) -> Make:
    def make(chance: random.Random) -> int:
        days, shift = chance.randrange(-4, 8), chance.choice((0, 0, -1, 1, chance.randrange(86_400 * per_second)))
        far = chance.random() < 0.02
        return (_EPOCH_SECONDS + days * 86_400) * per_second + shift if not far else chance.randrange(-(2**62), 2**62)

    return make


def _text(chance: random.Random) -> str:
    if chance.random() < 0.7:
        return chance.choice(_TEXTS)
    return "".join(chance.choices("abcABC123-_. é\n@:", k=chance.randrange(8)))


def _dated_text(chance: random.Random) -> str:
    second = (
        f"{chance.randrange(22, 25):02}:{chance.randrange(60):02}:59{chance.choice(('', '.5', '.999999999', '.500'))}"
    )
    offset = chance.choice(("Z", "z", "+01:00", "-00:30", "", "+24:00"))
    day = f"{chance.choice((2023, 2024))}-{chance.choice((12, 1, 2, 13)):02}-{chance.randrange(1, 33):02}"
    return chance.choice((day, f"{day}T{second}{offset}", f"{second}{offset}", chance.choice(_TEXTS)))


_WHOLE: Final = [
    (pl.Int8(), _integers(-128, 127)), (pl.Int32(), _integers(-(2**31), 2**31 - 1)),
    (pl.Int64(), _integers(-(2**63), 2**63 - 1)),
    (pl.UInt8(), _integers(0, 255)), (pl.UInt64(), _integers(0, 2**64 - 1)),
    (pl.Int128(), _integers(-(2**127), 2**127 - 1)),
]  # fmt: skip  # a table of pairs
_FLOATS: Final = [(pl.Float64(), _double), (pl.Float32(), lambda chance: chance.randrange(-300, 1200) / 64)]
_TEXT: Final = [(pl.String(), _text), (pl.Categorical(), _text)]
_DATETIMES: Final = [
    (pl.Datetime("ms"), _moments(10**3)),
    (pl.Datetime("us"), _moments(10**6)),
    (pl.Datetime("us", "UTC"), _moments(10**6)),
]
_TYPES: Final[dict[Any, list[tuple[pl.DataType, Make]]]] = {
    "string": [*_TEXT, (pl.String(), _dated_text)],
    "integer": [*_WHOLE, *_FLOATS],
    "number": [*_FLOATS, *_FLOATS, *_WHOLE],
    "boolean": [(pl.Boolean(), lambda chance: chance.random() < 0.5)],
    "date": [(pl.Date(), lambda chance: 19_723 + chance.randrange(-5, 9)), (pl.String(), _dated_text), *_DATETIMES],
    "timestamp": [*_DATETIMES, (pl.String(), _dated_text)],
    "time": [
        (pl.Time(), lambda chance: chance.randrange(86_400) * 10**9 + chance.randrange(10**9)),
        (pl.String(), _dated_text),
    ],
}
_PHYSICAL: Final[dict[Any, Any]] = {
    pl.Date: pl.Int32,
    pl.Datetime: pl.Int64,
    pl.Time: pl.Int64,
    pl.Categorical: pl.String,
}


def main() -> int:
    begun = time.process_time()
    counts = agree(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for name, count in sorted(counts.items(), key=lambda each: (each[0].startswith("rule"), -each[1])):
        print(f"{count:12,}  {name}")
    print(f"both agree on every record ({time.process_time() - begun:.0f} s of CPU)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
