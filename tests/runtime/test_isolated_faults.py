"""What a model does to its process, and that the lane is as before afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from mainstay.runtime import isolated, process
from mainstay.runtime.frames import MAX_FRAME_BYTES, RowFailed
from mainstay.runtime.isolated import IsolatedLane
from mainstay.runtime.types import Crashed, Prediction, Unavailable
from runtime.pilots import (
    OBEDIENT,
    Asking,
    asking,
    children,
    gone,
    is_running,
    make_model,
    no_private_folders,
    open_descriptors,
    private_folders,
    settled,
)

pytestmark = pytest.mark.anyio

TESTS = str(Path(__file__).parents[1])
SOCKET = "fd = int(sys.argv[1])\n"


def say(message: str) -> str:
    return f"{SOCKET}os.write(fd, {message})\ntime.sleep(9)"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("ctypes.string_at(0)", "ended by signal SIGSEGV"),
        ("os._exit(3)", "ended itself with exit code 3"),
        ("os.abort()", "ended by signal SIGABRT"),
        ("os.kill(os.getpid(), 9)", "ended by signal SIGKILL, as the kernel does when memory runs out"),
        ("import threading; threading.Thread(target=os._exit, args=(7,)).start(); time.sleep(9)", "exit code 7"),
        (SOCKET + "os.close(fd)", "closed its connection|ended itself with exit code 1"),
        (SOCKET + "os.close(fd); time.sleep(60)", "closed its connection"),
        (say("b'GET / HTTP/1.1'"), "broke the protocol: expected at most 16777216 bytes at once"),
        (say("bytes(4)"), "broke the protocol: expected a list of answers"),
        (say(r"b'\0\0\0\1\xc1'"), "broke the protocol: expected a list of answers"),
        (say(r"b'\0\0\0\3\x92\1\x90'"), "broke the protocol: expected 1 answers, found 0"),
        (say(r"b'\0\0\0\3\x92\7\x90'"), "broke the protocol: expected the answers to batch 1, found those to 7"),
        (say(r"b'\0\0\0\7\x92\1\x91\x93\0\xa1\xff'"), "broke the protocol: expected a list of answers"),
        (say(r"b'\0\0\0\1\x90' * 2"), "broke the protocol: expected one frame, found more"),
        (say(r"b'\0\1\0\0' + b'\x92\1' + b'\x91' * 65534"), "broke the protocol: expected a list of answers"),
    ],
)
async def test_a_process_that_ends_takes_only_its_batch_along_and_is_back(act: str, why: str, tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        before = made.lane.pid
        item = await made.ask(act)
        assert isinstance(item.result, Crashed)
        assert re.search(why, str(item.result))
        await made.back()
        assert made.lane.restarts == 1
        assert made.lane.pid != before
        assert (await made.ask(a=4)).p == 8


@pytest.mark.parametrize(
    "act",
    [
        "while True: pass",
        "ctypes.PyDLL(None).sleep(1000)",
        "import signal; signal.pthread_sigmask(0, range(1, 65))\nwhile True: pass",
    ],
    ids=["loop", "in C, holding the interpreter", "deaf"],
)
async def test_a_hang_is_ended_at_the_deadline(act: str, tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        item = await made.ask(act, seconds=0.3)
        assert isinstance(item.result, Crashed)
        assert str(item.result) == "the model's process was stopped at the deadline"
        assert 0 <= item.given_at - item.run_until < 0.2
        assert not made.lane.ready
        await made.back()
        assert (await made.ask(a=4)).p == 8


async def test_a_batch_runs_for_as_long_as_any_of_it_is_wanted(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        short, long = made.submit("time.sleep(0.4)", seconds=0.1), made.submit(a=2, seconds=5)
        await settled(short, long)
        assert (short.p, long.p) == (2, 4)
        assert made.lane.restarts == 0


@pytest.mark.parametrize("order", [0, 1])
async def test_who_withdrew_no_longer_holds_up_the_end_of_a_hang(order: int, tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        hung, other = made.submit("time.sleep(60)", seconds=0.3), made.submit(seconds=60)
        await asyncio.sleep(0.1)
        both = [hung, other]
        made.lane.withdraw(both[order])
        made.lane.withdraw(both[order - 1])  # while nobody wants it, the last time stands
        if order == 0:
            await asyncio.sleep(0.4)
            assert hung.result is None
            return
        await settled(hung)
        assert hung.given_at - hung.run_until < 0.2


async def test_memory_beyond_the_limit_fails_the_row(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v", memory_bytes=256 << 20)) as made:
        wrong, right = made.submit("x = bytearray(2 << 30)"), made.submit(a=4)
        await settled(wrong, right)
        assert isinstance(wrong.result, RowFailed)
        assert str(wrong.result).startswith("MemoryError")
        grows = await made.ask("x = []\nwhile True: x.append(bytearray(1 << 20))")
        assert isinstance(grows.result, RowFailed)
        assert right.p == 8
        assert made.lane.restarts == 0


async def test_an_output_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    code = "def predict(records):\n    return [{'p': 'x' * record['a']} for record in records]\n"
    async with asking(make_model(tmp_path / "v", code)) as made:
        assert len((await made.ask(a=MAX_FRAME_BYTES - 100)).p) == MAX_FRAME_BYTES - 100
        item = await made.ask(a=MAX_FRAME_BYTES)
        assert isinstance(item.result, Crashed)
        assert "expected at most" in str(item.result)
        await made.back()
        assert (await made.ask(a=2)).p == "xx"


async def test_what_is_printed_is_logged_to_who_asks_and_only_a_little(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        await made.ask("print('hunter2')")
        await asyncio.sleep(0.05)
        assert "hunter2" not in caplog.text
        with caplog.at_level(logging.DEBUG, "mainstay.runtime.printed"):
            await made.ask("print('hunter3')")
            await made.ask("for _ in range(1_000): print('x' * 1_000)")
            await asyncio.sleep(0.05)
        assert "hunter3" in caplog.text
        assert len(caplog.text) < 40_000


@pytest.mark.parametrize("leave", ["", "os.setsid()", "os.setpgid(0, 0)"], ids=["plain", "setsid", "setpgid"])
@pytest.mark.parametrize("end", ["deadline", "crash", "close"])
async def test_what_the_model_started_ends_with_it(leave: str, end: str, tmp_path: Path) -> None:
    act = f"""
