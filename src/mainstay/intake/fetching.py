"""Asking a source for what it has: the form that every kind has, and how one is opened."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from mainstay.errors import MainstayError, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.sources import Source
    from mainstay.intake.landing import Item, Landing
    from mainstay.workspace import Workspace

_KINDS: Final = ("rest", "sql", "files", "push")
_MODULES: Final = {"push": "adopting"}  # of this package, where one has another name than its kind
_EXTRA: Final = frozenset({"sqlalchemy", "psycopg", "obstore", "polars", "pyarrow"})


class Fetcher(Protocol):
    """One source that is being asked. Whoever holds it has the source's lock, and keeps it as long as that."""

    def step(self, cursor: Any) -> Item | None:
        """Land at most one item of what comes behind `cursor`, and return it; None: there is nothing new now.

        `cursor` is that of the newest item that landed, or what the tables know; None: from the beginning. An item may
        hold no record: it only says where to go on. Raises Unavailable when the source does not give what it should,
        Misuse when it cannot be asked as it is declared, and OSError when the disk takes no more; nothing has landed
        then, and the step may be tried again.
        """
        ...


class Unavailable(MainstayError):
    """A source did not give what it should, and nothing landed. `code` is one of `findings`."""

    def __init__(self, code: str, detail: str, *, retry_after_seconds: float | None = None) -> None:
        """`detail` is for people and holds no secret; `retry_after_seconds` is what the source asked for."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


def open_fetcher(workspace: Workspace, capability_name: str, source: Source, landing: Landing) -> Fetcher:
    """Whoever fetches from this source. Each kind's module has a function of this name and these parameters.

    Raises Misuse when the declaration cannot be followed, and when what the kind needs is not installed.
    """
    declared = [kind for kind in _KINDS if getattr(source, kind) is not None]
    if len(declared) != 1:
        found = " and ".join(declared) or "none"
        raise Misuse(f"source {source.name}: expected one of {', '.join(_KINDS)}, found {found}")
    kind = declared[0]
    try:  # late: each kind needs other libraries, and a workspace has those of its own kinds
        module = import_module(f"mainstay.intake.{_MODULES.get(kind, kind)}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        message = f"source {source.name}: a source of kind `{kind}` needs {error.name}, which is not installed"
        raise Misuse(message, hint="Install it with `pip install 'mainstay[connectors]'`.") from None
    opened: Callable[[Workspace, str, Source, Landing], Fetcher] = module.open_fetcher
    return opened(workspace, capability_name, source, landing)
