"""An isolated process as its worker holds it: how it is started, ended, and cleared away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from mainstay.runtime.frames import IsolatedModel

OUTPUT_BYTES: Final = 256 << 10  # what the pipe for printed output is asked to hold

_PREFIX: Final = "mainstay-isolated-"
_ABANDONED_SECONDS: Final = 60.0  # so old is a folder that nobody holds, and that nobody is just about to hold

_KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# The program of a kind. That of the libraries stands with what knows them, which this package never imports.
_CALLABLE_PROGRAM: Final = "mainstay.runtime.child"
_LIBRARY_PROGRAM: Final = "mainstay.catalog.library_child"
_GRAPH_PROGRAM: Final = "mainstay.runtime.graph_child"
_PROGRAMS: Final = {"python": _CALLABLE_PROGRAM, "onnx": _GRAPH_PROGRAM}


class ChildProcess:
    """A process, the socket to it, its output and its private folder.

    It is started by the thread it must not outlive: the kernel ends it with that thread. `exited` becomes readable when
    it has ended; then `reap` clears everything away, which must happen exactly once.
    """

    def __init__(self, model: IsolatedModel) -> None:
        """Raises OSError when the machine has no room for another process."""
        with contextlib.ExitStack() as undo:
            private = undo.enter_context(_PrivateFolder())
            self.socket, theirs = socket.socketpair()
            undo.callback(self.socket.close)
            self.output, writer = os.pipe()
            undo.callback(os.close, self.output)
            with theirs, os.fdopen(writer, "wb", buffering=0):
                self._process = _start(model, theirs.fileno(), writer, private.path)
            undo.callback(self._process.wait)
            undo.callback(self.kill)
            self.exited = os.pidfd_open(self._process.pid)
            self._undo = undo.pop_all()
        for descriptor in (self.socket.fileno(), self.output):
            os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # a user may be out of pages for pipes
            fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, OUTPUT_BYTES)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End the process and its group: whatever the model started ends with it."""
        # They say that it has ended, and so has everything in its group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Wait for its end and let go of all that was held for it; its exit code, or minus the signal that ended it."""
        os.close(self.exited)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        # The rest of its group is killed first, and then it is waited for: from then on its number may be another's.
        self._undo.close()
        return self._process.returncode


def _start(model: IsolatedModel, descriptor: int, output: int, directory: Path) -> subprocess.Popen[bytes]:
    """A new interpreter in a session of its own.

    It has nothing of our environment but where things are, neither the current folder nor the user's packages on its
    path, a fixed hash seed, and one thread for linear algebra, as where models are converted.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment["PYTHONHASHSEED"] = "0"
    environment |= dict.fromkeys(("HOME", "TMPDIR"), str(directory))
    environment |= dict.fromkeys(_ONE_THREAD, "1")
    program = _PROGRAMS.get(model.kind, _LIBRARY_PROGRAM)
    return subprocess.Popen(
        # -B: a version's folder stays as it is.
        [sys.executable, "-P", "-s", "-B", "-m", program, str(descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        env=environment,
        pass_fds=(descriptor,),
        start_new_session=True,
    )


class _PrivateFolder:
    """A temporary folder, held by a lock for as long as we live: without one it is `remove_abandoned`'s."""

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._temporary.name)
        try:
            self._held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if any(self.path.iterdir()):  # removing what a model has left may take long
            Thread(target=self._remove, name="remove-private-folder").start()
        else:
            self._remove()

    def _remove(self) -> None:
        self._temporary.cleanup()
        os.close(self._held)


def remove_abandoned() -> None:
    """Remove the private folders of workers that were killed before they could."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is held, or was removed by another, or is another's
            place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(place)
                if found.st_uid != os.geteuid() or time.time() - found.st_ctime < _ABANDONED_SECONDS:
                    continue
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(place)
