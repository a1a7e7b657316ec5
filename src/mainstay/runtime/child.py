"""The process behind an isolated lane. As a program it runs a Python callable: `python -m mainstay.runtime.child FD`.

It gives up what it can before it loads anything of the model, answers a frame of rows with a frame of answers, and
ends when its worker does. What loads a library's models is a program of its own that calls `serve`.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import io
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainstay.files import write_all
from mainstay.runtime.confinement import confine, die_with, limit_resources, stand_back
from mainstay.runtime.frames import ChildInfo, Fault, Gave, Inbox, Label, Refused, Start, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.runtime.frames import IsolatedModel
    from mainstay.runtime.types import Row

MAX_REQUEST_BYTES = 64 << 20
MAX_MESSAGE_CHARACTERS = 500
_READ_BYTES = 1 << 18


class RefusedModel(Exception):
    """The model cannot be run as it is declared, for a reason a person can act on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Loaded(NamedTuple):
    """A model that can be run."""

    run: Callable[[Sequence[Row]], Sequence[Gave]]  # one for every row; raises when it fails on any of them
    classes: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()


def main() -> None:
    serve(int(sys.argv[1]), load_callable)


def serve(descriptor: int, load: Callable[[IsolatedModel], Loaded]) -> None:
    """Run the model that the worker on the other end of the socket `descriptor` names. Does not return."""
    channel = _Channel(descriptor)
    start = msgspec.msgpack.decode(channel.read(), type=Start)
    die_with(start.parent)
    limit_resources(start.model.memory_bytes)
    if start.model.background:
        stand_back()
    confined = confine(Path(start.model.folder), Path.cwd())
    _show_what_is_printed()
    opening, loaded = _load(load, start.model, confined)
    channel.write(msgspec.msgpack.encode(opening))
    decode = msgspec.msgpack.Decoder(tuple[int, list[tuple[Any, ...]]]).decode
    while loaded is not None:
        number, rows = decode(channel.read())
        channel.write(_ENCODER.encode((number, _answers(loaded.run, rows, start.model.folder))))
    os._exit(0)


class _Channel:
    """The socket to the worker. The process ends with it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._inbox = Inbox(MAX_REQUEST_BYTES)
        self._pid = os.getpid()

    def read(self) -> bytes:
        while chunk := os.read(self._descriptor, _READ_BYTES):
            payload = self._inbox.feed(chunk)
            if payload is not None:
                return payload
        os._exit(0)  # not by an exception: neither a model's threads nor what it left to be done at exit may hold us

    def write(self, payload: bytes) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # a fork that the model forgot to end came back here as our twin
        write_all(self._descriptor, frame(payload))


def _show_what_is_printed() -> None:
    """What is printed is passed on by the line, and a crash in C shows where Python was."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()


def _load(
    load: Callable[[IsolatedModel], Loaded], model: IsolatedModel, confined: tuple[str, ...]
) -> tuple[ChildInfo | Refused, Loaded | None]:
    try:
        loaded = load(model)
    except RefusedModel as refused:
        return Refused(message=refused.message, hint=refused.hint), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the model's code raises is told to the worker
        shown = "".join(traceback.format_exception(error))[-4_000:]
        return Refused(
            message=f"loading the model raised {describe(error, model.folder)}", hint=shown, raised=True
        ), None
    return ChildInfo(classes=loaded.classes, notes=loaded.notes, confined=confined), loaded


# Kind python.


def load_callable(model: IsolatedModel) -> Loaded:
    """The function that `model.call` names. Raises RefusedModel, and whatever its file raises when it is imported."""
    return Loaded(_build_caller(import_function(model.folder, model.call or ""), model))


def import_function(folder: str, call: str) -> Callable[[list[dict[str, Any]]], Any]:
    """The function that `call` names, such as `predict.py:predict`, from a file of `folder`. Raises as above."""
    file, _, name = call.partition(":")
    path = Path(folder, file)
    sys.path.insert(0, folder)
    # A file may have the name of a module that is loaded already, such as types.py.
    module_name = path.stem if path.stem not in sys.modules else f"model_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise RefusedModel(f"model.call names {file}, expected a Python file of the folder, found none")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    function: Callable[[list[dict[str, Any]]], Any] | None = getattr(module, name, None)
    if not callable(function):
        known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise RefusedModel(
            f"{file} has no function {name!r}", f"It has: {', '.join(known[:20]) or 'no function'}. See model.call."
        )
    return function


def _build_caller(
    function: Callable[[list[dict[str, Any]]], Any], model: IsolatedModel
) -> Callable[[Sequence[Row]], Sequence[Gave]]:
    fields, output_fields, known = model.fields, model.output_fields, frozenset(model.output_fields)

    def call(rows: Sequence[Row]) -> Sequence[Gave]:
        given = function([dict(zip(fields, row, strict=True)) for row in rows])
        if not isinstance(given, list | tuple) or len(given) != len(rows):
            found = f"{len(given)}" if isinstance(given, list | tuple) else f"a {type(given).__name__}"
            raise TypeError(f"expected a list of {len(rows)} outputs, one for each record, found {found}")
        return [_gave(output) for output in given]

    def _gave(output: Any) -> Gave:
        if not isinstance(output, dict):
            raise TypeError(f"expected a dict for each record, found a {type(output).__name__}")
        unknown = output.keys() - known
        if unknown:
            raise ValueError(f"the output object of the contract has no field {min(map(str, unknown))!r}")
        confidence = None if model.confidence is None else output.get(model.confidence)
        return Gave([output.get(name) for name in output_fields], confidence)

    return call


# Answers.


def _answers(run: Callable[[Sequence[Row]], Sequence[Gave]], rows: Sequence[Row], folder: str) -> list[msgspec.Raw]:
    """An encoded answer per row. A row that the model fails on fails alone: its batch is run again one by one."""
    try:
        return [_encoded(gave) for gave in run(rows)]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the model raises is an answer about these rows
        if len(rows) == 1:
            return [msgspec.Raw(_ENCODER.encode(Fault(describe(error, folder))))]
    return [answer for row in rows for answer in _answers(run, [row], folder)]


def _encoded(gave: Gave) -> msgspec.Raw:
    try:
        return msgspec.Raw(_ENCODER.encode(gave))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return msgspec.Raw(_ENCODER.encode(Fault(f"expected an output of JSON values: {_text(error)}")))


def plain_value(value: Any) -> Any:
    """A scalar or an array of numpy, or of a library that does as numpy does, as plain values."""
    tolist = getattr(value, "tolist", None)
    if tolist is None:
        raise TypeError(f"a value of type {type(value).__name__} is no JSON value")
    return tolist()


_ENCODER = msgspec.msgpack.Encoder(enc_hook=plain_value)


def describe(error: BaseException, folder: str) -> str:
    """An exception on one line, with the last place in the model's own code that it passed."""
    places = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(folder)]
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {_text(error)}{where}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of the model's own may fail at this, too
        return "it cannot say"
    return text.encode("utf-8", "replace").decode()[:MAX_MESSAGE_CHARACTERS]


if __name__ == "__main__":
    main()
