"""A table held against a contract in one bounded pass: clean rows to one file, bad rows with every reason to another.

    report = check_table(source, compile_columns(declared), clean=Path("clean.parquet"), bad=Path("bad.parquet"))

TableReport, RuleCount, Example, Progress and CsvDialect are in `tables_types`. What the bad rows hold:

| column | |
|---|---|
| `mainstay_file`, `mainstay_row` | where the row came from; rows count from 1, a CSV header not counted |
| `mainstay_violations` | a list of structs: `field`, `rule`, `expected`, `found`, as `types.Violation` has them |
| of Parquet and Arrow | every column of the table |
| of CSV | every column as text, and `mainstay_raw`: the bytes of a row that could not be read |
| of JSON lines | `mainstay_raw`: the line |

The rows themselves are whole: what a contract classifies is masked in the reasons and in the report, not in the data.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.tables_files import FrameFile, publish, scratch_folder, write_frames
from mainstay.contract.tables_repeats import BUDGET_BYTES, Repeats, find_repeats
from mainstay.contract.tables_sources import ColumnFiles, scan_ipc, scan_parquet
from mainstay.contract.tables_text import CsvFiles, JsonLines
from mainstay.contract.tables_types import FILE, ROW, VIOLATIONS, CsvDialect, Example, Progress, RuleCount, TableReport
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.tables_sources import BadRows, Piece, Source
    from mainstay.contract.tables_types import Observer
    from mainstay.contract.types import Violation

MAX_COUNTED: Final = 1_000  # pairs of a field and a rule
EXAMPLES: Final = 3

_KINDS: Final = {
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".ipc": "ipc", ".feather": "ipc", ".csv": "csv",
    ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip  # one a line would fill a page
_KEY_PASS: Final = 0.25  # of the work, about, where there are keys
WORDS: Final = ("field", "rule", "expected", "found")  # of a violation
REASONS: Final = pl.List(pl.Struct(dict.fromkeys(WORDS, pl.String())))


def check_table(
    source: Path | Sequence[Path],
    validator: ColumnValidator,
    clean: Path | None = None,
    bad: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    csv: CsvDialect | None = None,
    observers: Sequence[Observer] = (),
) -> TableReport:
    """Hold every row of a table against a contract; write the clean rows and the bad ones, each to a Parquet file.

    `source` is a file, several, or a folder, of Parquet (.parquet, .pq), Arrow IPC (.arrow, .ipc, .feather), CSV (.csv,
    .tsv) or JSON lines (.jsonl, .ndjson); of a folder every such file in it and below is read, in the order of their
    names, but for hidden ones. With `clean` or `bad` None, those rows are not written. `progress` is called after each
    piece, and may be called from another thread; so may the `observers`, who are shown each piece, in order.

    Memory is bounded, whatever the size: `tables_repeats` says what the rules between rows need. Both outputs are in
    place when this returns, and neither when it raises or the process dies before that.

    Raises Misuse when the source is no table that can be read so, and Failed when a file cannot be read to its end or
    an output not be written.
    """
    files = table_files(source)
    _refuse_overwriting(source, files, [path for path in (clean, bad) if path is not None])
    try:
        table = _opened(files, validator, csv or CsvDialect())
        taken = {FILE, ROW, VIOLATIONS} & set(table.bad_schema)
        if taken:
            raise Misuse(f"expected no column with a name that the bad rows need, found {min(taken)!r}")
        tally = _check(table, validator, (clean, bad), observers, progress or (lambda _: None))
    except OSError as error:
        raise Failed(f"the check did not succeed: {error}", hint="No output was written.") from error
    return TableReport(
        object=validator.name,
        files=tuple(map(str, files)),
        rows=tally.rows,
        bad_rows=tally.bad_rows,
        counts=tally.listed(),
        uncounted=tally.uncounted,
        clean=clean,
        bad=bad,
        repeated=tally.repeated,
    )


def _check(
    table: Source,
    validator: ColumnValidator,
    outputs: tuple[Path | None, Path | None],
    observers: Sequence[Observer],
    told: Callable[[Progress], None],
) -> _Tally:
    tally = _Tally()
    clean, bad = outputs
    with contextlib.ExitStack() as stack:
        parents = dict.fromkeys(path.parent for path in (clean, bad) if path is not None) or {Path(gettempdir()): None}
        folders = {parent: stack.enter_context(scratch_folder(parent)) for parent in parents}
        repeats = Repeats([])
        if validator.all_keys:
            tables = _told(table, told)
            found = find_repeats(tables, len(validator.all_keys), next(iter(folders.values())), BUDGET_BYTES)
            totals = dict(zip((key.paths for key in validator.all_keys), found.totals(), strict=True))
            tally.repeated = tuple(totals[key.paths] for key in validator.counted_keys)
            repeats = found.first(len(validator.keys))
        begun = _KEY_PASS if validator.all_keys else 0.0
        kept = FrameFile(folders[bad.parent], _bad_schema(table.bad_schema)) if bad is not None else None
        pieces = _observed(table, repeats, observers)
        frames = _clean_frames(pieces, tally, kept, lambda: told(tally.progress(begun, table.share())))
        made = []
        if clean is not None:
            temporary = folders[clean.parent] / "clean.parquet"
            write_frames(frames, table.clean_schema, temporary)
            made.append((temporary, clean))
        else:
            for _ in frames:  # no rows are written, and all are judged
                pass
        if bad is not None and kept is not None:
            made.insert(0, (kept.finish(), bad))
        publish(made)
    return tally


def _told(table: Source, told: Callable[[Progress], None]) -> Iterator[Sequence[pl.DataFrame]]:
    for frames in table.key_tables():
        yield frames
        told(Progress(0, 0, _KEY_PASS * table.share()))


def _observed(table: Source, repeats: Repeats, observers: Sequence[Observer]) -> Iterator[Piece]:
    none = pl.DataFrame(schema=dict(table.clean_schema))
    for each in observers:
        each.add(none, none)  # so that they know the columns of a table without rows
    for piece in table.pieces(repeats):
        if observers:
            raw, typed = piece.table()
            for each in observers:
                each.add(raw, typed)
        yield piece


def _clean_frames(
    pieces: Iterable[Piece], tally: _Tally, bad: FrameFile | None, told: Callable[[], None]
) -> Iterator[pl.DataFrame]:
    """The clean rows, piece by piece, once the bad rows of the piece are counted and put away."""
    for piece in pieces:
        tally.rows += piece.rows
        for rows in piece.bad:
            reasons = flat_reasons(rows.reasons)
            tally.add(rows, reasons)
            if bad is not None:
                bad.add(_bad_frame(rows, reasons))
        yield piece.clean
        told()


# Bad rows


def _bad_schema(columns: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    return {FILE: pl.String(), ROW: pl.Int64(), VIOLATIONS: REASONS, **columns}


def _bad_frame(rows: BadRows, reasons: pl.DataFrame) -> pl.DataFrame:
    named = [pl.repeat(rows.file, len(rows.numbers), eager=True).alias(FILE), rows.numbers.alias(ROW)]
    return pl.DataFrame([*named, nested_reasons(reasons), *rows.columns.get_columns()])


def flat_reasons(reasons: Sequence[tuple[Violation, ...]]) -> pl.DataFrame:
    """A row for each violation, with the position of its row."""
    found = [violation for each in reasons for violation in each]
    positions = [position for position, each in enumerate(reasons) for _ in each]
    columns = {name: pl.Series([getattr(each, name) for each in found], dtype=pl.String) for name in WORDS}
    return pl.DataFrame({"position": pl.Series(positions, dtype=pl.Int64), **columns})


def nested_reasons(reasons: pl.DataFrame) -> pl.Series:
    """What `flat_reasons` made, as a list for each row; a row has at least one."""
    nested = reasons.group_by("position", maintain_order=True).agg(pl.struct(*WORDS).alias(VIOLATIONS))
    return nested[VIOLATIONS]


class _Tally:
    """What was found so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.bad_rows = 0
        self.uncounted = 0
        self.repeated: tuple[int, ...] = ()
        self._counts: dict[tuple[str, Any], tuple[int, tuple[Example, ...]]] = {}

    def add(self, rows: BadRows, reasons: pl.DataFrame) -> None:
        self.bad_rows += len(rows.numbers)
        fields = reasons.with_columns(pl.col("field").str.replace_all(r"\[[0-9]+\]", "[]"))
        first = pl.all().exclude("count").head(EXAMPLES)
        groups = fields.group_by("field", "rule", maintain_order=True).agg(pl.len().alias("count"), first)
        for name, rule, count, positions, expected, found in groups.iter_rows():
            known = self._counts.get((name, rule))
            if known is None and len(self._counts) >= MAX_COUNTED:
                self.uncounted += count
                continue
            before, examples = known or (0, ())
            more = (
                Example(rows.file, int(rows.numbers[position]), *words)
                for position, *words in zip(positions, expected, found, strict=True)
            )
            self._counts[name, rule] = (before + count, (*examples, *more)[:EXAMPLES])

    def progress(self, begun: float, share: float) -> Progress:
        return Progress(self.rows, self.bad_rows, begun + (1 - begun) * share)

    def listed(self) -> tuple[RuleCount, ...]:
        made = (RuleCount(*key, *counted) for key, counted in self._counts.items())
        return tuple(sorted(made, key=lambda each: (-each.count, each.field, each.rule)))


