"""The rules of the house about source code. Each gives one line per breach; no line means the rule holds."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from house.source import Module

MAX_FILE_LINES = 600  # a file is shorter than this
LONG_FUNCTION_LINES = 45  # so many functions in a hundred are shorter than this:
SHORT_FUNCTIONS_PERCENT = 95
MAX_FUNCTION_LINES = 80

_DIRECTIVE = re.compile(r"pragma: no \w+|(noqa|type|fmt|mypy)\s*:\s*[A-Za-z-]+[0-9]*(\[[^]]*\])?([,\s]+[A-Z]+[0-9]+)*")


def wrong_imports(modules: Sequence[Module], may_import: Mapping[str, AbstractSet[str]]) -> Iterator[str]:
    """Imports that point up or across the house, type-only ones too, and packages the table does not know."""
    unknown = sorted({module.package for module in modules} - may_import.keys())
    for package in unknown:
        yield f"{package}: expected every package in tests/house/floors.py, found no such name; give it a floor"
    known = {module.name for module in modules}
    for module in modules:
        allowed = may_import.get(module.package, frozenset()) | {module.package}
        for line, name in _own_imports(module, known):
            parts = name.split(".")[1:] or [name]
            if allowed.isdisjoint({parts[0], ".".join(parts[:2])}):
                yield f"{module.shown}:{line}: {module.package} imports {name}; allowed: {', '.join(sorted(allowed))}"


def hidden_imports(modules: Sequence[Module]) -> Iterator[str]:
    """Imports of our own inside a function, or that happen only under a condition other than TYPE_CHECKING."""
    own = {module.name.split(".")[0] for module in modules}
    for module in modules:
        for found in module.imports:
            name = found.names[0]
            if name.split(".")[0] not in own:
                continue
            if found.in_function:
                yield f"{module.shown}:{found.line}: {name} is imported inside a function; import it at the top"
            elif found.guarded:
                yield f"{module.shown}:{found.line}: {name} is imported under a condition other than TYPE_CHECKING"


def import_cycles(modules: Sequence[Module]) -> Iterator[str]:
    """The first cycle of modules that import each other when they are loaded, if there is one."""
    known = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        found = [each for each in module.imports if not each.for_typing]
        graph[module.name] = {name for each in found if (name := _known(each.names, known))} - {module.name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "these modules import each other: " + " < ".join(error.args[1])


def filled_packages(modules: Sequence[Module]) -> Iterator[str]:
    """`__init__.py` files below the root that hold more than a docstring."""
    for module in modules:
        if module.is_package and "." in module.name:
            rest = [node for node in module.tree.body if not isinstance(node, ast.Expr)]
            if rest:
                yield f"{module.shown}:{rest[0].lineno}: expected at most a docstring; import from the module itself"


def long_files(modules: Sequence[Module]) -> Iterator[str]:
    """Files of MAX_FILE_LINES lines or more."""
    for module in modules:
        lines = len(module.text.splitlines())
        if lines >= MAX_FILE_LINES:
            yield f"{module.shown}: expected under {MAX_FILE_LINES} lines, found {lines}; split it by reason to change"


def long_functions(modules: Sequence[Module]) -> Iterator[str]:
    """Functions over MAX_FUNCTION_LINES; and all that are long, when they are too large a share."""
    functions = [(module, node, _length(node)) for module in modules for node in _functions(module)]
    long = [entry for entry in functions if entry[2] >= LONG_FUNCTION_LINES]
    for module, node, length in functions:
        if length > MAX_FUNCTION_LINES:
            yield f"{module.shown}:{node.lineno}: {node.name} has {length} lines; at most {MAX_FUNCTION_LINES}"
    short_percent = 100 * (1 - len(long) / len(functions)) if functions else 100.0
    if short_percent < SHORT_FUNCTIONS_PERCENT:
        names = ", ".join(f"{module.shown}:{node.lineno} ({length})" for module, node, length in long)
        yield (
            f"expected {SHORT_FUNCTIONS_PERCENT} % of functions under {LONG_FUNCTION_LINES} lines,"
            f" found {short_percent:.1f} %; the long ones: {names}"
        )


def unexplained_handlers(modules: Sequence[Module]) -> Iterator[str]:
    """Broad `except` clauses and `suppress` calls without a reason on their line or the one above."""
    for module in modules:
        for node in ast.walk(module.tree):
            if _is_broad(node):
                line: int = getattr(node, "lineno", 0)
                if not any(_says_why(module.comments.get(each, "")) for each in (line, line - 1)):
                    yield f"{module.shown}:{line}: broad except without a reason; say why here or on the line above"


def _own_imports(module: Module, known: AbstractSet[str]) -> Iterator[tuple[int, str]]:
    """The line and the most exact module of every import of our own, however deep and for whatever purpose."""
    own = {name.split(".")[0] for name in known}
    for found in module.imports:
        if found.names[0].split(".")[0] in own:
            yield found.line, _known(found.names, known) or found.names[-1]


def _known(names: Sequence[str], known: AbstractSet[str]) -> str | None:
    return next((name for name in names if name in known), None)


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_broad(node: ast.AST) -> bool:
    match node:
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=ast.expr() as caught):
            return _names_everything(caught)
        case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=arguments):
            return any(_names_everything(each) for each in arguments)
    return False


def _names_everything(caught: ast.expr) -> bool:
    candidates = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(ast.unparse(each).rpartition(".")[2] in {"Exception", "BaseException"} for each in candidates)


def _says_why(comment: str) -> bool:
    """Whether a comment holds words of its own, beside what it tells a tool."""
    return re.search(r"[a-z]{2,}", _DIRECTIVE.sub("", comment)) is not None
