from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.contract.columns import compile_columns
from mainstay.contract.load import parse_contract
from mainstay.contract.tables_sifting import sift
from mainstay.errors import Failed

if TYPE_CHECKING:
    from mainstay.contract.tables_sifted import FileKind, Sifted

DECLARED = compile_columns(
    parse_contract(
        b"""\
apiVersion: v3.1.0
kind: DataContract
id: s
version: 1.0.0
status: active
schema:
  - name: s
    properties:
      - {name: id, logicalType: integer, primaryKey: true, logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string, logicalTypeOptions: {maxLength: 3}}
""",
        "s.yaml",
    ).schema[0]
)

LINES = {
    "csv": [b"1,ab\n", b"-1,abcd\r\n", b"2\n", b'3,"a\nb"\n', b'4,"x""y"\n', b"\xff,a\n", b",n\n", b"5,ok\n"],
    "jsonl": [
        b'{"id": 1, "note": "ab"}\n', b'{"id": -1, "note": "abcd"}\n', b"{\n",
        b'{"id": 3, "note": "a", "more": [1.50]}\n', b"\n", b'{"note": "x"}\n', b'{"id": -2, "other": 1}\n',
        b'{"id": 5}\n',
    ],
}  # fmt: skip  # two tables of rows
GOOD = {"csv": [1, 4, 5, 8], "jsonl": [1, 4, 8]}


def written(folder: Path, kind: FileKind) -> Path:
    path = folder / f"t.{kind}"
    path.write_bytes((b"id,note\n" if kind == "csv" else b"") + b"".join(LINES[kind]))
    return path


def facts(pieces: list[Sifted]) -> tuple[list[int], dict[int, tuple[bytes, list[str]]], dict[int, bytes]]:
    """The numbers of good rows; of the bad ones their bytes and rules; and the bytes of the good ones."""
    good: list[int] = []
    bad: dict[int, tuple[bytes, list[str]]] = {}
    raw: dict[int, bytes] = {}
    for each in pieces:
        good += each.numbers.to_list()
        every = range(len(each.bad))
        found = zip(each.bad.to_list(), each.raw_bad(every), each.explain(every), strict=True)
        bad |= {number: (line, [one.rule for one in reasons]) for number, line, reasons in found}
        raw |= dict(zip(each.numbers.to_list(), each.raw_clean(range(len(each.numbers))), strict=True))
    return good, bad, raw


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_are_given_with_their_numbers_bytes_and_reasons(tmp_path: Path, kind: FileKind) -> None:
    good, bad, raw = facts(list(sift(kind, written(tmp_path, kind), DECLARED)))
    assert good == GOOD[kind]
    lines = [line.removesuffix(b"\n") if kind == "jsonl" else line for line in LINES[kind]]
    assert raw == {number: lines[number - 1] for number in good}
    rules = {
        "csv": {2: ["minimum", "max-length"], 3: ["malformed"], 6: ["malformed"], 7: ["primary-key"]},
        "jsonl": {2: ["minimum", "max-length"], 3: ["malformed"], 6: ["primary-key"], 7: ["minimum"]},
    }
    assert {number: found for number, (_, found) in bad.items()} == rules[kind]
    assert all(line == lines[number - 1] for number, (line, _) in bad.items())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["csv", "jsonl", "parquet"]), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_a_part_of_a_file_is_judged_as_in_the_whole(kind: Any, begin: int, length: int, to_end: bool) -> None:
    with TemporaryDirectory() as name:
        if kind == "parquet":
            path = Path(name) / "t.parquet"
            pl.DataFrame({"id": [1, -1, None, 4, 5, -6], "note": ["a", "b", "c", "toolong", None, "d"]}).write_parquet(
                path
            )
        else:
            path = written(Path(name), kind)
        end = None if to_end else begin + length
        whole = facts(list(sift(kind, path, DECLARED)))
        part = facts(list(sift(kind, path, DECLARED, begin=begin, end=end)))

        def within(number: int) -> bool:
            return begin < number and (end is None or number <= end)

        assert part[0] == list(filter(within, whole[0]))
        assert part[1] == {number: found for number, found in whole[1].items() if within(number)}
        assert part[2] == {number: line for number, line in whole[2].items() if within(number)}


def test_a_record_keeps_what_the_contract_does_not_know_as_it_was_written(tmp_path: Path) -> None:
    (piece,) = sift("jsonl", written(tmp_path, "jsonl"), DECLARED)
    assert piece.extra.to_list() == [None, '{"more":[1.50]}', None]
    assert piece.bad_extra == [None, None, None, '{"other":1}']
    assert piece.unknown == ("more", "other")
    assert piece.columns == {"id": "integer", "note": "string", "more": "unknown", "other": "unknown"}
    assert piece.records() == [{"id": -1, "note": "abcd"}, None, {"note": "x"}, {"id": -2}]


def test_bad_cells_are_given_as_records(tmp_path: Path) -> None:
    (piece,) = sift("csv", written(tmp_path, "csv"), DECLARED)
    assert piece.records() == [{"id": -1, "note": "abcd"}, None, None, {"note": "n"}]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_record_without_any_value_is_told_what_it_lacks(tmp_path: Path, kind: FileKind) -> None:
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pl.DataFrame({"id": [None], "note": [None]}, schema={"id": pl.Int64, "note": pl.String}).write_parquet(path)
    else:
        path.write_bytes(b"id,note\n,\n" if kind == "csv" else b"{}\n")
    (piece,) = sift(kind, path, DECLARED)
    assert piece.records() == [{}]
    ((found,),) = piece.explain([0])
    assert (found.field, found.rule) == ("id", "primary-key")


@pytest.mark.parametrize(
    ("kind", "content"), [("csv", b"a;b\n1;2\n"), ("csv", b""), ("jsonl", b"<p>\n</p>\n"), ("parquet", b"PAR1")]
)
def test_what_is_no_file_of_its_kind_is_told(tmp_path: Path, kind: FileKind, content: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(Failed):
        list(sift(kind, path, DECLARED))


def test_unknown_columns_of_parquet_are_json(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"id": [1, 2, -3], "x": [[1.5], None, None], "y": [None, None, float("nan")]}).write_parquet(path)
    (piece,) = sift("parquet", path, DECLARED)
    assert piece.extra.to_list() == ['{"x":[1.5]}', None]
    assert json.loads(piece.bad_extra[0] or "") == {"y": "NaN"}
