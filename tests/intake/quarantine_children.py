"""What tests kill: `python quarantine_children.py WORKSPACE HOW AT REASON`: settling every open row of the source, or
with HOW `erased` erasing the rows of PERSON.

It ends itself with SIGKILL right before its AT-th change of a name in the workspace's files, from 1; with AT 0 it says
how many there were. Everything durable that it does is a rename, a link or a removal, or lies between two of them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from intake.held import SOURCE
from mainstay.intake.erasing import SourceErasure
from mainstay.intake.erasing_match import Sought
from mainstay.intake.quarantine import Chosen
from mainstay.intake.quarantine_settling import Outcome, Settler
from mainstay.lake.lake import open_lake
from mainstay.workspace import open_workspace
from tiny import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.workspace import Workspace

PERSON: Final = Sought((("who", "K-3"),))
STEPS: Final = frozenset({"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"})


def killer(root: Path, at: int, steps: frozenset[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that counts, and kills."""
    killer_counts[0] = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in steps and _is_ours(root, arguments[0]):
            killer_counts[0] += 1
            if killer_counts[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _is_ours(root: Path, what: Any) -> bool:
    """Whether it is about a file of the workspace; names without a path are those of a folder that is being removed."""
    if isinstance(what, int):
        return True
    path = os.fsdecode(what)
    return not path.startswith("/") or path.startswith(str(root))


killer_counts: Final = [0]


def settle(workspace: Workspace, how: Outcome, reason: str) -> int:
    """Settle every open row; how many these were."""
    settler = Settler(workspace, open_lake(workspace), NAME, SOURCE)
    done = settler.settle(how, Chosen(), reason=reason, by="os:ops")
    return 0 if done is None else done.rows


def erase(workspace: Workspace, reason: str) -> int:
    """Erase the rows of PERSON; how many were accepted ones."""
    desk = SourceErasure(workspace, open_lake(workspace), NAME, SOURCE)
    gone = desk.carry_out(PERSON, frozenset({"who"}), reason=reason, by="os:dpo")
    return 0 if gone is None else gone.accepted


if __name__ == "__main__":
    root, how, at, reason = sys.argv[1:]
    opened = open_workspace(Path(root))
    if at == "wait":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
    else:
        # Most of an erasure is the tables' own work, which shows by their locks.
        steps = STEPS | {"fcntl.flock"} if how == "erased" else STEPS
        sys.addaudithook(killer(Path(root), int(at), steps))
    outcomes = {each: each for each in get_args(Outcome)}
    rows = erase(opened, reason) if how == "erased" else settle(opened, outcomes[how], reason)
    sys.stdout.write(f"{killer_counts[0]} {rows}\n")