# Files


def _opened(files: Sequence[Path], validator: ColumnValidator, dialect: CsvDialect) -> Source:
    match _KINDS[files[0].suffix.lower()]:
        case "parquet":
            return ColumnFiles(files, validator, scan_parquet)
        case "ipc":
            return ColumnFiles(files, validator, scan_ipc)
        case "csv":
            return CsvFiles(files, validator, dialect)
        case _:
            return JsonLines(files, validator)


def table_files(source: Path | Sequence[Path]) -> list[Path]:
    """The files of a source, all of one kind."""
    given = [source] if isinstance(source, Path) else list(source)
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if _is_table(each, path))
        elif not path.is_file():
            raise Misuse(f"expected a file or folder, found nothing at {path}")
        elif path.suffix.lower() not in _KINDS:
            raise Misuse(f"expected a file ending in {', '.join(_KINDS)}, found {path.name}")
        else:
            found.append(path)
    if not found:
        raise Misuse(f"expected files ending in {', '.join(_KINDS)}, found none in {', '.join(map(str, given))}")
    kinds = {_KINDS[path.suffix.lower()]: path for path in found}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise Misuse(f"expected files of one kind, found {one} beside {other}")
    return found


def _is_table(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    return path.suffix.lower() in _KINDS and path.is_file() and not hidden


def _refuse_overwriting(source: Path | Sequence[Path], files: Iterable[Path], outputs: Sequence[Path]) -> None:
    given = [source] if isinstance(source, Path) else list(source)
    folders = [path.resolve() for path in given if path.is_dir()]
    inputs = {path.resolve() for path in files}
    places = [path.resolve() for path in outputs]
    if len(set(places)) < len(places):
        raise Misuse(f"expected two files for clean and bad rows, found {outputs[0]} twice")
    for path, place in zip(outputs, places, strict=True):
        if place in inputs or any(place.is_relative_to(folder) for folder in folders):
            raise Misuse(f"expected outputs that are no part of the source, found {path}")
