"""What a declaration says of its sources fits together and fits the contract, and where it does not, says where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from capability.folders import CAPABILITY, CONTRACT, problems_of, write

if TYPE_CHECKING:
    from pathlib import Path

REST: dict[str, Any] = {"url": "https://api.example.com/flights", "cursor_parameter": "since"}
SQL: dict[str, Any] = {"url": {"variable": "DATABASE"}, "table": "flights"}
FILES: dict[str, Any] = {"folder": "in"}


def problems(folder: Path, *sources: dict[str, Any], batches: tuple[dict[str, Any], ...] = ()) -> list[str]:
    """The problems of a declaration with these sources, without file and line."""
    declared = yaml.safe_load(CAPABILITY) | {"sources": [*sources], "batches": [*batches]}
    return [each.partition(" ")[2] for each in problems_of(write(folder, yaml.safe_dump(declared), CONTRACT))]


def source(name: str = "flights", **keys: Any) -> dict[str, Any]:
    return {"name": name, **keys}


@pytest.mark.parametrize(
    "declared",
    [
        source(rest=REST, cursor="at"),
        source(rest={"url": REST["url"]}, key=["carrier"]),
        source(rest=REST | {"pages": {"style": "cursor", "path": "next", "parameter": "c"}}, cursor="delay"),
        source(rest=REST | {"auth": {"api_key": {"key": {"file": "/run/key"}}}}, cursor="at"),
        source(sql=SQL, cursor="delay", key=["carrier"], repeated="quarantine"),
        source(sql=SQL | {"columns": ["carrier", "delay", "at"]}, cursor="delay", event_time="at", late="ignore"),
        source(files=FILES),
        source(files=FILES | {"format": "csv", "delimiter": "\t"}, key=["carrier"], late="correct", event_time="at"),
        source(files=FILES | {"delimiter": ";"}, object="arrival", key=["delay"], expected_within_seconds=60),
        source(push={}, every_seconds=5, expected_within_seconds=1),
    ],
)
def test_what_fits_is_no_problem(tmp_path: Path, declared: dict[str, Any]) -> None:
    assert problems(tmp_path, declared) == []


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (source(), "sources[0]: exactly one of rest, sql, files, push | none of them"),
        (source(files=FILES, push={}), "sources[0]: exactly one of rest, sql, files, push | files, push"),
        (source(files=FILES, cursor="at"), 'sources[0].cursor: no such key; it belongs to rest and sql | "at"'),
        (source(sql=SQL), "sources[0]: cursor or key beside it, as each time every record comes again | neither"),
        (
            source(rest=REST, key=["carrier"]),
            "sources[0].rest.cursor_parameter: cursor beside rest, whose greatest value it gives | since",
        ),
        (
            source(rest={"url": REST["url"]}, cursor="at"),
            "sources[0].rest.cursor_parameter: the parameter that asks for records from the cursor on | nothing",
        ),
        (
            source(rest=REST | {"pages": {"style": "next_url"}}, cursor="at"),
            "sources[0].rest.pages.path: this key, which style next_url needs | nothing",
        ),
        (
            source(rest=REST | {"pages": {"style": "link", "parameter": "page"}}, cursor="at"),
            (
                "sources[0].rest.pages.parameter: no such key with style link; "
                'it belongs to cursor, offset, number | "page"'
            ),
        ),
        (
            source(rest=REST | {"pages": {"style": "offset", "first": 1}}, cursor="at"),
            "sources[0].rest.pages.first: no such key with style offset; it belongs to number | 1",
        ),
        (
            source(rest=REST | {"auth": {}}, cursor="at"),
            "sources[0].rest.auth: exactly one of bearer, api_key, oauth2 | none of them",
        ),
        (
            source(rest=REST | {"auth": {"bearer": {"file": "/run/a", "variable": "A"}}}, cursor="at"),
            "sources[0].rest.auth.bearer: exactly one of variable, file | variable, file",
        ),
        (source(sql=SQL | {"url": {}}, key=["at"]), "sources[0].sql.url: exactly one of variable, file | none of them"),
        (
            source(sql=SQL | {"columns": ["carrier"]}, cursor="at"),
            'sources[0].sql.columns: cursor, key and event_time among them | no "at"',
        ),
        (
            source(sql=SQL | {"columns": ["at", "at"]}, cursor="at"),
            "sources[0].sql.columns: each column once | at, at",
        ),
        (
            source(files=FILES | {"format": "jsonl", "delimiter": ","}),
            'sources[0].files.delimiter: no such key with format jsonl | ","',
        ),
        (
            source(files=FILES | {"delimiter": '"'}),
            'sources[0].files.delimiter: an ASCII character that is neither a quote nor a line break | """',
        ),
        (
            source(files=FILES, repeated="correct"),
            "sources[0].repeated: key beside it, by which the row that it corrects is known | correct",
        ),
        (
            source(files=FILES, late="correct", event_time="at"),
            "sources[0].late: key beside it, by which the row that it corrects is known | correct",
        ),
        (
            source(files=FILES, late="ignore"),
            "sources[0].late: event_time beside it, as no row is late without | ignore",
        ),
        (
            source(files=FILES, allowed_lateness_seconds=5),
            "sources[0].allowed_lateness_seconds: event_time beside it, as no row is late without | 5",
        ),
        (source(files=FILES, key=["at", "at"]), "sources[0].key: each property once | at, at"),
        (
            source(files=FILES, expected_within_seconds=30),
            "sources[0].expected_within_seconds: at least every_seconds, which is 60 | 30",
        ),
        (
            source(files=FILES, object="arivals"),
            'sources[0].object: an object of the contract (did you mean "arrival"?) | "arivals"',
        ),
        (
            source(files=FILES, object="empty"),
            'sources[0].object: an object with properties | "empty", which has none',
        ),
        (
            source(files=FILES, object="arrival", key=["carrier"]),
            'sources[0].key[0]: a property of the object arrival: late, delay | "carrier"',
        ),
        (
            source(files=FILES, event_time="delay"),
            "sources[0].event_time: a property of logicalType date or timestamp | delay, of integer",
        ),
        (
            source(sql=SQL, object="arrival", cursor="late"),
            (
                "sources[0].cursor: a property of logicalType string or integer or number or date or timestamp"
                " | late, of boolean"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_told_where_it_stands(tmp_path: Path, declared: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, declared) == [problem]


def test_names_are_given_once(tmp_path: Path) -> None:
    pushed = source(push={})
    batch = {"name": "nightly", "source": "flights"}
    assert problems(tmp_path, pushed, pushed, batches=(batch, batch)) == [
        'batches[1].name: a name that no other has | "nightly"',
        'sources[1].name: a name that no other has | "flights"',
    ]


def test_a_batch_decides_over_a_source_that_has_what_the_input_needs(tmp_path: Path) -> None:
    sources = (source(push={}), source("truth", push={}, object="arrival"))
    assert problems(tmp_path, *sources, batches=({"name": "nightly", "source": "flights", "key": "carrier"},)) == []
    found = problems(
        tmp_path,
        *sources,
        batches=(
            {"name": "aa", "source": "flihgts"},
            {"name": "bb", "source": "truth"},
            {"name": "cc", "source": "flights", "key": "nothing"},
        ),
    )
    assert found == [
        'batches[0].source: a source of this declaration (did you mean "flights"?) | "flihgts"',
        'batches[1].source: a source whose records have what the input departure needs | "arrival", without carrier',
        'batches[2].key: a property of the object departure: carrier, delay, at | "nothing"',
    ]
