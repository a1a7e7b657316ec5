"""The child that opens a model to describe it: `python -m mainstay.catalog.describe_child DIRECTORY`.

Only `mainstay.catalog.describe` starts it. It reads `request.json` there and writes `reply.json`. Whatever else goes
wrong ends it with a traceback, which the parent shows.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.catalog.conversion import Refusal
from mainstay.catalog.describe import REPLY, REQUEST, Called, Described, DescribeRequest
from mainstay.runtime.child import RefusedModel, describe, import_function, plain_value
from mainstay.runtime.confinement import confine

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.catalog.conversion import Limits

# One process opens one file, and the libraries of the others need not be installed.
_BY_SUFFIX: Final = {
    ".json": "mainstay.catalog.describe_xgboost",
    ".ubj": "mainstay.catalog.describe_xgboost",
    ".txt": "mainstay.catalog.describe_lightgbm",
}
_OTHERS: Final = "mainstay.catalog.describe_estimators"
_EXTRAS: Final = {"xgboost": "xgboost", "lightgbm": "lightgbm", "onnxmltools": "xgboost"}


def main() -> None:
    """Do what the request in the directory named on the command line asks for."""
    directory = Path(sys.argv[1])
    request = msgspec.json.decode((directory / REQUEST).read_bytes(), type=DescribeRequest)
    _limit(request.limits)
    confine(Path(request.folder), directory)
    (directory / REPLY).write_bytes(msgspec.json.encode(answer(request), enc_hook=plain_value))


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(request: DescribeRequest) -> Described | Called | Refusal:
    """The description, what the calls gave, or why there is none."""
    try:
        return _call(request) if request.call else _describe(request)
    except RefusedModel as refused:
        return Refusal(message=refused.message, hint=refused.hint)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0], "sklearn")
        return Refusal(
            message=f"the model cannot be opened: {error}",
            hint=f"Install what it was made with, such as `pip install 'mainstay-ai[{extra}]'`.",
        )


def _describe(request: DescribeRequest) -> Described:
    path = Path(request.folder, request.file)
    module: Any = import_module(_BY_SUFFIX.get(path.suffix.lower(), _OTHERS))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made: Described = module.describe_file(path, request.trusted_types)
    # By name, for only the scikit-learn that saved the file may have it.
    notes = dict.fromkeys(
        str(each.message) for each in caught if each.category.__name__ == "InconsistentVersionWarning"
    )
    return msgspec.structs.replace(made, notes=(*made.notes, *notes))


def _call(request: DescribeRequest) -> Called:
    """The function's outputs; where a call with all records fails, each is called alone."""
    try:
        function = import_function(request.folder, request.call)
    except (RefusedModel, ModuleNotFoundError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the file raises is told to whoever drafts
        raise RefusedModel(f"importing {request.call} raised {describe(error, request.folder)}") from None
    with contextlib.suppress(Exception, SystemExit):  # whatever it raises, it is asked again below
        return Called(outputs=_run(function, request.records))
    outputs: list[dict[str, Any] | None] = []
    first = ""
    for record in request.records:
        try:
            outputs += _run(function, [record])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises is an answer about this record
            outputs.append(None)
            first = first or describe(error, request.folder)
    return Called(outputs=outputs, error=first)


def _run(function: Callable[[list[dict[str, Any]]], Any], records: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    given = function(records)
    is_whole = isinstance(given, list | tuple) and len(given) == len(records)
    if not is_whole or not all(isinstance(each, dict) for each in given):
        raise TypeError(f"expected a list of {len(records)} dicts, one for each record, found a {type(given).__name__}")
    return list(given)


if __name__ == "__main__":
    main()
