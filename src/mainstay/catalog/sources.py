"""Reading a capability folder once: what is checked, hashed and stored is that one reading."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from mainstay.capability.load import load_capability
from mainstay.capability.types import FILE_NAME
from mainstay.catalog.conversion import PICKLE_SUFFIXES, SKOPS_SUFFIX
from mainstay.catalog.environment import find_environment
from mainstay.catalog.trust import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_SUFFIX,
    PublicKey,
    check_may_open,
    check_reason,
    read_public_key,
    verify_signature,
)
from mainstay.catalog.types import StoredFile, Trust
from mainstay.catalog.versions import FOLDER, MAX_FILE_BYTES, read_bounded, stored_file
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.capability.load import Declared
    from mainstay.capability.types import Capability, ModelSource

MAX_DOCUMENT_BYTES: Final = 64 << 20
MAX_CODE_FILES: Final = 1_000
MAX_CODE_BYTES: Final = 64 << 20

_SUFFIXES: Final = {
    "sklearn": (SKOPS_SUFFIX, *PICKLE_SUFFIXES),
    "xgboost": (".json", ".ubj", *PICKLE_SUFFIXES),
    "lightgbm": (".txt", *PICKLE_SUFFIXES),
}


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that was brought: the files of the version but those that are made of them, and how they shape it."""

    root: Path  # a private copy, laid out as the version will be; gone once registering has ended
    declared: Declared
    contents: dict[str, bytes]  # by path inside the version
    code: tuple[StoredFile, ...]
    environment: dict[str, str]
    trust: Trust | None

    def stored(self, path: str) -> StoredFile:
        """A file of the folder, as a manifest names it."""
        inside = inside_version(path)
        return stored_file(inside, self.contents[inside])

    def content(self, path: str) -> bytes:
        """A file of the folder."""
        return self.contents[inside_version(path)]


@contextmanager
def reading(folder: Path, *, trust_pickle: str | None, signed_by: Sequence[Path]) -> Iterator[Sources]:
    """The folder, read once. What is validated is what was read, not what the files have become since.

    Raises InvalidDocument when the folder breaks its rules, Misuse when the model's file may not be opened or cannot be
    of its kind, and Failed when a signature does not hold.
    """
    reason = check_reason(trust_pickle)
    keys = [read_public_key(path) for path in signed_by]
    capability = load_capability(folder).capability
    _check_model_file(capability.model, reason, keys)
    contents, code = _read_all(folder, capability)
    trust = _find_trust(folder, capability.model, contents, reason, keys)
    with tempfile.TemporaryDirectory(prefix="mainstay-register-") as staging:
        for path, content in contents.items():
            place = Path(staging, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        declared = load_capability(Path(staging, FOLDER))
        if declared.capability != capability:
            raise Failed(f"{folder} changed while it was read", hint="Register it again when nobody is writing there.")
        python = {path: contents[path] for path in code if path.endswith(".py")}
        yield Sources(
            root=Path(staging),
            declared=declared,
            contents=contents,
            code=tuple(stored_file(path, contents[path]) for path in code),
            environment=find_environment(capability.model, python),
            trust=trust,
        )


def inside_version(path: str) -> str:
    """Where a file of the folder stands inside the version, under one spelling of its path."""
    return f"{FOLDER}/{PurePosixPath(path)}"


def _check_model_file(model: ModelSource, reason: str | None, keys: Sequence[PublicKey]) -> None:
    """Raises Misuse for a file that cannot hold a model of its kind, or may not be opened."""
    if model.file is None:
        if keys:
            raise Misuse(f"--signed-by: expected a model in a file, found kind {model.kind}, which has none to sign")
        return
    expected = _SUFFIXES.get(model.kind)
    if expected is not None and PurePosixPath(model.file).suffix.lower() not in expected:
        raise Misuse(
            f"model.file is {model.file}: expected a model of kind {model.kind} in a file ending in one of "
            f"{', '.join(expected)}"
        )
    check_may_open(model.file, reason=reason, signed=bool(keys))


def _find_trust(
    folder: Path, model: ModelSource, contents: dict[str, bytes], reason: str | None, keys: Sequence[PublicKey]
) -> Trust | None:
    """Why the model's file is trusted. A signature that was verified becomes a part of the version."""
    if model.file is None:
        return None
    if not keys:
        return Trust(reason=reason) if reason is not None else None
    beside = model.file + SIGNATURE_SUFFIX
    signature = _read(folder, beside, MAX_SIGNATURE_BYTES)
    signed_by = verify_signature(model.file, contents[inside_version(model.file)], signature, keys)
    contents[inside_version(beside)] = signature
    stored = stored_file(inside_version(beside), signature)
    return Trust(reason=reason, signed_by=signed_by.digest, signature=stored)


def _read_all(folder: Path, capability: Capability) -> tuple[dict[str, bytes], list[str]]:
    """Every file that makes a version, by its path inside it; and which of them are its code."""
    named = [FILE_NAME, capability.contract, capability.authority, capability.samples]
    if capability.reference is not None:
        named.append(capability.reference.file)
    contents = {inside_version(path): _read(folder, path, MAX_DOCUMENT_BYTES) for path in named}
    if capability.model.file is not None:
        contents[inside_version(capability.model.file)] = _read(folder, capability.model.file, MAX_FILE_BYTES)
    code = _read_code(folder, set(contents), capability.model.call)
    return contents | code, sorted(code)


def _read(folder: Path, path: str, limit_bytes: int) -> bytes:
    """A file of the folder. A link may lead within the folder; what it leads to is stored in its place."""
    try:
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise Misuse(f"{folder / path}: expected a file inside the folder, found a link that leaves it")
        return read_bounded(folder / path, limit_bytes)
    except OSError as error:
        raise Misuse(f"{folder / path}: expected a file, found: {error.strerror}") from None


def _read_code(folder: Path, named: set[str], call: str | None) -> dict[str, bytes]:
    """Every Python file of the folder, by its path inside the version; hidden directories and caches are left out.

    What is called finds its weights and tables where it stands: so for kind python every other file beside and below
    the called one belongs to the code.
    """
    beside = None if call is None else (folder / call.rpartition(":")[0]).parent
    found: dict[str, bytes] = {}
    room = MAX_CODE_BYTES if beside is None else MAX_FILE_BYTES
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix != ".py" and (beside is None or not path.is_relative_to(beside)):
            continue
        if any(part.startswith(".") or part == "__pycache__" for part in inside.parts) or not path.is_file():
            continue
        if inside_version(inside.as_posix()) in named:
            continue
        content = _read(folder, inside.as_posix(), room)
        room -= len(content)
        if len(found) >= MAX_CODE_FILES:
            raise Misuse(
                f"{folder} holds more than a capability's code: expected at most {MAX_CODE_FILES:,} files, found more",
                hint="Keep environments and packages outside of the folder, or in a hidden directory.",
            )
        found[inside_version(inside.as_posix())] = content
    return found
