"""The distributions that shape what a version answers, by name and version."""

from __future__ import annotations

import ast
import platform
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import TYPE_CHECKING, Final

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mainstay.capability.types import ModelSource

_LIBRARIES: Final = {
    "sklearn": ("numpy", "scikit-learn"),
    "xgboost": ("numpy", "scikit-learn", "xgboost"),
    "lightgbm": ("numpy", "scikit-learn", "lightgbm"),
}
_CONVERTERS: Final = {
    "sklearn": ("onnx", "onnxruntime", "skl2onnx"),
    "xgboost": ("onnx", "onnxmltools", "onnxruntime", "skl2onnx"),
    "lightgbm": ("onnx", "onnxmltools", "onnxruntime", "skl2onnx"),
}
_UNNAMED: Final = ("joblib", "pandas", "skops")  # needed, but they leave no mark on what is answered
_OTHER_NAMES: Final = {"xgboost": ("xgboost-cpu",)}  # distributions that bring the same package


def find_environment(model: ModelSource, code: Mapping[str, bytes]) -> dict[str, str]:
    """Python and the distributions that shape the answers of `model`, with their versions.

    `code` is the folder's Python by path: what it imports is what a model of kind python runs on. Raises Misuse when
    what the kind needs is not installed.
    """
    python = {"python": ".".join(platform.python_version_tuple()[:2])}
    if model.kind == "remote":
        return python
    if model.kind == "onnx":
        return python | _versions(("onnxruntime",), (), "")
    if model.kind == "python":
        return python | _versions(_imported(code.values()), (), "")
    named = _LIBRARIES[model.kind]
    if model.run == "auto":
        named = tuple(sorted({*named, *_CONVERTERS[model.kind]}))
    return python | _versions(named, _UNNAMED, model.kind)


def _versions(named: Sequence[str], unnamed: Sequence[str], extra: str) -> dict[str, str]:
    found = {}
    missing = []
    for name in (*named, *unnamed):
        installed = next(filter(None, map(_version, (name, *_OTHER_NAMES.get(name, ())))), None)
        if installed is None:
            missing.append(name)
        elif name in named:
            found[name] = installed
    if missing:
        raise Misuse(
            f"registering a model of kind {extra} needs {', '.join(missing)}, which is not installed",
            hint=f"Run: pip install 'mainstay-ai[{extra}]'",
        )
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _imported(sources: Iterable[bytes]) -> list[str]:
    """The installed distributions that bring what Python files import by name, sorted."""
    modules: set[str] = set()
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            continue  # it may never be imported; when it is, the samples say so
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                modules.add(node.module.partition(".")[0])
    brought_by = packages_distributions()
    return sorted({name for module in modules - sys.stdlib_module_names for name in brought_by.get(module, ())})
