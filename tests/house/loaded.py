"""What importing a package really loads, seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from house.source import Module

_PROGRAM = """
import importlib, json, sys
names, forbidden = json.loads(sys.stdin.read())
sys.path[:0] = sys.argv[1:]
loaded = {}
for name in names:
    before = set(sys.modules)
    importlib.import_module(name)
    loaded[name] = sorted({each.partition(".")[0] for each in set(sys.modules) - before} & set(forbidden))
print(json.dumps(loaded))
"""


def forbidden_imports(
    modules: Sequence[Module], packages: Sequence[str], forbidden: AbstractSet[str], path: Path
) -> Iterator[str]:
    """Modules of `packages` that import something forbidden: written anywhere in them, or loaded by way of others.

    `path` is the folder to import from. Modules are imported in order of name; each answers for what it was the
    first to load. Yields the error of a module that does not import.
    """
    chosen = [module for module in modules if module.package in packages]
    for module in chosen:
        for found in module.imports:
            name = found.names[0]
            if not found.for_typing and name.split(".")[0] in forbidden:
                yield f"{module.shown}:{found.line}: imports {name}, which the data plane never needs"
    for name, loaded in _load([module.name for module in chosen], forbidden, path).items():
        if isinstance(loaded, str):
            yield loaded
        elif loaded:
            yield f"importing {name} loads {', '.join(loaded)} by way of others; python -X importtime shows the way"


def _load(names: Sequence[str], forbidden: AbstractSet[str], path: Path) -> dict[str, list[str] | str]:
    process = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(path)],
        input=json.dumps([sorted(names), sorted(forbidden)]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if process.returncode:
        return {"": "the data plane does not import: " + process.stderr.strip()[-2_000:]}
    loaded: dict[str, list[str] | str] = json.loads(process.stdout)
    return loaded
