"""Other validators over the table of validation_table.py; runs in an environment of its own, which validation.py makes.

    python bench/validation_peers.py NAME FOLDER

Each writes `clean.parquet`, and `bad.parquet` with the reasons of each row as far as it gives them, into FOLDER, as a
careful user of it would.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

COUNTRIES = ["AT", "CH", "DE", "ES", "FR", "GB", "IT", "US"]
STATES = ["new", "paid", "sent", "delivered", "void"]
FIRST_DAY, LAST_DAY = date(2015, 1, 1), date(2026, 12, 31)
FIRST_MOMENT = datetime(2015, 1, 1, tzinfo=UTC)
REQUIRED = (
    "order_id",
    "customer_id",
    "store",
    "quantity",
    "price",
    "discount",
    "sku",
    "country",
    "state",
    "name",
    "ordered",
    "gift",
)


def rules() -> dict[str, pl.Expr]:
    """The contract's rules, as expressions that are true of right values and null of absent ones."""
    c = pl.col
    return {
        "order_id minimum": c("order_id") >= 1,
        "customer_id minimum": c("customer_id") >= 1,
        "customer_id maximum": c("customer_id") <= 500_000,
        "store minimum": c("store") >= 1,
        "store maximum": c("store") <= 1_200,
        "quantity minimum": c("quantity") >= 1,
        "quantity maximum": c("quantity") <= 100,
        "age minimum": c("age") >= 18,
        "age maximum": c("age") <= 120,
        "points minimum": c("points") >= 0,
        "points exclusive-maximum": c("points") < 1_000_000,
        "price exclusive-minimum": c("price") > 0,
        "price maximum": c("price") <= 1_000,
        "price type": c("price").is_finite(),
        "discount minimum": c("discount") >= 0,
        "discount exclusive-maximum": c("discount") < 1,
        "discount type": c("discount").is_finite(),
        "latitude minimum": c("latitude") >= -90,
        "latitude maximum": c("latitude") <= 90,
        "latitude type": c("latitude").is_finite(),
        "longitude minimum": c("longitude") >= -180,
        "longitude maximum": c("longitude") <= 180,
        "longitude type": c("longitude").is_finite(),
        "temperature type": c("temperature").is_finite(),
        "sku pattern": c("sku").str.contains(r"^SKU-[0-9]{8}$"),
        "country valid-values": c("country").is_in(COUNTRIES),
        "state valid-values": c("state").is_in(STATES),
        "name min-length": c("name").str.len_chars() >= 2,
        "name max-length": c("name").str.len_chars() <= 40,
        "note max-length": c("note").str.len_chars() <= 40,
        "ordered minimum": c("ordered") >= FIRST_DAY,
        "ordered maximum": c("ordered") <= LAST_DAY,
        "shipped minimum": c("shipped") >= FIRST_MOMENT,
        **{f"{name} required": c(name).is_not_null() for name in REQUIRED},
    }


def by_polars(folder: Path) -> None:
    """Plain expressions over the whole table in memory."""
    tests = rules()
    frame = pl.read_parquet(folder / "table.parquet")
    kept = frame.select([test.fill_null(value=True).alias(name) for name, test in tests.items()])
    good = kept.select(pl.all_horizontal(pl.all())).to_series()
    frame.filter(good).write_parquet(folder / "clean.parquet", compression="lz4")
    broken = [pl.when(~pl.col(name)).then(pl.lit(name)) for name in tests]
    reasons = kept.filter(~good).select(pl.concat_list(broken).list.drop_nulls().alias("reasons"))
    frame.filter(~good).hstack(reasons).write_parquet(folder / "bad.parquet")


