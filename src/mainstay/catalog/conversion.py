"""Converting a model to ONNX in a process of its own: what is asked of it, what it answers, and how it is run.

Loading a model runs code of whoever saved it, or at best a large library's parsers over their bytes. It happens in a
child that holds nothing of ours: an isolated interpreter, an environment without secrets, limits on memory, CPU time
and files, a private directory, a deadline. The parent gives and takes files, and believes only what it checks. The
child runs as the same user: this keeps accidents and hangs away, it is no prison for an attacker's pickle.

The interpreter is isolated as by `-I` (neither the current directory nor the user's packages are looked into, and no
PYTHON variable of the caller is passed on), spelt out because `-I` would also ignore the fixed hash seed, without which
skl2onnx writes the same model in one of several orders.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from mainstay.catalog.versions import MAX_FILE_BYTES, read_bounded
from mainstay.errors import NOT_READ, Failed, Misuse
from mainstay.runtime.types import Feature, ModelInput, ModelOutput  # noqa: TC001 - msgspec reads the annotations

Library: TypeAlias = Literal["sklearn", "xgboost", "lightgbm"]

REQUEST = "request.json"
REPLY = "reply.json"
ARTIFACT = "artifact.onnx"
MAX_REPLY_BYTES = 512 << 20
MAX_SHOWN_BYTES = 4_096  # of what a child that failed had printed

PICKLE_SUFFIXES = (".joblib", ".pkl", ".pickle")
SKOPS_SUFFIX = ".skops"

_CHILDREN: Final[dict[Library, str]] = {
    "sklearn": "mainstay.catalog.convert",
    "xgboost": "mainstay.catalog.convert_xgboost",
    "lightgbm": "mainstay.catalog.convert_lightgbm",
}
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")
_POLL_SECONDS = 0.05


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion may use."""

    wall_seconds: float = 300.0
    cpu_seconds: int = 300
    memory_bytes: int = 16 << 30  # of address space, which libraries reserve far more of than they use


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is asked to do."""

    library: Library
    source: str  # the model's file name in the private directory
    features: tuple[Feature, ...]  # in the order of each row
    features_declared: bool  # whether the declaration lists them; else they are all of the contract's
    rows: list[tuple[Any, ...]]
    trusted_types: tuple[str, ...]
    integers: Literal["float", "int64"]  # the tensor that integers go into, where there is a choice
    limits: Limits


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the original model answers for every row. A number that is not finite is None."""

    probabilities: list[list[float | None]] | None = None
    labels: list[str | int | bool] | None = None
    values: list[float | None] | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag="converted"):
    """The model was converted; the graph stands in `artifact.onnx`."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    classes: tuple[str | int | bool, ...]
    original: Answered
    original_rounded: Answered  # on the same rows with every number rounded to float32, as the graph is given them
    has_integer_choice: bool  # whether asking again with integers="int64" would make another graph
    notes: tuple[str, ...]


class NoForm(msgspec.Struct, frozen=True, kw_only=True, tag="no form"):
    """The model was loaded, and has no ONNX form that is known."""

    reason: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The model cannot be taken at all, for a reason a person can act on."""

    message: str
    hint: str = ""


class NotConverted(Exception):
    """The model has no ONNX form that answers as it does; `hint` is what its owner may do about that."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def convert(request: Request, source: bytes) -> tuple[Reply, bytes]:
    """The reply and the ONNX graph for the model in `source`.

    Raises NotConverted when the model has no ONNX form, Misuse when the child refuses it, Failed when the child fails
    or takes more than its limits.
    """
    with tempfile.TemporaryDirectory(prefix="mainstay-convert-", ignore_cleanup_errors=True) as private:
        directory = Path(private)
        (directory / request.source).write_bytes(source)
        (directory / REQUEST).write_bytes(msgspec.json.encode(request))
        code, shown = run_child(_CHILDREN[request.library], directory, request.limits.wall_seconds)
        reply = _reply(directory / REPLY, code, shown)
        if isinstance(reply, NoForm):
            raise NotConverted(reply.reason)
        if isinstance(reply, Refusal):
            raise Misuse(reply.message, hint=reply.hint)
        try:
            return reply, read_bounded(directory / ARTIFACT, MAX_FILE_BYTES)
        except FileNotFoundError:
            raise Failed("the conversion ended without an ONNX graph", hint=_tail(shown)) from None


def _reply(path: Path, code: int, shown: bytes) -> Reply | NoForm | Refusal:
    """What the child wrote, if it ended well."""
    if code != 0:
        lines = shown.decode("utf-8", "replace").strip().splitlines()
        last = lines[-1] if lines else "it printed nothing"
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise Failed(f"the conversion failed ({ending}): {last[:500]}", hint=_tail(shown))
    try:
        return msgspec.json.decode(read_bounded(path, MAX_REPLY_BYTES), type=Reply | NoForm | Refusal)
    except FileNotFoundError:
        raise Failed("the model ended its process before it was converted", hint=_tail(shown)) from None
    except NOT_READ as error:
        raise Failed(f"the conversion answered with something else than a reply: {error}", hint=_tail(shown)) from None


def _tail(shown: bytes) -> str:
    text = shown.decode("utf-8", "replace").strip()
    return f"It printed:\n{text}" if text else ""


def run_child(child: str, directory: Path, wall_seconds: float, work: str = "the conversion") -> tuple[int, bytes]:
    """The exit code of the module `child`, run in `directory`, and the end of what it printed.

    Raises Failed when `work`, which it does, takes too long.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment["PYTHONHASHSEED"] = "0"
    environment |= dict.fromkeys(("HOME", "TMPDIR"), str(directory))
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", child, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        shown, in_time = _watch(process, reader, time.monotonic() + wall_seconds)
    finally:
        # The whole group: a model's threads and children end with it, also when we are interrupted.
        _kill_group(process)
        os.close(reader)
    if not in_time:
        hint = _tail(shown) or "A model that is too large to convert runs as it is with `model.run: isolated`."
        raise Failed(f"{work} took longer than {wall_seconds:g} s and was stopped", hint=hint)
    return process.wait(), shown


def _watch(process: subprocess.Popen[bytes], reader: int, deadline: float) -> tuple[bytes, bool]:
    """Follow the child until it ends or the deadline; the end of what it printed, and whether it ended in time."""
    os.set_blocking(reader, False)
    shown = b""
    in_time = True
    while process.poll() is None:
        if time.monotonic() >= deadline:
            in_time = False
            break
        shown = _read_available(reader, shown, _POLL_SECONDS)
    return _read_available(reader, shown, 0), in_time


def _read_available(reader: int, shown: bytes, wait_seconds: float) -> bytes:
    """The end of `shown` and of what stands in the pipe, at most one megabyte of it read."""
    if not select.select([reader], [], [], wait_seconds)[0]:
        return shown
    for _ in range(16):
        try:
            chunk = os.read(reader, 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            time.sleep(wait_seconds)  # nobody holds the pipe any more, so it is always readable
            break
        shown = (shown + chunk)[-MAX_SHOWN_BYTES:]
    return shown


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # They say that it has ended, and so has everything it started in its group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
