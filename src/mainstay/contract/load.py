"""Reading a data contract: the standard's rules, then those that its schema cannot state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mainstay.contract import consistency, standard
from mainstay.contract.types import Contract, Item, Property, Quality, SchemaObject, Server
from mainstay.documents import Problems, describe, plain, read_bytes, read_document
from mainstay.errors import InvalidDocument
from mainstay.structs import read_struct

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.documents import Place


class ReadContract(NamedTuple):
    """What was read of a contract; `contract` is None when it has problems."""

    contract: Contract | None
    objects: dict[str, SchemaObject | None]  # by name, also of a contract with problems; None: not to be understood


def load_contract(path: Path) -> Contract:
    """The contract in a file. Raises InvalidDocument with every problem of it."""
    problems = Problems()
    content = read_bytes(path, str(path), problems)
    return _only(None if content is None else read_contract(content, str(path), problems), problems)


def parse_contract(content: bytes, file: str) -> Contract:
    """The contract in `content`, which problems call `file`. Raises InvalidDocument with every problem of it."""
    problems = Problems()
    return _only(read_contract(content, file, problems), problems)


def _only(found: ReadContract | None, problems: Problems) -> Contract:
    problems.raise_any()
    if found is None or found.contract is None:
        raise InvalidDocument(problems.found)
    return found.contract


def read_contract(content: bytes, file: str, problems: Problems) -> ReadContract | None:
    """What can be read of the contract in `content`, after its problems have been added to `problems`."""
    before = len(problems.found)
    document = read_document(content, file, problems)
    if document is None:
        return None
    keys = document.root.data if isinstance(document.root.data, dict) else {}
    older = keys.get("dataContractSpecification")
    if older is not None:
        problems.add(
            file,
            older.line,
            "dataContractSpecification",
            "the Open Data Contract Standard (apiVersion: v3.1.0, kind: DataContract)",
            f"the older Data Contract Specification {describe(plain(older.value))}",
        )
        return None
    objects: dict[str, SchemaObject | None] = {}

    def check_object(place: Place, made: SchemaObject | None) -> None:
        standard.check_object(place, made)
        consistency.check_object(place, made)
        name = standard.raw(place, "name")
        if isinstance(name, str):
            objects.setdefault(name, made)

    checks: dict[type, Any] = {**_CHECKS, SchemaObject: check_object}
    contract = read_struct(document, Contract, problems, checks=checks, null_is_absent=False)
    return ReadContract(contract if len(problems.found) == before else None, objects)


def _check_property(place: Place, made: Any) -> None:
    standard.check_property(place, made)
    consistency.check_property(place, made)


_CHECKS: Final[dict[type, Any]] = {
    Contract: consistency.check_contract,
    Property: _check_property,
    Item: _check_property,
    Quality: standard.check_quality,
    Server: standard.check_server,
}
