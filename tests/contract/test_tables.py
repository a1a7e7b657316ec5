"""Files of a table are divided exactly: clean rows as they came, bad rows with every reason, none lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.contracts import document, named_properties, records
from contract.frames import frames
from contract.test_columns import compiled
from mainstay.contract.columns import ColumnValidator, compile_columns
from mainstay.contract.load import parse_contract
from mainstay.contract.tables import check_table
from mainstay.contract.tables_types import FILE, RAW, ROW, VIOLATIONS, CsvDialect, Example, Progress, RuleCount
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ORDERS: tuple[dict[str, Any], ...] = (
    {"name": "id", "logicalType": "integer", "required": True, "unique": True},
    {"name": "amount", "logicalType": "number", "logicalTypeOptions": {"minimum": 0, "multipleOf": 0.01}},
    {"name": "iban", "logicalType": "string", "classification": "restricted", "logicalTypeOptions": {"maxLength": 4}},
    {"name": "on", "logicalType": "date"},
    {"name": "open", "logicalType": "boolean"},
)
TABLE = pl.DataFrame(
    {
        "id": [1, 2, 2, None, 5],
        "amount": [1.25, -1.0, 3.0, 0.001, None],
        "iban": ["DE", "SECRET", None, "FR", "CH"],
        "on": pl.Series(["2024-01-01", "2024-01-02", None, "2024-01-04", "2024-01-05"]).str.to_date(),
        "open": [True, False, None, True, True],
    }
)
BAD = {
    2: [("amount", "minimum", "-1.0"), ("iban", "max-length", "(masked)")],
    3: [("id", "unique", "2")],
    4: [("id", "required", "nothing"), ("amount", "multiple-of", "0.001")],
}


def validator_of(*fields: dict[str, Any]) -> ColumnValidator:
    return compile_columns(parse_contract(document(list(fields)), "contract.yaml").schema[0])


def reasons(bad: Path) -> dict[int, list[tuple[str, str, str]]]:
    """Field, rule and finding of every violation, by row."""
    frame = pl.read_parquet(bad)
    return {
        row: [(each["field"], each["rule"], each["found"]) for each in found]
        for row, found in zip(frame[ROW], frame[VIOLATIONS], strict=True)
    }


def write_csv(path: Path) -> None:
    path.write_text(
        "id,amount,iban,on,open\n1,1.25,DE,2024-01-01,true\n2,-1.0,SECRET,2024-01-02,False\n2,3,,,\n"
        ',0.001,FR,2024-01-04,TRUE\n5,,"CH",2024-01-05,true\n'
    )


def write_lines(path: Path) -> None:
    rows = TABLE.with_columns(pl.col("on").cast(pl.String)).to_dicts()
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.parquet", TABLE.write_parquet),
        ("t.arrow", TABLE.write_ipc),
        ("t.csv", write_csv),
        ("t.jsonl", write_lines),
    ],
)
def test_every_kind_of_file_is_divided_alike(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    clean, bad = tmp_path / "out" / "clean.parquet", tmp_path / "out" / "bad.parquet"
    report = check_table(tmp_path / name, validator_of(*ORDERS), clean, bad)
    assert (report.rows, report.bad_rows, report.clean_rows) == (5, 3, 2)
    assert reasons(bad) == BAD
    assert pl.read_parquet(bad)[FILE].unique().to_list() == [str(tmp_path / name)]
    kept = pl.read_parquet(clean)
    if kept.schema["on"] == pl.String:  # from text, texts of dates stay as they came
        kept = kept.with_columns(pl.col("on").str.to_date())
    assert kept.equals(TABLE[[0, 4]])
    assert sorted(path.name for path in clean.parent.iterdir()) == ["bad.parquet", "clean.parquet"]
    assert RuleCount("amount", "minimum", 1, (Example(str(tmp_path / name), 2, "at least 0", "-1.0"),)) in report.counts


def test_the_bad_rows_hold_what_came(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "t.parquet")
    check_table(tmp_path / "t.parquet", validator_of(*ORDERS), bad=tmp_path / "bad.parquet")
    frame = pl.read_parquet(tmp_path / "bad.parquet")
    assert frame.columns == [FILE, ROW, VIOLATIONS, *TABLE.columns]
    assert frame.select(TABLE.columns).equals(TABLE[[1, 2, 3]])


def test_a_second_check_of_the_clean_rows_finds_nothing(tmp_path: Path) -> None:
    for name, write in (("t.parquet", TABLE.write_parquet), ("t.csv", write_csv), ("t.jsonl", write_lines)):
        write(tmp_path / name)
        check_table(tmp_path / name, validator_of(*ORDERS), tmp_path / "clean.parquet")
        assert check_table(tmp_path / "clean.parquet", validator_of(*ORDERS)).bad_rows == 0


def test_cells_that_cannot_be_read_are_shown_as_they_are_unless_they_are_classified(tmp_path: Path) -> None:
    fields: list[dict[str, Any]] = [
        {"name": "n", "logicalType": "integer"},
        {"name": "secret", "logicalType": "number", "classification": "confidential"},
        {"name": "tags", "logicalType": "array", "items": {"logicalType": "string"}},
    ]
    rows = ['1,2.5,"[""a""]"', "one,SECRET,[", "1.0,,[1]", '"","",', "1,2,3,4", "\udcff,1,"]
    (tmp_path / "t.csv").write_bytes("\n".join(["n,secret,tags", *rows]).encode("utf-8", "surrogateescape"))
    report = check_table(
        tmp_path / "t.csv", validator_of(*fields), tmp_path / "clean.parquet", tmp_path / "bad.parquet"
    )
    assert (report.rows, report.bad_rows) == (6, 4)
    assert reasons(tmp_path / "bad.parquet") == {
        2: [("n", "type", '"one"'), ("secret", "type", "(masked)"), ("tags", "type", '"["')],
        3: [("tags[0]", "type", "1")],
        5: [("$", "malformed", "4")],
        6: [("$", "malformed", "other bytes")],
    }
    bad = pl.read_parquet(tmp_path / "bad.parquet")
    assert bad[RAW].to_list() == [None, None, b"1,2,3,4\n", b"\xff,1,\n"]
    assert bad["n"].to_list() == ["one", "1.0", None, None]
    assert pl.read_parquet(tmp_path / "clean.parquet").rows() == [(1, 2.5, '["a"]'), (None, None, None)]
    assert next(each for each in report.counts if each.field == "tags[]").rule == "type"
    assert "SECRET" not in repr(report)


def test_lines_that_are_no_records_are_bad_and_kept(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"id": 1}',
        b"",
        b"{",
        b"[1]",
        b'{"id": 1}',
        b'{"id": 2, "idd": 3}',
        b"\xff",
        b'{"id": 3, "id": null}',
    ]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines))
    report = check_table(
        tmp_path / "t.jsonl", validator_of(*ORDERS), tmp_path / "clean.parquet", tmp_path / "bad.parquet"
    )
    assert (report.rows, report.bad_rows) == (7, 6)
    assert {row: [rule for _, rule, _ in each] for row, each in reasons(tmp_path / "bad.parquet").items()} == {
        3: ["malformed"],
        4: ["not-an-object"],
        5: ["unique"],
        6: ["unknown-field"],
        7: ["malformed"],
        8: ["required"],
    }
    assert pl.read_parquet(tmp_path / "bad.parquet")[RAW].to_list() == [lines[i] for i in (2, 3, 4, 5, 6, 7)]


def test_nested_records_become_structs_and_what_is_open_stays_json(tmp_path: Path) -> None:
    inner = [{"name": "n", "logicalType": "integer"}, {"name": "on", "logicalType": "date"}]
    fields: list[dict[str, Any]] = [
        {"name": "o", "logicalType": "object", "properties": inner},
        {"name": "l", "logicalType": "array", "items": {"logicalType": "object", "properties": inner}},
        {"name": "any"},
        {"name": "u", "logicalType": "integer", "logicalTypeOptions": {"format": "u64"}},
    ]
    record = {"o": {"n": 1}, "l": [{"on": "2024-01-01"}, None], "any": {"x": [1, "é", 10**30]}, "u": 2**64 - 1}
    (tmp_path / "t.ndjson").write_text(json.dumps(record) + "\n{}")
    check_table(tmp_path / "t.ndjson", validator_of(*fields), tmp_path / "clean.parquet")
    first, second = pl.read_parquet(tmp_path / "clean.parquet").rows(named=True)
    assert json.loads(first.pop("any")) == record["any"]
    assert first == {"o": {"n": 1, "on": None}, "l": [{"n": None, "on": "2024-01-01"}, None], "u": 2**64 - 1}
    assert set(second.values()) == {None}


def test_several_files_and_folders_are_one_table(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    for name, frame in (
        ("b/1.parquet", TABLE[:2]),
        ("a.parquet", TABLE[2:]),
        (".hidden.parquet", TABLE),
        ("_x.parquet", TABLE),
    ):
        frame.select(reversed(frame.columns) if name == "a.parquet" else frame.columns).write_parquet(source / name)
    seen: list[Progress] = []
    report = check_table(source, validator_of(*ORDERS), bad=tmp_path / "bad.parquet", progress=seen.append)
    assert report.files == (str(source / "a.parquet"), str(source / "b" / "1.parquet"))
    rows = pl.read_parquet(tmp_path / "bad.parquet").select(FILE, ROW).rows()
    assert [(file.removeprefix(f"{source}/"), row) for file, row in rows] == [
        ("a.parquet", 2), ("b/1.parquet", 2),
    ]  # fmt: skip  # a pair is one line
    assert seen[-1] == Progress(5, report.bad_rows, 1.0)
    assert [each.share for each in seen] == sorted(each.share for each in seen)
    assert check_table([source / "b" / "1.parquet", source / "a.parquet"], validator_of(*ORDERS)).bad_rows == 3


def test_rows_of_many_pieces_keep_their_numbers_and_their_order(tmp_path: Path) -> None:
    rows = 300_000
    frame = pl.DataFrame({"id": pl.int_range(rows, eager=True), "text": pl.repeat("x" * 200, rows, eager=True)})
    frame = frame.with_columns(pl.when(pl.col("id") % 1_000 == 7).then(None).otherwise("id").alias("id"))
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=70_000)
    frame.write_csv(tmp_path / "t.csv")
    validator = validator_of({"name": "id", "logicalType": "integer", "required": True}, {"name": "text"})
    for name in ("t.parquet", "t.csv"):
        report = check_table(tmp_path / name, validator, tmp_path / "clean.parquet", tmp_path / "bad.parquet")
        assert (report.rows, report.bad_rows) == (rows, rows // 1_000)
        assert pl.read_parquet(tmp_path / "bad.parquet")[ROW].to_list() == [8 + 1_000 * n for n in range(rows // 1_000)]
        assert pl.read_parquet(tmp_path / "clean.parquet").equals(frame.filter(pl.col("id").is_not_null()))


def test_a_table_in_which_every_row_is_bad_leaves_an_empty_one(tmp_path: Path) -> None:
    pl.DataFrame({"idd": range(30_000)}).write_parquet(tmp_path / "t.parquet")
    report = check_table(tmp_path / "t.parquet", validator_of(*ORDERS), tmp_path / "c.parquet", tmp_path / "b.parquet")
    assert report.bad_rows == 30_000
    assert [(each.field, each.rule, each.count, len(each.examples)) for each in report.counts] == [
        ("id", "required", 30_000, 3),
        ("idd", "unknown-field", 30_000, 3),
    ]
    assert pl.read_parquet(tmp_path / "c.parquet").shape == (0, 1)
    assert pl.read_parquet(tmp_path / "b.parquet").height == 30_000


def test_a_table_without_rows_is_clean(tmp_path: Path) -> None:
    TABLE.clear().write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("id,amount\n")
    (tmp_path / "t.jsonl").write_text("")
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        report = check_table(tmp_path / name, validator_of(*ORDERS), tmp_path / "c.parquet", tmp_path / "b.parquet")
        assert (report.rows, report.bad_rows) == (0, 0)
        assert pl.read_parquet(tmp_path / "c.parquet").height == pl.read_parquet(tmp_path / "b.parquet").height == 0


def test_the_pairs_of_field_and_rule_that_are_counted_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(f'{{"id": {n}, "f{n}": 1}}' for n in range(1_100)))
    report = check_table(tmp_path / "t.jsonl", validator_of(*ORDERS))
    assert (len(report.counts), report.uncounted, report.bad_rows) == (1_000, 100, 1_100)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nothing.parquet"], "found nothing at"),
        (["a.txt"], "a file ending in"),
        (["a.parquet", "a.csv"], "files of one kind"),
        (["empty"], "found none in"),
        (["a.parquet", "other.parquet"], "expected the columns of .*found 'x' of type Int64 instead of nothing"),
        (["a.csv", "other.csv"], "found a difference in 'amount'"),
    ],
)
def test_a_source_that_is_no_table_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    TABLE.write_parquet(tmp_path / "a.parquet")
    TABLE.with_columns(x=1).cast({"x": pl.Int64}).write_parquet(tmp_path / "other.parquet")
    write_csv(tmp_path / "a.csv")
    (tmp_path / "other.csv").write_text("id,x\n")
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misuse, match=message):
        check_table([tmp_path / name for name in names], validator_of(*ORDERS))


def test_outputs_never_replace_the_source(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "t.parquet"
    TABLE.write_parquet(path)
    for source, clean in ((path, path), (tmp_path / "in", tmp_path / "in" / "clean.parquet")):
        with pytest.raises(Misuse, match="no part of the source"):
            check_table(source, validator_of(*ORDERS), clean)
    with pytest.raises(Misuse, match="two files"):
        check_table(path, validator_of(*ORDERS), tmp_path / "o.parquet", tmp_path / "o.parquet")


def test_a_column_that_the_bad_rows_need_is_refused(tmp_path: Path) -> None:
    TABLE.with_columns(pl.lit(1).alias(ROW)).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(Misuse, match="'mainstay_row'"):
        check_table(tmp_path / "t.parquet", validator_of(*ORDERS))


def test_a_damaged_file_leaves_no_output_and_earlier_ones_as_they_were(tmp_path: Path) -> None:
    path, clean = tmp_path / "t.parquet", tmp_path / "out" / "clean.parquet"
    pl.DataFrame({"id": range(400_000)}).write_parquet(path, row_group_size=100_000, compression="zstd")
    check_table(path, validator_of(ORDERS[0]), clean)
    earlier = clean.read_bytes()
    content = bytearray(path.read_bytes())
    at = len(content) * 3 // 4
    content[at : at + 50_000] = b"\xff" * 50_000
    path.write_bytes(content)
    with pytest.raises(Failed, match=r"t\.parquet"):
        check_table(path, validator_of(ORDERS[0]), clean, tmp_path / "out" / "bad.parquet")
    assert clean.read_bytes() == earlier
    assert [each.name for each in clean.parent.iterdir()] == ["clean.parquet"]


def test_what_progress_raises_ends_the_check_without_output(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "t.parquet")

    def stop(_: Progress) -> None:
        raise TimeoutError("enough")

    with pytest.raises(Failed, match="enough"):
        check_table(tmp_path / "t.parquet", validator_of(ORDERS[1]), tmp_path / "c.parquet", progress=stop)
    assert [each.name for each in tmp_path.iterdir()] == ["t.parquet"]


def test_a_delimiter_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id^open\n1^true\n")
    assert check_table(tmp_path / "t.csv", validator_of(*ORDERS), csv=CsvDialect("^")).bad_rows == 0
    with pytest.raises(Misuse, match="one ASCII character"):
        check_table(tmp_path / "t.csv", validator_of(*ORDERS), csv=CsvDialect("é"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_files_of_columns_are_divided_as_the_table_in_memory_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    fields = data.draw(named_properties(1))
    both = compiled(fields)
    if both is None:
        return
    frame = data.draw(frames(fields, 8))
    folder = tmp_path_factory.mktemp("tables")
    try:
        frame.write_parquet(folder / "t.parquet")
    except pl.exceptions.PolarsError:  # a struct without fields has no place in Parquet
        return
    frame = pl.read_parquet(folder / "t.parquet")
    checked = both[1].check(frame)
    check_table(folder / "t.parquet", both[1], folder / "clean.parquet", folder / "bad.parquet")
    bad = pl.read_parquet(folder / "bad.parquet")
    assert bad[ROW].to_list() == [row + 1 for row in checked.bad_rows]
    expected = [[(v.field, v.rule, v.expected, v.found) for v in each] for each in checked.violations]
    assert [[tuple(each.values()) for each in found] for found in bad[VIOLATIONS].to_list()] == expected
    kept = [row for row in range(frame.height) if row not in checked.bad_rows]
    assert pl.read_parquet(folder / "clean.parquet").equals(frame[kept])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_lines_are_divided_as_the_record_validator_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    fields = data.draw(named_properties(2))
    both = compiled(fields)
    if both is None:
        return
    lines = [json.dumps(record) for record in data.draw(st.lists(records(fields), max_size=6))]
    folder = tmp_path_factory.mktemp("lines")
    (folder / "t.jsonl").write_text("\n".join(lines))
    check_table(folder / "t.jsonl", both[1], folder / "clean.parquet", folder / "bad.parquet")
    expected = {
        number: [(v.field, v.rule, v.found) for v in found]
        for number, line in enumerate(lines, start=1)
        if (found := both[0].violations(line.encode()))
    }
    assert reasons(folder / "bad.parquet") == expected
    assert pl.read_parquet(folder / "clean.parquet").height == len(lines) - len(expected)
