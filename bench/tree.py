"""What a server costs when it is many processes: CPU and memory of everything that this process has started.

`adopt_orphans` makes this process the parent of whatever its descendants leave behind (prctl(2),
PR_SET_CHILD_SUBREAPER), so that a daemon that a server starts stays in the tree, and is ended with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator

PR_SET_CHILD_SUBREAPER = 36
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LEADER_SECONDS = 20.0  # that the first process of a server has to end with all the others
LEFT_SECONDS = 5.0  # that those have which it leaves behind


@dataclass(frozen=True)
class Memory:
    """Of a tree of processes. In `resident_mb` a page that two share counts twice, in `proportional_mb` once."""

    resident_mb: float
    proportional_mb: float


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def descendants() -> list[int]:
    """Every process below this one, zombies included."""
    children: dict[int, list[int]] = {}
    for pid, fields in _stats():
        children.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def tree_cpu_seconds() -> float:
    """User and system time of every process that this one has started, directly or not, ended ones included.

    A process that ended counts among its parent's waited-for children, or is a zombie that still has its times, so
    that nothing short-lived is missed. proc(5); resolution 10 ms.
    """
    below = set(descendants())
    ticks = sum(sum(map(int, fields[11:15])) for pid, fields in _stats() if pid in below)
    own = os.times()
    return ticks / TICKS_PER_SECOND + own.children_user + own.children_system


def tree_memory() -> Memory:
    """Memory of every process below this one."""
    resident = proportional = 0
    for pid in descendants():
        sizes = _sizes(pid)
        resident += sizes.get("Rss", 0)
        proportional += sizes.get("Pss", 0)
    return Memory(resident / 1024, proportional / 1024)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, then what it leaves behind, and kill what does not.

    Everything below this process is ended: it runs one server at a time, and nothing else.
    """
    process.terminate()
    _wait(process, LEADER_SECONDS, lambda: process.poll() is not None)
    _signal(_reap(process), signal.SIGTERM)
    _wait(process, LEFT_SECONDS, lambda: not _reap(process))
    while left := _reap(process):
        _signal(left, signal.SIGKILL)
        time.sleep(0.05)


def _wait(process: subprocess.Popen[bytes], seconds: float, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        _reap(process)
        time.sleep(0.05)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # it has ended meanwhile
            continue


def _reap(process: subprocess.Popen[bytes]) -> list[int]:
    """Collect what has ended, adopted processes too; whoever is left."""
    process.poll()
    for pid in descendants():
        if pid == process.pid:
            continue
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # another's child
            continue
    return descendants()


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Of every process its /proc/PID/stat from the state on: state, parent, ..."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            yield int(entry.name), text.rpartition(")")[2].split()


def _sizes(pid: int) -> dict[str, int]:
    """Sizes of a process in kB by name."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has ended, or is a zombie
        return {}
    return {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
