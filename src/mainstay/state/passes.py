"""Loops that steer, in one process under one lease: each compares what should be with what is, and takes a step.

Every pass has a thread of its own, so that a slow one delays no other. What goes wrong in one is logged and tried
again. A process that has lost the lease ends at once: another one steers, and what it writes is fenced from us.
"""

from __future__ import annotations

import logging
import os
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol

from mainstay.errors import MainstayError
from mainstay.state.lease import Lease, LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from mainstay.state.database import Database

logger = logging.getLogger("mainstay.state")

LOST_STATUS: Final = 75  # EX_TEMPFAIL: begun again, it waits for the lease

_RENEWALS: Final = 3  # in the time of a lease
_WAIT_SECONDS: Final = 1.0  # at most, until it is looked again whether the lease is free
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


class Pass(Protocol):
    """A loop that steers. `turn` may be killed anywhere, and is then made again by another process."""

    @property
    def name(self) -> str:
        """What it is called in the log."""

    @property
    def every_seconds(self) -> float:
        """How long it rests between two turns."""

    def turn(self, database: Database, lease: Lease, stop: Callable[[], bool]) -> None:
        """Do what is due, and return soon after `stop` says so. What it writes, it writes through `lease.write`."""


def run_passes(database: Database, lease_seconds: float, passes: Sequence[Pass], stop: Event) -> None:
    """Wait for the lease, then give every pass its turns until `stop` is set.

    The process ends here, with LOST_STATUS, when another one takes the lease from it.
    """
    lease = Lease(database, lease_seconds)
    if not _wait_for(lease, stop):
        return
    logger.info("steering as %s in epoch %d", lease.holder, lease.epoch)
    threads = [Thread(target=_give_turns, args=(each, database, lease, stop), name=each.name) for each in passes]
    for thread in threads:
        thread.start()
    while not stop.wait(lease_seconds / _RENEWALS):
        try:
            lease.renew()
        except LeaseLost as error:
            _end(error)
        except MainstayError as error:
            logger.error("lease not renewed: %s", error)  # noqa: TRY400 - the message says all
    for thread in threads:
        thread.join()
    lease.give_up()


def _wait_for(lease: Lease, stop: Event) -> bool:
    """Whether the lease was taken; not where `stop` is set before."""
    complaint = ""
    while not stop.is_set():
        problem = ""
        try:
            if lease.take():
                return True
        except MainstayError as error:
            problem = str(error)
        if problem and problem != complaint:
            logger.error("lease not taken: %s", problem)
        complaint = problem
        stop.wait(min(_WAIT_SECONDS, lease.seconds / _RENEWALS))
    return False


def _give_turns(each: Pass, database: Database, lease: Lease, stop: Event) -> None:
    complaint, pause = "", _FIRST_PAUSE_SECONDS
    while not stop.is_set():
        problem = ""
        try:
            each.turn(database, lease, stop.is_set)
        except LeaseLost as error:
            _end(error)
        except (MainstayError, OSError) as error:
            problem = str(error)
            if problem != complaint:
                logger.error("%s: %s", each.name, problem)  # noqa: TRY400 - the message says all
        except Exception:  # a fault of one pass must not end the others
            problem = "fault"
            logger.exception("%s: a fault, tried again", each.name)
        if complaint and not problem:
            logger.info("%s goes on", each.name)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if problem else _FIRST_PAUSE_SECONDS
        complaint = problem
        stop.wait(max(each.every_seconds, pause) if problem else each.every_seconds)


def _end(error: LeaseLost) -> None:
    logger.error("ended, since another process steers: %s", error)
    logging.shutdown()
    os._exit(LOST_STATUS)  # threads of ours may be in the middle of something that they must not finish
