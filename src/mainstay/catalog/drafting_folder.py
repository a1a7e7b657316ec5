"""The folder that a draft is written to: beside its place under a hidden name, and there by one rename when whole.

What a killed draft has left is removed by the next one of the same name.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from mainstay.capability.types import AUTHORITY_NAME, CONTRACT_NAME, FILE_NAME
from mainstay.catalog.drafting_types import REFERENCE, SAMPLES
from mainstay.catalog.sources import MAX_CODE_FILES
from mainstay.catalog.trust import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_SUFFIX,
    check_may_open,
    check_reason,
    read_public_key,
    verify_signature,
)
from mainstay.catalog.versions import MAX_FILE_BYTES, read_bounded
from mainstay.errors import Misuse
from mainstay.files import sync_directory, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUNBOOK: Final = "runbook.md"
MODEL_FOLDER: Final = "model"

_OURS: Final = frozenset({FILE_NAME, CONTRACT_NAME, AUTHORITY_NAME, RUNBOOK, SAMPLES, REFERENCE})
_CALL = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]{0,127})")
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")


class Brought(NamedTuple):
    """A model in the folder: one of `file` and `call`, and what it was called before."""

    name: str
    file: str | None
    call: str | None
    signed: bool = False


class Trust(NamedTuple):
    """Why a file that can run code may be opened; see `trust`."""

    reason: str | None = None
    signed_by: Sequence[Path] = ()


NOBODY: Final = Trust()  # says that the file is trusted


@contextmanager
def drafted_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target`, durably, when the block ends well, and is removed when it does not.

    Raises Misuse when there is something at `target`, or another process drafts it.
    """
    _check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    draft.mkdir(exist_ok=True)
    held = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _hold(held, draft, target)
        for each in draft.iterdir():  # what one that was killed has left
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        try:
            yield draft
        except BaseException:  # also when we are interrupted: nothing is left behind
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _check_free(target)
        for folder in (draft, *(each for each in draft.rglob("*") if each.is_dir())):
            sync_directory(folder)
        draft.rename(target)
        sync_directory(target.parent)
    finally:
        os.close(held)


def _check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise Misuse(
            f"{target} exists, and nothing is overwritten", hint="Choose another name, or another place with --output."
        )


def _hold(held: int, draft: Path, target: Path) -> None:
    """Lock the draft's folder. Raises Misuse when another process has it, or has just finished with it."""
    busy = f"{target} is being drafted by another process"
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(held).st_ino != draft.stat().st_ino:
            raise Misuse(busy)
    except (BlockingIOError, FileNotFoundError):
        raise Misuse(busy) from None


def bring_model(model: str, data: Path, folder: Path, trust: Trust) -> Brought:
    """Copy the model into `folder`: a file, or for `predict.py:predict` everything beside and below that file.

    Raises Misuse when it is absent, may not be opened or does not fit; Failed when its signature does not hold.
    """
    call = _CALL.fullmatch(model)
    if call is not None:
        return _bring_code(Path(call["file"]), call["function"], data, folder)
    path = Path(model)
    reason, keys = check_reason(trust.reason), [read_public_key(each) for each in trust.signed_by]
    check_may_open(path.name, reason=reason, signed=bool(keys))
    content = _read(path, MAX_FILE_BYTES)
    name = PurePosixPath(_UNUSUAL.sub("_", path.name).lstrip(".") or MODEL_FOLDER)
    inside = f"{MODEL_FOLDER}/{name.with_suffix(path.suffix.lower())}"
    if keys:
        signature = _read(path.with_name(path.name + SIGNATURE_SUFFIX), MAX_SIGNATURE_BYTES)
        verify_signature(path.name, content, signature, keys)
        write_atomic(folder / (inside + SIGNATURE_SUFFIX), signature)
    write_atomic(folder / inside, content)
    return Brought(path.name, inside, None, signed=bool(keys))


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        return read_bounded(path, limit_bytes)
    except OSError as error:
        raise Misuse(f"{path}: expected a file, found: {error.strerror}") from None


def _bring_code(file: Path, function: str, data: Path, folder: Path) -> Brought:
    """Everything beside and below a Python file, as a version keeps it; hidden files, caches and the sample are not."""
    if not file.is_file():
        raise Misuse(f"{file}: expected a Python file, found {'something else' if file.exists() else 'nothing'}")
    beside = file.resolve().parent
    if folder.resolve().is_relative_to(beside):
        raise Misuse(
            f"{file} stands above the folder that is drafted, and everything beside and below it belongs to the model",
            hint="Move it, with what it needs and nothing else, into a folder of its own.",
        )
    chosen = []
    for path in sorted(beside.rglob("*")):
        inside = path.relative_to(beside)
        is_hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if is_hidden or not path.is_file() or path.resolve() == data.resolve():
            continue
        if inside.as_posix() in _OURS:
            raise Misuse(f"{path}: expected no file of a name that the draft itself has")
        chosen.append(inside)
        if len(chosen) > MAX_CODE_FILES:
            raise Misuse(
                f"{beside} holds more than a model: expected at most {MAX_CODE_FILES:,} files, found more",
                hint="Move the file, with what it needs and nothing else, into a folder of its own.",
            )
    room = MAX_FILE_BYTES
    for inside in chosen:
        content = _read(beside / inside, room)
        room -= len(content)
        write_atomic(folder / inside, content)
    return Brought(f"{file.name}:{function}", None, f"{file.name}:{function}")
