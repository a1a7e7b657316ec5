"""`docs/reference/capability.md` says of every key what the types say: what it takes, its bounds, its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import yaml
from msgspec import inspect

from mainstay.capability.load import load_capability
from mainstay.capability.types import Capability
from mainstay.contract.types import RULES
from mainstay.structs import bounds, expectation

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "reference" / "capability.md"
EXAMPLE = REPOSITORY / "examples" / "flights" / "capabilities" / "late-arrival"


def rows(kind: inspect.StructType, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, what it takes and its default, of every field of a struct and of those below it."""
    for field in kind.fields:
        key = f"{path}{field.encode_name}"
        yield key, takes(field.type), default(field)
        yield from below(key, field.type)


def below(key: str, kind: inspect.Type) -> Iterator[tuple[str, str, str]]:
    match bare(kind):
        case inspect.StructType() as struct:
            yield from rows(struct, f"{key}.")
        case inspect.VarTupleType(item_type=inspect.StructType() as struct):
            yield from rows(struct, f"{key}[].")
        case inspect.DictType(value_type=inspect.StructType() as struct):
            yield from rows(struct, f"{key}.NAME.")


def bare(kind: inspect.Type) -> inspect.Type:
    """The type without metadata, and without null."""
    if isinstance(kind, inspect.Metadata):
        return bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        others = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        return bare(others[0]) if len(others) == 1 else kind
    return kind


def takes(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(takes(member) for member in kind.types if not isinstance(member, inspect.NoneType))
    words, plain = expectation(kind), bare(kind)
    limits = "" if isinstance(plain, inspect.VarTupleType) else bounds(plain)
    unit = " characters" if isinstance(plain, inspect.StrType) else ""
    words = f"{words}, {limits}{unit}" if limits else words
    if isinstance(plain, inspect.VarTupleType):
        many = f", {bounds(plain)} of them" if bounds(plain) else ""
        return f"a list of {takes(plain.item_type)}{many}"
    if isinstance(plain, inspect.DictType):
        return f"a mapping from {takes(plain.key_type)}, to {takes(plain.value_type)}"
    return words


def default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, msgspec.Struct):
        return "its defaults"
    if isinstance(value, tuple):
        return f"`[{', '.join(f'{each:g}' for each in value)}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_the_reference_names_every_key_with_what_it_takes_and_its_default() -> None:
    found = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    declared = inspect.type_info(Capability)
    assert isinstance(declared, inspect.StructType)
    assert [row[:3] for row in found] == list(rows(declared))
    assert all(len(meaning) > 10 for *_, meaning in found)


def test_the_reference_explains_every_rule() -> None:
    table = PAGE.read_text("utf-8").partition("| rule |")[2]
    assert re.findall(r"`([a-z-]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])) == list(RULES)


def test_the_examples_load(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    whole, live, kept, in_trouble = map(yaml.safe_load, blocks)
    contract = EXAMPLE / "contract.odcs.yaml"
    named = ("model/late-arrival.skops", "tests/samples.jsonl", "tests/reference.jsonl")
    for path in (*named, "authority.cedar", "train.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "contract.odcs.yaml").write_bytes(contract.read_bytes())
    for example in (whole, whole | live, whole | live | kept, whole | in_trouble):
        (tmp_path / "capability.yaml").write_text(yaml.safe_dump(example))
        assert load_capability(tmp_path).capability.name == "late-arrival"
    assert {"when", "fallback", "breaker", "limits"} <= in_trouble.keys()


if __name__ == "__main__":
    for row in rows(inspect.type_info(Capability)):  # type: ignore[arg-type]  # it is a struct
        print("| `{}` | {} | {} |".format(*row))  # noqa: T201 - to start the page from
