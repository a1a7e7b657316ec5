"""A process that runs sources, one after the other, as it is told: `python -m mainstay.intake.working WORKSPACE`.

Each line of its standard input is an Order; of its standard output, each is a Said: a sign of life, or what came of the
order. It ends when its standard input does. It is a process of its own so that whoever tells it can end it, whatever it
hangs in, and so that what a source does to its memory is done to no other.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, Timer
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from mainstay.errors import Failed
from mainstay.files import write_all
from mainstay.intake.declared import Declarations
from mainstay.intake.pacing import Order, Said
from mainstay.intake.runs import Means, Run
from mainstay.intake.state import state_of
from mainstay.lineage.emitting import Emitter
from mainstay.processes import set_up_logging
from mainstay.signing import PASSPHRASE_VARIABLE, load_signing_key
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from mainstay.intake.pacing import Ran

SLICE_SECONDS: Final = 60.0  # of one source; then others have their turn

_NICE: Final = 5  # serving and sealing come first
_END_SECONDS: Final = 5.0  # what is left to a run when its teller has gone
_BEAT_SECONDS: Final = 1.0


def main() -> None:
    """Work until standard input ends."""
    set_up_logging("intake")
    os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever tells it what to do ends it
    said = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    workspace = open_workspace(Path(sys.argv[1]))
    given = os.environ.get(PASSPHRASE_VARIABLE)
    key = load_signing_key(workspace.keys, None if given is None else given.encode())
    emitter = Emitter(workspace)
    try:
        Worker(Means(workspace, key, emitter), said).work()
    finally:
        emitter.close()


class Worker:
    """Follows orders, one after the other."""

    def __init__(self, means: Means, said: int) -> None:
        """`said` is the file descriptor that is written to."""
        self._means = means
        self._said = said
        self._declarations = Declarations(means.workspace)
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._ending = False
        self._beaten = 0.0

    def work(self) -> None:
        """Follow what standard input says until it ends."""
        Thread(target=self._listen, name="orders", daemon=True).start()
        while (order := self._orders.get()) is not None:
            self._say(Said(ended=True, ran=self._follow(order)))

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            self._orders.put(msgspec.json.decode(line, type=Order))
        self._ending = True
        self._orders.put(None)
        # Who told it has gone, and whatever it is in, nobody waits for it: it goes on from there another time.
        end = Timer(_END_SECONDS, os._exit, args=(0,))
        end.daemon = True
        end.start()

    def _follow(self, order: Order) -> Ran | None:
        in_force = self._declarations.look().get(order.capability)
        sources = {each.name: each for each in in_force.capability.sources} if in_force is not None else {}
        source = sources.get(order.source)
        if in_force is None or source is None:
            return None  # it was declared when the order was given
        until = monotonic() + SLICE_SECONDS
        with ExitStack() as held:
            try:
                held.enter_context(state_of(self._means.workspace.data, order.capability, order.source).running())
            except Failed:
                return None
            run = Run(
                self._means,
                in_force,
                source,
                on_progress=self._beat,
                may_go_on=lambda: not self._ending and monotonic() < until,
            )
            return run.go()

    def _beat(self, words: str) -> None:
        if monotonic() - self._beaten >= _BEAT_SECONDS:
            self._beaten = monotonic()
            self._say(Said(life=words))

    def _say(self, said: Said) -> None:
        write_all(self._said, msgspec.json.encode(said) + b"\n")


if __name__ == "__main__":
    main()
