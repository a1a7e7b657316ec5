"""Python source as the rules of the house see it: modules, their imports and their comments."""

from __future__ import annotations

import ast
import tokenize
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Module:
    """One source file. `name` is dotted and without `__init__`; `shown` is how messages name the file."""

    name: str
    path: Path
    shown: str

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def comments(self) -> dict[int, str]:
        """The comment on each line that has one, without its `#`."""
        with self.path.open("rb") as file:
            tokens = list(tokenize.tokenize(file.readline))
        return {token.start[0]: token.string.lstrip("#! ") for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import, however deep it stands; `importlib.import_module("literal")` counts as one."""
        return tuple(_imports(self, self.tree.body, _Where()))

    @property
    def package(self) -> str:
        """The package of the house it belongs to: `mainstay.ledger.wal` to `ledger`, `mainstay.files` to `files`."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


@dataclass(frozen=True)
class Import:
    """One name imported. `names` holds what it may mean, the most exact first: `a.b.c`, then `a.b`."""

    line: int
    names: tuple[str, ...]
    in_function: bool
    guarded: bool  # inside `if`, `try`, `with`, a loop or a class, and not only for type checking
    for_typing: bool  # inside `if TYPE_CHECKING:`


def read_modules(folder: Path, root: Path) -> list[Module]:
    """Every Python file below `folder`, by name; names are dotted from the folder above `folder`."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(name, path, str(path.relative_to(root))))
    return modules


@dataclass(frozen=True)
class _Where:
    in_function: bool = False
    guarded: bool = False
    for_typing: bool = False

    def inside(self, node: ast.AST) -> _Where:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return replace(self, in_function=True)
        if isinstance(node, ast.stmt) and not self.guarded:
            return replace(self, guarded=True)
        return self


def _imports(module: Module, nodes: Iterable[ast.AST], where: _Where) -> Iterator[Import]:
    """Imports in the order of the text. A stack of what is still to be seen: every node of every file comes by here."""
    ahead: list[tuple[ast.AST, _Where]] = [(node, where) for node in nodes]
    ahead.reverse()
    while ahead:
        node, where = ahead.pop()
        for names in _imported(module, node):
            yield Import(getattr(node, "lineno", 0), names, where.in_function, where.guarded, where.for_typing)
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            inside = where.inside(node)
            below: list[tuple[ast.AST, _Where]] = [(each, replace(where, for_typing=True)) for each in node.body]
            below += [(each, inside) for each in node.orelse]
        else:
            inside = where if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign) else where.inside(node)
            below = [(each, inside) for each in ast.iter_child_nodes(node)]
        ahead += reversed(below)


def _imported(module: Module, node: ast.AST) -> Iterator[tuple[str, ...]]:
    match node:
        case ast.Import(names=aliases):
            yield from ((alias.name,) for alias in aliases)
        case ast.ImportFrom(names=aliases):
            base = _absolute(module, node)
            yield from ((f"{base}.{alias.name}", base) for alias in aliases)
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            if _called_name(function) in {"import_module", "__import__"}:
                yield (name,)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*base, node.module] if node.module else base)


def _called_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_type_checking(test: ast.expr) -> bool:
    return _called_name(test) == "TYPE_CHECKING"
