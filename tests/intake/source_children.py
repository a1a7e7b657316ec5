"""A process that asks a source again and again, to be killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import intake.databases
import intake.folders  # noqa: F401 - what the processes need is imported once, before they are forked
from mainstay.intake.fetching import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Event

    from mainstay.intake.fetching import Fetcher
    from mainstay.intake.landing import Landing
    from mainstay.workspace import Workspace


def ask(
    ready: Event, open_fetcher: Callable[..., Fetcher], workspace: Workspace, source: Any, landing: Landing
) -> None:
    """As runs do it: go on behind what landed last."""
    fetcher = open_fetcher(workspace, "late-arrival", source, landing)
    ready.set()
    while True:
        waiting = landing.waiting()
        try:
            item = fetcher.step(waiting[-1].cursor if waiting else None)
        except Unavailable:  # SQLite, in the moment in which a writer begins its log
            item = None
        if item is None:
            time.sleep(0.002)


class Children:
    """Starts processes that have imported everything."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        dialects = ("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite")
        self._context.set_forkserver_preload(["intake.source_children", *dialects])
        with pytest.MonkeyPatch.context() as patch:  # before Python 3.13 the server has no path of its own
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            first = self._context.Process(target=time.sleep, args=(0,))
            first.start()
            first.join()

    def start(self, *arguments: Any) -> BaseProcess:
        """One that asks now, with the arguments of `ask`."""
        ready = self._context.Event()
        process = self._context.Process(target=ask, args=(ready, *arguments))
        process.start()
        assert ready.wait(30)
        return process
