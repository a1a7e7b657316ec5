"""What people write: the files of a folder, the settings, and what the command line reads."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import tiny
from authority import folders
from fuzz.mutations import DIGITS, FUZZ, HOSTILE, mutated, mutated_json
from mainstay.authority.policy import compile_authority
from mainstay.capability.load import Declared, load_capability
from mainstay.catalog.samples import read_samples
from mainstay.cli.calls import read_json_lines
from mainstay.contract.load import parse_contract
from mainstay.contract.validator import compile_object
from mainstay.errors import InvalidDocument, Misuse
from mainstay.workspace import SETTINGS_FILE, Settings, open_workspace

if TYPE_CHECKING:
    from pathlib import Path

YAML_TOKENS = (
    *(b"\x00", b"\xff", b"\n", b"\t", b"&a ", b"*a", b"!!python/object:os.system ", b"<<: *a\n", b"? ", b"%YAML 9\n"),
    *(
        b"---\n",
        b"...\n",
        b"- " * 500,
        b"[" * 500,
        b"{a: " * 500,
        b"&a [*a]",
        b"|9\n",
        b">-\n",
        b'"\\ud800"',
        b"'",
        b'"',
    ),
    *(DIGITS, b".inf", b"0x" + DIGITS, b"1e" + DIGITS, b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b": " * 500),
    b"".join(b"a%d: &a%d [%b]\n" % (n, n, b"*a%d," % (n - 1) * 9 if n else b"x") for n in range(9)),
)
CEDAR_TOKENS = (
    *(b"\x00", b"\xff", b"permit", b"forbid", b"when { ", b" }", b"unless", b";", b"//", b"@id", b'"', b"\\u{110000}"),
    *(b"context.input", b"(" * 400, b"!" * 400, b"-" * 400, b"[" * 400, b"1 + " * 400, DIGITS, b'decimal("', b"ip("),
    *(b"?principal", b"is in", b"has", b"like", b"==", b"if true then", b"\xe2\x80\xae", "é".encode()),
)
DECLARED_YAML = yaml.safe_dump(tiny.DECLARATION, sort_keys=False).encode()
CONTRACT_YAML = yaml.safe_dump(tiny.CONTRACT, sort_keys=False).encode()
SETTINGS = b'log = "tests.example.com/fuzz"\nport = 8321\ndrain_seconds = 1.5\n'
TOML_TOKENS = (
    b"\x00",
    b"\xff",
    b"[",
    b"[[",
    b"]]",
    b'"""',
    b"=",
    b"a.b=1\n",
    DIGITS,
    b"x = " + b"[" * 3_000,
    b"1979-05-27",
)
CONTRACT = parse_contract(json.dumps(tiny.CONTRACT).encode(), "contract.odcs.yaml")
SAMPLES = [{"a": 0.5, "b": 0.25, "note": "x"}, {"a": -1}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp("folder"))


def check_folder(folder: Path, name: str, content: bytes) -> None:
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    try:
        assert isinstance(load_capability(folder), Declared)
    except InvalidDocument:
        pass
    finally:
        (folder / name).write_bytes(before)


@FUZZ
@given(mutated(DECLARED_YAML, YAML_TOKENS) | mutated_json(tiny.DECLARATION))
def test_a_declaration_is_read_or_has_problems(folder: Path, content: bytes) -> None:
    check_folder(folder, "capability.yaml", content)


@FUZZ
@given(mutated(CONTRACT_YAML, YAML_TOKENS) | mutated_json(tiny.CONTRACT))
def test_a_contract_is_read_and_compiles_or_has_problems(content: bytes) -> None:
    try:
        contract = parse_contract(content, "contract.odcs.yaml")
    except InvalidDocument:
        return
    for each in contract.schema:
        compiled = compile_object(each)
        json.dumps(compiled.json_schema())
        for value in HOSTILE:
            compiled.violations(value)


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    return load_capability(folders.write_folder(tmp_path_factory.mktemp("loans")))


@FUZZ
@given(mutated(folders.AUTHORITY.encode(), CEDAR_TOKENS))
def test_policies_are_compiled_or_have_problems(loans: Declared, content: bytes) -> None:
    (loans.folder / "authority.cedar").write_bytes(content)
    with suppress(InvalidDocument):
        compile_authority(load_capability(loans.folder))


@FUZZ
@given(st.lists(mutated_json(*SAMPLES), max_size=4).map(b"\n".join) | st.sampled_from(HOSTILE))
def test_samples_are_read_or_have_problems(content: bytes) -> None:
    contract = compile_object(CONTRACT.schema[0])
    try:
        rows = read_samples(content, "samples.jsonl", contract)
    except (InvalidDocument, Misuse):
        return
    assert all(len(row) == len(contract.fields) for row in rows)


@FUZZ
@given(
    mutated(SETTINGS, TOML_TOKENS), st.dictionaries(st.sampled_from(Settings.__struct_fields__), st.text(max_size=9))
)
def test_settings_are_read_or_said_to_be_wrong(tmp_path: Path, content: bytes, said: dict[str, str]) -> None:
    (tmp_path / SETTINGS_FILE).write_bytes(content)
    environment = {f"MAINSTAY_{name.upper()}": value for name, value in said.items()}
    try:
        settings = open_workspace(tmp_path, environment).settings
    except Misuse:
        return
    assert 1 <= settings.port <= 65_535
    assert 0 <= settings.drain_seconds <= 3_600


@pytest.mark.parametrize("value", ["9" * 5_000, "1e400", "nan", "-inf", "", " 1", "1_0", "0x10", "\ud800", "\x00"])
@pytest.mark.parametrize("name", ["port", "drain_seconds", "workers"])
def test_a_variable_that_is_no_number_is_said_to_be_wrong(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / SETTINGS_FILE).write_bytes(SETTINGS)
    with pytest.raises(Misuse, match=name.upper()):
        open_workspace(tmp_path, {f"MAINSTAY_{name.upper()}": value})


def test_settings_that_are_a_folder_are_said_to_be_unreadable(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).mkdir()
    with pytest.raises(Misuse, match="expected a readable file"):
        open_workspace(tmp_path)


@FUZZ
@given(st.lists(mutated_json(*SAMPLES), max_size=4).map(b"\n".join) | st.sampled_from(HOSTILE) | st.binary(max_size=60))
def test_input_of_the_command_line_is_read_or_its_line_is_named(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "input.json"
    source.write_bytes(content)
    with suppress(Misuse):
        assert len(read_json_lines(source)) <= content.count(b"\n") + 1