def by_polars_streaming(folder: Path) -> None:
    """Plain expressions over a stream, once for the clean rows and once for the bad."""
    tests = {name: test.fill_null(value=True) for name, test in rules().items()}
    table = pl.scan_parquet(folder / "table.parquet", row_index_name="row")
    good = pl.all_horizontal(tests.values())
    broken = [pl.when(~test).then(pl.lit(name)) for name, test in tests.items()]
    clean = table.filter(good).drop("row").sink_parquet(folder / "clean.parquet", compression="lz4", lazy=True)
    bad = table.filter(~good).with_columns(reasons=pl.concat_list(broken).list.drop_nulls())
    pl.collect_all([clean, bad.sink_parquet(folder / "bad.parquet", lazy=True)], engine="streaming")


def by_duckdb(folder: Path) -> None:
    """SQL over the file, once for the clean rows and once for the bad."""
    import duckdb  # noqa: PLC0415 - each peer loads only what it needs

    countries, states = (", ".join(f"'{each}'" for each in listed) for listed in (COUNTRIES, STATES))
    tests = {
        "order_id minimum": "order_id >= 1",
        "customer_id range": "customer_id BETWEEN 1 AND 500000",
        "store range": "store BETWEEN 1 AND 1200",
        "quantity range": "quantity BETWEEN 1 AND 100",
        "age range": "age BETWEEN 18 AND 120",
        "points range": "points >= 0 AND points < 1000000",
        "price range": "price > 0 AND price <= 1000 AND isfinite(price)",
        "discount range": "discount >= 0 AND discount < 1 AND isfinite(discount)",
        "latitude range": "latitude BETWEEN -90 AND 90 AND isfinite(latitude)",
        "longitude range": "longitude BETWEEN -180 AND 180 AND isfinite(longitude)",
        "temperature type": "isfinite(temperature)",
        "sku pattern": "regexp_full_match(sku, 'SKU-[0-9]{8}')",
        "country valid-values": f"country IN ({countries})",
        "state valid-values": f"state IN ({states})",
        "name length": "length(name) BETWEEN 2 AND 40",
        "note length": "length(note) <= 40",
        "ordered range": f"ordered BETWEEN DATE '{FIRST_DAY}' AND DATE '{LAST_DAY}'",
        "shipped minimum": f"shipped >= TIMESTAMPTZ '{FIRST_MOMENT.isoformat()}'",
        **{f"{name} required": f"{name} IS NOT NULL" for name in REQUIRED},
    }
    kept = {name: f"coalesce({test}, true)" for name, test in tests.items()}
    good = " AND ".join(kept.values())
    reasons = ", ".join(f"CASE WHEN NOT {test} THEN '{name}' END" for name, test in kept.items())
    source = f"read_parquet('{folder / 'table.parquet'}', file_row_number = true)"
    clean = f"* EXCLUDE file_row_number FROM {source} WHERE {good}"
    bad = f"*, list_filter([{reasons}], lambda x: x IS NOT NULL) AS reasons FROM {source} WHERE NOT ({good})"
    with duckdb.connect() as database:
        database.execute(f"COPY (SELECT {clean}) TO '{folder / 'clean.parquet'}' (FORMAT parquet, COMPRESSION lz4_raw)")
        database.execute(f"COPY (SELECT {bad}) TO '{folder / 'bad.parquet'}' (FORMAT parquet)")


