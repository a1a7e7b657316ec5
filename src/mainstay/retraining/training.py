"""Fitting a challenger: the folder's own code, in a process of its own, on rows that were frozen before.

The process is confined as those are that open models: it reads its interpreter and a copy of the folder, writes that
copy alone, opens no socket, and has a share of memory, a time, and one thread for each numeric library, which with the
seed is what makes the same bytes of the same rows. What it changed in the copy is looked at before it is believed.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec

from mainstay.capability.keeping import Retraining  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.capability.load import load_capability
from mainstay.catalog.conversion import Refusal, run_child
from mainstay.catalog.versions import read_bounded
from mainstay.errors import NOT_READ, Failed

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.capability.types import Capability

REQUEST: Final = "request.json"
REPLY: Final = "reply.json"
ROWS: Final = "rows.parquet"
FOLDER: Final = "folder"
MAX_FILES: Final = 10_000  # of a folder
MAX_REPLY_BYTES: Final = 1 << 20

_CHILD: Final = "mainstay.retraining.train_child"
_CACHE: Final = "__pycache__"


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is asked to do, in its private directory."""

    call: str  # `train.py:train`
    seed: int
    memory_bytes: int
    cpu_seconds: int
    parent: int  # the process that waits for it: when that ends, so does this


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The function came to its end."""


def train(private: Path, declared: Retraining) -> str:
    """Call the folder's function in `private`, which holds `folder` and `rows.parquet`; the end of what it printed.

    Only the model, the samples, the reference and the files that are declared may differ afterwards. Raises Failed when
    the function raises, takes more than its limits or changes something else.
    """
    folder = private / FOLDER
    capability = load_capability(folder).capability
    before = _digests(folder)
    seconds = declared.time_limit_minutes * 60
    request = TrainRequest(
        call=declared.train,
        seed=declared.seed,
        memory_bytes=declared.memory_mb << 20,
        cpu_seconds=int(seconds) + 1,
        parent=os.getpid(),
    )
    (private / REQUEST).write_bytes(msgspec.json.encode(request))
    code, shown = run_child(_CHILD, private, seconds, "training")
    printed = shown.decode("utf-8", "replace").strip()
    _check_reply(private / REPLY, code, printed)
    for cache in folder.rglob(_CACHE):
        shutil.rmtree(cache, ignore_errors=True)
    _check_changes(before, _digests(folder), may_change(capability, declared))
    return printed


def may_change(capability: Capability, declared: Retraining) -> frozenset[str]:
    """The files of a folder that training may write."""
    files = {capability.samples, *declared.files}
    if capability.model.file is not None:
        files.add(capability.model.file)
    if capability.reference is not None:
        files.add(capability.reference.file)
    return frozenset(files)


def _check_reply(path: Path, code: int, printed: str) -> None:
    hint = f"It printed:\n{printed}" if printed else ""
    try:
        reply = msgspec.json.decode(read_bounded(path, MAX_REPLY_BYTES), type=Done | Refusal)
    except FileNotFoundError:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise Failed(f"training ended its process with {how} before it was done", hint=hint) from None
    except NOT_READ as error:
        raise Failed(f"training answered with something else than a reply: {error}", hint=hint) from None
    if isinstance(reply, Refusal):
        raise Failed(reply.message, hint=reply.hint or hint)


def _digests(folder: Path) -> dict[str, str]:
    """Every file of a folder by its path, with its digest. Raises Failed where something is no plain file."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Failed(f"training left {name}: expected plain files only")
        if path.is_file():
            with path.open("rb") as file:
                digest = sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            found[name] = digest.hexdigest()
        if len(found) > MAX_FILES:
            raise Failed(f"training left more than {MAX_FILES:,} files in the folder")
    return found


def _check_changes(before: dict[str, str], after: dict[str, str], allowed: frozenset[str]) -> None:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    wrong = [name for name in changed if name not in allowed]
    if wrong:
        raise Failed(
            f"training changed {', '.join(wrong[:10])}: expected only {', '.join(sorted(allowed))}",
            hint="What else it may write is named in retraining.files.",
        )
    if not changed:
        raise Failed("training changed nothing: expected a new model, or the files that are declared")
