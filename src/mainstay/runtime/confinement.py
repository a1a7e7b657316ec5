"""What an isolated process gives up before it loads a model: resources, files, network, other processes.

Resource limits always hold. The rest is as much as the kernel has and an unprivileged process may ask for: Landlock
(files, TCP, signals; Linux 5.13 and later), a seccomp filter (sockets of any family, leaving the session), and giving
up capabilities. What holds is reported, and nothing fails where the kernel lacks it. It keeps accidents in, and makes
malice hard: the process still runs as the same user on the same kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONFINEMENTS: Final = {
    "privileges": "has none of root's beyond reading files, and gains none",
    "files": "reads its interpreter, the system's libraries and its version's folder; writes its private folder",
    "tcp": "neither connects nor listens by TCP",
    "signals": "signals none but its own processes, and reaches no abstract socket of others",
    "sockets": "opens no socket of any family",
    "session": "no process of it leaves its group, so that killing the group ends them all",
}

FILE_BYTES: Final = 256 << 20  # of one file
OPEN_FILES: Final = 512

_LAST: Final = 19  # the niceness of those that come last

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38

_READ_ALSO: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys/devices/system", "/sys/fs/cgroup")
_READ_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """End this process, at once, when the thread of `parent` that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def limit_resources(memory_bytes: int) -> None:
    """Hold this process and each that it starts to its limits; and let the kernel, short of memory, take it first."""
    for kind, bound in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        bound_here = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound_here, bound_here))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def stand_back() -> None:
    """Let every other process have the processor first."""
    os.nice(_LAST)


def confine(folder: Path, private: Path) -> tuple[str, ...]:
    """Give up what a model needs not; the names of CONFINEMENTS that hold from now on.

    They hold for this thread and what it starts. Where a library has started others already, none is claimed.
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ()
    alone = sum(1 for _ in Path("/proc/self/task").iterdir()) == 1
    applied = (*_drop_capabilities(), *_apply_landlock(folder, private), *_apply_seccomp())
    return applied if alone else ()


# Capabilities: linux/capability.h. A worker that runs as root has them; some would open what Landlock shuts.

_CAPABILITY_VERSION: Final = 0x20080522
_DAC_READ_SEARCH: Final = 1 << 2  # kept: libraries may stand where only root and another user may read


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _drop_capabilities() -> tuple[str, ...]:
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    data = (_CapabilityData * 2)()  # for the lower and the upper 32
    if _libc.capget(ctypes.byref(header), data):
        return ()
    kept = data[0].permitted & _DAC_READ_SEARCH
    data[0] = _CapabilityData(kept, kept, 0)
    data[1] = _CapabilityData()
    return () if _libc.capset(ctypes.byref(header), data) else ("privileges",)


# Landlock: linux/landlock.h. The numbers of its calls are the same on every architecture.

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE: Final = 1 << 14
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_TCP: Final = 0b11  # bind and connect
_SCOPED: Final = 0b11  # abstract sockets and signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Abi(NamedTuple):
    """What a version of Landlock handles."""

    files: int
    tcp: bool
    signals: bool


def _landlock_abi() -> _Abi | None:
    version = _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        return None
    bits = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # then: refer, truncate, ioctl of devices
    return _Abi(files=(1 << bits) - 1, tcp=version >= 4, signals=version >= 6)


def _apply_landlock(folder: Path, private: Path) -> Iterator[str]:
    abi = _landlock_abi()
    if abi is None:
        return
    attributes = _Ruleset(abi.files, _TCP * abi.tcp, _SCOPED * abi.signals)
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    if ruleset < 0:
        return
    try:
        for path in {*_readable(), str(folder)}:
            _allow(ruleset, path, _READ)
        for path in _READ_DEVICES:
            _allow(ruleset, path, _READ_FILE)
        _allow(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE | (_TRUNCATE & abi.files))
        _allow(ruleset, str(private), abi.files)
        if _call(_RESTRICT_SELF, ruleset, ctypes.c_uint(0)):
            return
    finally:
        os.close(ruleset)
    yield "files"
    if abi.tcp:
        yield "tcp"
    if abi.signals:
        yield "signals"


def _readable() -> Iterable[str]:
    """Where this interpreter and its libraries are."""
    yield from _READ_ALSO
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    yield str(Path(sys.executable).resolve().parent)
    yield from (path for path in sys.path if path)
    yield from filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Allow `rights` at and below a path; nothing where there is none."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _PathBeneath(rights if Path(path).is_dir() else rights & _OF_FILES, place)
        _call(_ADD_RULE, ruleset, ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint(0))
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    """A system call; -1 when it failed."""
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return result


# seccomp: linux/seccomp.h, linux/filter.h, linux/audit.h.

_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_X32_BIT: Final = 0x40000000  # the same calls under other numbers, on x86-64


class _Architecture(NamedTuple):
    audit: int
    socket: int
    setpgid: int
    setsid: int
    io_uring_setup: int  # a ring could open sockets past the filter


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(0xC000003E, socket=41, setpgid=109, setsid=112, io_uring_setup=425),
    "aarch64": _Architecture(0xC00000B7, socket=198, setpgid=154, setsid=157, io_uring_setup=425),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _apply_seccomp() -> tuple[str, ...]:
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return ()
    lines = [_Instruction(*line) for line in _filter(architecture)]
    program = _Program(len(lines), (_Instruction * len(lines))(*lines))
    if _libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0):
        return ()
    return ("sockets", "session")


def _filter(architecture: _Architecture) -> Iterator[tuple[int, int, int, int]]:
    """Every call but a few: those fail with EACCES, and so does every call of another architecture's numbering."""
    refuse = (_RETURN, 0, 0, _RET_ERRNO | errno.EACCES)
    yield (_LOAD_WORD, 0, 0, _ARCHITECTURE_AT)
    yield (_JUMP_IF_EQUAL, 1, 0, architecture.audit)
    yield refuse
    yield (_LOAD_WORD, 0, 0, _NUMBER_AT)
    yield (_JUMP_IF_AT_LEAST, 0, 1, _X32_BIT)
    yield refuse
    for number in architecture[1:]:
        yield (_JUMP_IF_EQUAL, 0, 1, number)
        yield refuse
    yield (_RETURN, 0, 0, _RET_ALLOW)