def lurk():
    try:
        {leave or "pass"}
    except PermissionError:
        pass
    time.sleep(60)
pids = []
for _ in range(3):
    pids.append(os.fork())
    if not pids[-1]:
        lurk()
globals()["predict"].__globals__["born"] = pids
"""
    code = OBEDIENT.replace('"p": 2 * record["a"]', '"p": globals().get("born")')
    async with asking(make_model(tmp_path / "v", code)) as made:
        info = made.lane.describe()
        assert info is not None
        if leave and "session" not in info.confined:
            pytest.skip("this kernel lets a process leave its session: no seccomp filter")
        born = (await made.ask(act)).p
        assert all(map(is_running, born))
        if end == "deadline":
            await made.ask("time.sleep(60)", seconds=0.1)
        elif end == "crash":
            await made.ask("os._exit(1)")
    for pid in born:
        await gone(pid)


async def test_a_poisonous_row_takes_only_itself_along_the_second_time(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        first = [made.submit("os._exit(1)" if number == 2 else None) for number in range(4)]
        await settled(*first)
        assert all(isinstance(item.result, Crashed) for item in first)
        await made.back()
        second = [made.submit("os._exit(1)" if number == 2 else None, a=number) for number in range(30)]
        await settled(*second)
        assert [place for place, item in enumerate(second) if not isinstance(item.result, Prediction)] == [2]
        assert made.delivered[1:17] == [1] * 16
        assert sum(made.delivered[17:]) == 14
        assert max(made.delivered[17:]) > 1


async def test_what_waits_stays_when_the_process_is_back_in_time_and_else_is_told(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v", "import time; time.sleep(0.4)\n" + OBEDIENT), batch=1) as made:
        crash, stays, late = made.submit("os._exit(1)"), made.submit(a=3), made.submit(seconds=0.3)
        await settled(crash, late)
        assert isinstance(late.result, Unavailable)
        assert late.given_at < late.run_until - 0.05, "at once, for the fallback still has time"
        assert stays.result is None
        await settled(stays)
        assert stays.p == 6


async def test_restarts_are_further_and_further_apart_until_a_batch_succeeds(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        away = []
        for _ in range(4):
            await made.ask("os._exit(1)")
            begun = made.loop.time()
            assert not made.lane.ready
            await made.back()
            away.append(made.loop.time() - begun)
        assert away[0] < 1.0
        for pause, seconds in zip((0, 0.1, 0.2, 0.4), away, strict=True):
            assert pause <= seconds
        assert (await made.ask(a=2)).p == 4
        await made.ask("os._exit(1)")
        begun = made.loop.time()
        await made.back()
        assert made.loop.time() - begun < away[3], "the count began again"
        assert made.lane.restarts == 5


def test_the_pause_before_a_start_doubles_up_to_thirty_seconds() -> None:
    pauses = [isolated._pause_seconds(failures) for failures in range(1, 13)]
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])
    assert isolated._pause_seconds(1_000_000) == 30


async def test_a_start_that_fails_later_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(tmp_path / "v")
    async with asking(model) as made:
        make_model(tmp_path / "v", "raise RuntimeError('gone')")
        await made.ask("os._exit(1)")
        await asyncio.sleep(0.5)
        assert not made.lane.ready
        assert made.lane.restarts > 1
        make_model(tmp_path / "v")
        await made.back()
        assert (await made.ask(a=2)).p == 4
    assert "does not start" in caplog.text
    assert "RuntimeError: gone" in caplog.text


async def test_an_answer_that_was_given_before_the_end_counts(tmp_path: Path) -> None:
    code = "import os, threading\n" + OBEDIENT
    async with asking(make_model(tmp_path / "v", code)) as made:
        item = await made.ask("threading.Timer(0.05, os._exit, (0,)).start()")
        assert item.p == 2
        await asyncio.sleep(0.1)
        await made.back()
        assert (await made.ask(a=2)).p == 4
        assert made.lane.restarts == 1


async def test_a_fork_that_was_forgotten_does_not_answer(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v"), batch=1) as made:
        await made.ask("os.fork()")
        items = [made.submit(a=number) for number in range(20)]
        await settled(*items)
        assert [item.p for item in items] == [2 * number for number in range(20)]
        assert made.lane.restarts == 0


async def test_talking_out_of_turn_is_ended(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        later = r"lambda: os.write(fd, b'\0\0\0\1\x90')"
        await made.ask(SOCKET + f"import threading; threading.Timer(0.05, {later}).start()")
        await asyncio.sleep(0.2)
        await made.back()
        assert made.lane.restarts == 1
        assert (await made.ask(a=2)).p == 4


async def test_twenty_crashes_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(isolated, "FIRST_PAUSE_SECONDS", 0.0)
    # Some leave files that nobody may look at behind.
    mess = "os.makedirs('d/e'); open('d/e/f', 'w').close(); os.chmod('d', 0); "
    acts = ["os._exit(1)", "time.sleep(60)", "ctypes.string_at(0)", mess + "os._exit(1)"]
    others = children()
    async with asking(make_model(tmp_path / "v")) as made:
        await asyncio.to_thread(lambda: None)  # its thread and what that holds
        before = open_descriptors(), children()
        for number in range(20):
            await made.ask(acts[number % 4], seconds=0.1)
            await made.back()
        assert len(children()) == len(before[1]) == len(others) + 1
        assert open_descriptors() == before[0]
        assert len(private_folders(tmp_path)) <= 2, "the one in use, and one being removed"
        pid = made.lane.pid
    assert pid is not None
    assert children() == others
    assert not is_running(pid)
    await no_private_folders(tmp_path)


@pytest.mark.parametrize("when", ["starting", "running", "down"])
async def test_closing_ends_the_process_whatever_it_does(when: str, tmp_path: Path) -> None:
    before, others = open_descriptors(), children()
    made = Asking(asyncio.get_running_loop())
    made.lane = IsolatedLane(make_model(tmp_path / "v"), made.loop, batch=1, deliver=made.deliver)
    if when != "starting":
        await made.lane.wait_ready(20)
        made.submit("time.sleep(60)" if when == "running" else "os._exit(1)")
    await asyncio.sleep(0.05)
    pid = made.lane.pid
    begun = time.perf_counter()
    made.lane.close()
    assert time.perf_counter() - begun < 0.1
    await made.lane.closed()
    assert pid is None or not is_running(pid)
    assert children() == others
    await asyncio.sleep(0.3)
    assert not made.lane.ready
    assert children() == others
    assert open_descriptors() <= before + 1, "at most the executor's"


PARENT = """
import asyncio, sys, uvloop
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from runtime.pilots import asking, make_model

async def main():
    async with asking(make_model(Path(sys.argv[2]))) as made:
        print(made.lane.pid, flush=True)
        await asyncio.sleep(60)

uvloop.run(main())
"""


async def test_the_process_does_not_outlive_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", PARENT, TESTS, str(tmp_path / "v")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}) as parent:  # noqa: ASYNC220 - the test waits for nothing else
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
    await gone(pid)
    (left,) = private_folders(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process.remove_abandoned()
    assert left in private_folders(tmp_path), "it may be somebody's who is about to hold it"
    monkeypatch.setattr(process, "_ABANDONED_SECONDS", 0.0)
    async with asking(make_model(tmp_path / "w")) as made:
        process.remove_abandoned()
        assert left not in private_folders(tmp_path)
        assert len(private_folders(tmp_path)) == 1, "what is held stays"
        assert (await made.ask(a=2)).p == 4
