from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mainstay.contract.tables_csv import MAX_ROW_BYTES, CsvReader, read_header
from mainstay.errors import Failed

if TYPE_CHECKING:
    from pathlib import Path

pieces = st.sampled_from(('"', '"', ",", ",", "\n", "\r\n", "\r", "a", "b", "é", " ", '""', "\x00", "\x85", "\u2028"))
cells = st.lists(pieces, max_size=4).map("".join)
# bytes as people send them: rows, quotes that do not close, cut characters
wild = st.lists(
    st.sampled_from(
        (
            b'"',
            b",",
            b"\n",
            b"\r\n",
            b"\r",
            b"a",
            b"1",
            b"\xc3\xa9",
            b"\xc3",
            b"\xff",
            b'""',
            b'a,"b\nc",d\n',
            b"1,2,3\n",
        )
    ),
    max_size=30,
).map(b"".join)


def read(
    path: Path, content: bytes, width: int = 3, block_bytes: int = 1 << 20
) -> list[list[str | None] | tuple[bytes, str]]:
    """Every row in order: its cells, or the bytes of a broken one and what was found there."""
    path.write_bytes(content)
    made: list[list[str | None] | tuple[bytes, str]] = []
    for rows in CsvReader(path, ",", 0, width, block_bytes=block_bytes):
        assert rows.first == len(made) + 1
        found: dict[int, list[str | None] | tuple[bytes, str]] = {
            position: list(row) for position, row in zip(rows.whole.tolist(), rows.cells.rows(), strict=True)
        }
        found |= {each.position: (each.raw, each.violation.found) for each in rows.broken}
        assert sorted(found) == list(range(rows.height))
        made += [found[position] for position in range(rows.height)]
    return made


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_a_writer_of_csv_writes_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    width = data.draw(st.integers(2, 4))
    table = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=8))
    quote_all = data.draw(st.booleans())
    text = io.StringIO(newline="")
    ends = ("\r\n",) if any("\r" in cell for row in table for cell in row) else ("\n", "\r\n")
    writer = csv.writer(
        text,
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
        lineterminator=data.draw(st.sampled_from(ends)),
    )
    writer.writerows(table)
    empty = "" if quote_all else None
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    expected = [[cell or empty for cell in row] for row in table]
    content = text.getvalue().encode()
    assert read(path, content, width) == expected
    assert read(path, content, width, data.draw(st.integers(1, 40))) == expected


@settings(max_examples=600, deadline=None)
@given(wild, st.integers(1, 3), st.integers(1, 12))
def test_where_blocks_begin_and_how_rows_are_cut_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, width: int, block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    whole = read(path, content, width)
    assert read(path, content, width, block_bytes) == whole
    reader = CsvReader(path, ",", 0, width)
    block = content if content.endswith(b"\n") or not content else content + b"\n"
    counted = reader._by_counting(block, 1)
    by_grammar, taken = reader._by_grammar(block, 1, is_last=True)
    assert taken == len(block)
    event("cut by counting" if counted is not None else "cut by the grammar")
    if counted is not None and counted[1] == len(block):
        assert counted[0].cells.rows() == by_grammar.cells.rows()
        assert counted[0].whole.tolist() == by_grammar.whole.tolist()
        assert counted[0].broken == by_grammar.broken


@settings(max_examples=300, deadline=None)
@given(wild)
def test_every_byte_is_in_one_row(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    rows = read(tmp_path_factory.mktemp("csv") / "t.csv", content)
    shown = b"".join(
        row[0] if isinstance(row, tuple) else ",".join(cell or "" for cell in row).encode() for row in rows
    )
    assert sorted(shown.translate(None, b'"\r\n')) == sorted(content.translate(None, b'"\r\n'))


def test_a_broken_row_is_given_as_it_is_with_the_reason(tmp_path: Path) -> None:
    content = b'1,2,3\n1,2\n1,2,3,4\n\n"1",2,"x"y\n1,5" pipe,3\n\xff,2,3\n1,"open,3\n4,5,6'
    assert read(tmp_path / "t.csv", content) == [
        ["1", "2", "3"],
        (b"1,2\n", "2"),
        (b"1,2,3,4\n", "4"),
        (b'"1",2,"x"y\n', "another quote"),
        ["1", '5" pipe', "3"],
        (b"\xff,2,3\n", "other bytes"),
        (b'1,"open,3\n', "another quote"),
        ["4", "5", "6"],
    ]


def test_an_empty_line_is_a_row_of_a_table_with_one_column_only(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", b"a\n\nb\n\r\n", 1) == [["a"], [None], ["b"], [None]]
    assert read(tmp_path / "t.csv", b"a,b\n\nc,d\n\r\n", 2) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("block_bytes", [1 << 16, 1 << 22, 1 << 23])
def test_a_row_that_never_ends_is_one_broken_row(tmp_path: Path, block_bytes: int) -> None:
    long = (
        b"1,2,3\n"
        + b"x" * (3 * MAX_ROW_BYTES)
        + b",1,2\n4,5,6\n"
        + b'7,"'
        + b"y" * MAX_ROW_BYTES
        + b'",9\n'
        + b"a,b,c\n"
    )
    rows = read(tmp_path / "t.csv", long, block_bytes=block_bytes)
    assert [row[1] if isinstance(row, tuple) else row for row in rows] == [
        ["1", "2", "3"],
        "more",
        ["4", "5", "6"],
        "more",
        ["a", "b", "c"],
    ]


def test_a_quote_that_never_closes_costs_one_row_in_a_large_file(tmp_path: Path) -> None:
    lines = [b"1,2,3\n"] * 600_000
    lines[300_000] = b'1,"2,3\n'
    rows = read(tmp_path / "t.csv", b"".join(lines))
    assert len(rows) == 600_000
    assert [n for n, row in enumerate(rows) if isinstance(row, tuple)] == [300_000]


@pytest.mark.parametrize(
    ("content", "names", "delimiter"),
    [
        (b"\xef\xbb\xbfid,name\n1,2\n", ["id", "name"], ","),
        (b"id;name;x,y\r\n", ["id", "name", "x,y"], ";"),
        (b'"id"\t"na\nme"', ["id", "na\nme"], "\t"),
        (b"name|id\n", ["name", "id"], "|"),
        (b"other\n", ["other"], ","),
    ],
)
def test_the_delimiter_is_the_one_that_gives_most_names_of_the_contract(
    tmp_path: Path, content: bytes, names: list[str], delimiter: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    header = read_header(tmp_path / "t.csv", None, frozenset({"id", "name"}))
    assert (header.names, header.delimiter) == (names, delimiter)
    rest = content[header.bytes :]
    assert rest in {b"", b"1,2\n"}


@pytest.mark.parametrize("content", [b"", b"\n", b"id,id\n", b"id,\xff\n", b'"id\n'])
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(Failed, match="header"):
        read_header(tmp_path / "t.csv", None, frozenset({"id"}))
