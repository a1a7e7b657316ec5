"""Which contract a command means: a file, or the one of a capability folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mainstay.capability.types import CONTRACT_NAME, FILE_NAME
from mainstay.documents import Problems, read_bytes, read_document, shorten
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from pathlib import Path


def contract_file(given: Path) -> Path:
    """The file of a contract; of a folder, the one that its declaration names.

    Raises Misuse where there is none, and InvalidDocument where the declaration cannot be read.
    """
    if not given.exists():
        raise Misuse(f"{given}: expected a contract or a capability folder, found nothing")
    if not given.is_dir():
        return given
    declaration, problems = given / FILE_NAME, Problems()
    content = read_bytes(declaration, str(declaration), problems)
    document = None if content is None else read_document(content, str(declaration), problems)
    problems.raise_any()
    data: Any = {} if document is None else document.root.data
    named = data["contract"].value.data if isinstance(data, dict) and "contract" in data else CONTRACT_NAME
    path = given / (named if isinstance(named, str) else CONTRACT_NAME)
    if not path.resolve().is_relative_to(given.resolve()):
        raise Misuse(f"{declaration}: contract: expected a path inside the folder, found {shorten(str(named))}")
    return path
