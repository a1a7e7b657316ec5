"""Mainstay takes an AI pilot to production and keeps it there."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstay.client.client import AsyncClient, Client
    from mainstay.embedded import embed

__version__ = version("mainstay-ai")
__all__ = ["AsyncClient", "Client", "__version__", "embed"]

# Loaded when they are first asked for (PEP 562), so that a worker does not load a client, nor a client a server.
_PLACES = {"AsyncClient": "mainstay.client.client", "Client": "mainstay.client.client", "embed": "mainstay.embedded"}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