def by_pandera(folder: Path) -> None:
    """The schema of pandera over a polars table: it gives the failing cases; the split is by their row numbers."""
    import pandera.polars as pa  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - installed there alone

    def column(kind: Any, *checks: Any, nullable: bool = False) -> Any:
        return pa.Column(kind, list(checks), nullable=nullable)

    finite = pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_finite()), name="finite")
    check = pa.Check
    schema = pa.DataFrameSchema(
        {
            "order_id": column(pl.Int64, check.ge(1)),
            "customer_id": column(pl.Int64, check.in_range(1, 500_000)),
            "store": column(pl.Int32, check.in_range(1, 1_200)),
            "quantity": column(pl.Int16, check.in_range(1, 100)),
            "age": column(pl.Int16, check.in_range(18, 120), nullable=True),
            "points": column(pl.Int64, check.in_range(0, 1_000_000, include_max=False), nullable=True),
            "price": column(pl.Float64, check.in_range(0, 1_000, include_min=False)),
            "discount": column(pl.Float64, check.in_range(0, 1, include_max=False)),
            "latitude": column(pl.Float64, check.in_range(-90, 90), nullable=True),
            "longitude": column(pl.Float64, check.in_range(-180, 180), nullable=True),
            "temperature": column(pl.Float32, finite, nullable=True),
            "sku": column(pl.String, check.str_matches(r"^SKU-[0-9]{8}$")),
            "country": column(pl.String, check.isin(COUNTRIES)),
            "state": column(pl.String, check.isin(STATES)),
            "name": column(pl.String, check.str_length(2, 40)),
            "note": column(pl.String, check.str_length(max_value=40), nullable=True),
            "ordered": column(pl.Date, check.in_range(FIRST_DAY, LAST_DAY)),
            "shipped": column(pl.Datetime("us", "UTC"), check.ge(FIRST_MOMENT), nullable=True),
            "gift": column(pl.Boolean),
            "newsletter": column(pl.Boolean, nullable=True),
        },
        strict=True,
    )
    frame = pl.read_parquet(folder / "table.parquet")
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        raise SystemExit("expected bad rows, found none")
    reasons = cases.group_by("index").agg(pl.struct("column", "check").alias("reasons")).sort("index")
    rows = reasons["index"].cast(pl.UInt32)
    good = pl.repeat(True, frame.height, dtype=pl.Boolean, eager=True).scatter(rows, False)  # noqa: FBT003 - values of the mask
    frame.filter(good).write_parquet(folder / "clean.parquet", compression="lz4")
    frame[rows].hstack(reasons.select("reasons")).write_parquet(folder / "bad.parquet")


def by_dataframely(folder: Path) -> None:
    """The schema of dataframely, and its own split."""
    import dataframely as dy  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - installed there alone

    class Orders(dy.Schema):  # type: ignore[misc,unused-ignore]  # unknown here
        order_id = dy.Int64(nullable=False, min=1)
        customer_id = dy.Int64(nullable=False, min=1, max=500_000)
        store = dy.Int32(nullable=False, min=1, max=1_200)
        quantity = dy.Int16(nullable=False, min=1, max=100)
        age = dy.Int16(nullable=True, min=18, max=120)
        points = dy.Int64(nullable=True, min=0, max_exclusive=1_000_000)
        price = dy.Float64(nullable=False, min_exclusive=0, max=1_000)
        discount = dy.Float64(nullable=False, min=0, max_exclusive=1)
        latitude = dy.Float64(nullable=True, min=-90, max=90)
        longitude = dy.Float64(nullable=True, min=-180, max=180)
        temperature = dy.Float32(nullable=True)
        sku = dy.String(nullable=False, regex=r"^SKU-[0-9]{8}$")
        country = dy.String(nullable=False, check=lambda column: column.is_in(COUNTRIES))
        state = dy.String(nullable=False, check=lambda column: column.is_in(STATES))
        name = dy.String(
            nullable=False, check={"min": lambda c: c.str.len_chars() >= 2, "max": lambda c: c.str.len_chars() <= 40}
        )
        note = dy.String(nullable=True, check=lambda column: column.str.len_chars() <= 40)
        ordered = dy.Date(nullable=False, min=FIRST_DAY, max=LAST_DAY)
        shipped = dy.Datetime(nullable=True, time_zone="UTC", check=lambda column: column >= FIRST_MOMENT)
        gift = dy.Bool(nullable=False)
        newsletter = dy.Bool(nullable=True)

    frame = pl.read_parquet(folder / "table.parquet")
    good, failure = Orders.filter(frame)
    good.write_parquet(folder / "clean.parquet", compression="lz4")
    failure.details().write_parquet(folder / "bad.parquet")


PEERS = {
    "polars": by_polars,
    "polars-streaming": by_polars_streaming,
    "duckdb": by_duckdb,
    "pandera": by_pandera,
    "dataframely": by_dataframely,
}


if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]))
