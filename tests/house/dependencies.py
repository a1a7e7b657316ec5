"""What `pyproject.toml` declares, what the code imports, what `docs/dependencies.md` explains: the same."""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from house.source import Module

_IMPORTED_AS: Final = {
    "openlineage-python": "openlineage",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "xgboost-cpu": "xgboost",
}
_ROW = re.compile(r"^\| `([A-Za-z0-9._-]+)` \|", re.MULTILINE)
_PIN = re.compile(
    r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,._-]+\])?==([\w.+!]+)(?: ; [^\\\n]+)? \\\n"
    r"(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+",
    re.MULTILINE,
)


def declared(project: Mapping[str, Any]) -> dict[str, set[str]]:
    """Direct dependencies by where they stand: `base`, each extra, each group, `build-system`. Without the project."""
    places: dict[str, list[str]] = {
        "base": project["project"]["dependencies"],
        **project["project"].get("optional-dependencies", {}),
        **project.get("dependency-groups", {}),
        "build-system": project["build-system"]["requires"],
    }
    own = normal_name(project["project"]["name"])
    return {place: {normal_name(each) for each in listed} - {own} for place, listed in places.items()}


def normal_name(requirement: str) -> str:
    """The name in a requirement, as PEP 503 compares names."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def wrong_entries(direct: AbstractSet[str], document: str) -> Iterator[str]:
    """Dependencies without a row in the document, rows without a dependency, and rows that stand twice.

    A row is a line of a table that begins with the name in backticks.
    """
    rows = Counter(normal_name(name) for name in _ROW.findall(document))
    for name in sorted(direct - rows.keys()):
        yield f"{name} is in pyproject.toml and has no row: say what it does, its licence, its keeper and its cost"
    for name in sorted(rows.keys() - direct):
        yield f"{name} has a row and is not in pyproject.toml: remove the row"
    for name, count in rows.items():
        if count > 1:
            yield f"{name} has {count} rows: keep one"


def undeclared_imports(
    modules: Sequence[Module], declared_names: AbstractSet[str], local: AbstractSet[str]
) -> Iterator[str]:
    """Imports of what is neither Python's, nor a direct dependency, nor among the `local` top-level modules."""
    known = {_IMPORTED_AS.get(name, name.replace("-", "_")) for name in declared_names}
    known |= sys.stdlib_module_names | local
    for module in modules:
        for found in module.imports:
            top = found.names[0].split(".")[0]
            if top not in known:
                yield f"{module.shown}:{found.line}: imports {top}, which pyproject.toml does not name"


def unpinned(lock: str) -> Iterator[str]:
    """Lines of a requirements file that are neither a comment nor part of a version pinned by SHA-256."""
    for line in _PIN.sub("", lock).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"expected name==version and its hashes, found {line.strip()!r}"


def pinned(lock: str) -> set[tuple[str, str]]:
    """The names and versions a requirements file pins; a name may have several, for different Pythons."""
    return {(normal_name(match[1]), match[2]) for match in _PIN.finditer(lock)}
