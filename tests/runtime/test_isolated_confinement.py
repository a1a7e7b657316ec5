"""What an isolated process can no longer do. What this kernel cannot hold it to is skipped, and said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mainstay.runtime import confinement
from mainstay.runtime.confinement import CONFINEMENTS
from mainstay.runtime.isolated import run_isolated
from mainstay.runtime.types import Prediction
from runtime.pilots import make_model

if TYPE_CHECKING:
    from pathlib import Path

HELPERS = """
import ctypes, os, resource, signal, socket, subprocess, sys, tempfile, threading

def attempt(act):
    try:
        return str(act())
    except OSError as error:
        return type(error).__name__

def predict(records):
    return [{"p": attempt(eval("lambda: " + record["note"]))} for record in records]
"""


def attempts(folder: Path, acts: list[str], needs: str | None = None) -> list[Any]:
    """What became of each attempt: its value as text, or the name of the OSError that it raised."""
    results, info = run_isolated(make_model(folder, HELPERS), [(1.0, act) for act in acts], seconds=20)
    assert set(info.confined) <= CONFINEMENTS.keys()
    if needs is not None and needs not in info.confined:
        pytest.skip(f"this kernel does not confine {needs}: no Landlock or seccomp for it")
    assert all(isinstance(result, Prediction) for result in results), results
    return [result.values[0] for result in results if isinstance(result, Prediction)]


def test_it_reads_its_folder_and_the_system_and_nothing_else(tmp_path: Path) -> None:
    secret, version = tmp_path / "keys", tmp_path / "v"
    secret.write_text("hunter2", "utf-8")
    version.mkdir()
    (version / "weights").write_text("7", "utf-8")
    (version / "way-out").symlink_to(secret)
    acts = [
        f"open({str(version / 'weights')!r}).read()",
        "len(open('/proc/self/status').read()) > 100",
        "len(os.listdir('/usr')) > 0",
        "subprocess.run([sys.executable, '-c', 'print(7)'], capture_output=True).stdout",
        f"open({str(secret)!r}).read()",
        f"open({str(version / 'way-out')!r}).read()",
        f"os.listdir({str(tmp_path)!r})",
        "os.listdir('/')",
        f"open('/proc/{os.getpid()}/environ').read()",
        f"os.readlink('/proc/{os.getpid()}/fd/0')",
        f"open('/proc/{os.getpid()}/mem')",
    ]
    found = attempts(version, acts, "files")
    assert found == ["7", "True", "True", "b'7\\n'", *["PermissionError"] * 7]


def test_it_writes_its_private_folder_and_nothing_else(tmp_path: Path) -> None:
    version = tmp_path / "v"
    acts = [
        "open('scratch', 'w').write('7')",
        "open('/dev/null', 'w').write('7')",
        "len(tempfile.mkdtemp()) > 1",
        f"open({str(version / 'more')!r}, 'w')",
        f"os.truncate({str(version / 'predict.py')!r}, 0)",
        f"os.remove({str(version / 'predict.py')!r})",
        f"os.rename('scratch', {str(version / 'scratch')!r})",
        f"open({str(tmp_path / 'x')!r}, 'w')",
        "open('/dev/shm/mainstay-test', 'w')",
        "open('/proc/self/oom_score_adj', 'w')",
    ]
    found = attempts(version, acts, "files")
    assert found[:3] == ["1", "1", "True"]
    assert set(found[3:]) <= {"PermissionError", "OSError", "FileNotFoundError"}
    assert (version / "predict.py").read_text("utf-8") == HELPERS
    assert [path.name for path in version.iterdir()] == ["predict.py"]


def test_it_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        acts = [
            f"socket.create_connection(('127.0.0.1', {port}))",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            "socket.socket(socket.AF_UNIX)",
            "ctypes.CDLL(None, use_errno=True).syscall(425, 8, None) or ctypes.get_errno()",
        ]
        found = attempts(tmp_path / "v", acts, "sockets")
    assert found == ["PermissionError"] * 3 + ["-1"]


def test_it_has_no_privileges_to_speak_of(tmp_path: Path) -> None:
    acts = [
        "int(open('/proc/self/status').read().split('CapEff:')[1].split()[0], 16) & ~4",
        "int(subprocess.check_output(['cat', '/proc/self/status']).split(b'CapEff:')[1].split()[0], 16) & ~4",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "os.setuid(12345)",
    ]
    assert attempts(tmp_path / "v", acts, "privileges") == ["0", "0", "PermissionError", "PermissionError"]


def test_it_signals_none_but_its_own(tmp_path: Path) -> None:
    acts = [f"os.kill({os.getpid()}, 0)", f"os.kill({os.getpid()}, signal.SIGTERM)", "os.kill(os.getpid(), 0)"]
    assert attempts(tmp_path / "v", acts, "signals") == ["PermissionError", "PermissionError", "None"]


def test_it_stays_in_its_session(tmp_path: Path) -> None:
    assert attempts(tmp_path / "v", ["os.setsid()", "os.setpgid(0, 0)"], "session") == ["PermissionError"] * 2


def test_it_is_held_to_its_limits(tmp_path: Path) -> None:
    acts = [
        "resource.getrlimit(resource.RLIMIT_AS)",
        "resource.getrlimit(resource.RLIMIT_CORE)",
        "open('/proc/self/oom_score_adj').read()",
        f"open('large', 'wb').truncate({confinement.FILE_BYTES + 1})",
        f"[os.dup(0) for _ in range({confinement.OPEN_FILES})]",
        "threading.Thread(target=print).start()",
    ]
    found = attempts(tmp_path / "v", acts)
    limit = 1 << 30
    assert found == [str((limit, limit)), "(0, 0)", "1000\n", "OSError", "OSError", "None"]


def test_a_kernel_that_has_none_of_it_runs_models_all_the_same(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from mainstay.runtime import confinement
confinement._call = lambda *_: -1
confinement._drop_capabilities = lambda: ()
confinement._ARCHITECTURES.clear()
print(confinement.confine(Path(sys.argv[1]), Path(sys.argv[1])), open("/proc/self/status").read().count("Seccomp:\\t0"))
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["()", "1"]


def test_the_process_ends_when_its_parent_had_ended_before_it_asked() -> None:
    program = "import os, sys; from mainstay.runtime.confinement import die_with; die_with(os.getppid() + 1); print(7)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
