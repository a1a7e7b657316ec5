"""What tests kill: `python door_children.py HOME DIE_AT LIMIT KEYED`. It takes all that waits in a landing.

It kills itself at a moment counted from its beginning: before and after everything that is made durable. With DIE_AT 0
it says `ready`, begins with the next line, and is killed from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake import doors
from mainstay.contract import tables_sifting
from mainstay.intake import door_rows
from mainstay.intake.door import Door
from mainstay.intake.known_keys import KnownKeys
from mainstay.intake.landing import Landing
from mainstay.lake.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable


def moments(then: Callable[[int], None]) -> list[tuple[Any, str, Any]]:
    """Have `then` called, with its number, at every moment in between; what was there before, to be put back."""
    count = 0

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def each(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            then(count)
            done = work(*given, **named)
            count += 1
            then(count)
            return done

        return each

    places: list[tuple[Any, str]] = [(Table, "append"), (KnownKeys, "commit"), (KnownKeys, "_write"), (Landing, "drop")]
    places += [(Door, "take")]
    before = [(owner, name, getattr(owner, name)) for owner, name in places]
    for owner, name, work in before:
        setattr(owner, name, counted(work))
    return before


def take_all(feed: doors.Feed, text: str) -> None:
    for item in feed.landing.waiting():
        feed.take(item, text)
        feed.landing.drop(item)


def main() -> None:
    home, die_at, limit, keyed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "keyed"
    door_rows.PART_ROWS = 3  # type: ignore[misc]  # smaller, so that there are many moments to die in
    tables_sifting.MAX_ROWS = 2  # type: ignore[misc]  # the same
    feed = doors.Feed(home, doors.source(key=("id",) if keyed else ()))

    def die(moment: int) -> None:
        if moment == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if die_at:
        moments(die)
    else:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
    take_all(feed, doors.CONTRACT.replace("1000", limit))


if __name__ == "__main__":
    main()
