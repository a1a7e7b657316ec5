from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mainstay.errors import Failed, Misuse
from mainstay.runtime import isolated
from mainstay.runtime.frames import RowFailed
from mainstay.runtime.isolated import IsolatedLane, run_isolated
from mainstay.runtime.types import Prediction, Unavailable
from runtime.pilots import DOUBLE, Asking, asking, make_model, settled

if TYPE_CHECKING:
    from mainstay.runtime.types import Lane

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_every_row_gets_its_own_answer(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v", DOUBLE)) as made:
        lane: Lane[Any] = made.lane
        assert lane.ready
        items = [made.submit(a=number / 4) for number in range(100)]
        await settled(*items)
        assert [item.result for item in items] == [Prediction((number / 2, 0.5), 0.5) for number in range(100)]
        assert made.delivered == [100]
        assert made.lane.restarts == 0
        assert made.lane.pid is not None
        info = made.lane.describe()
        assert info is not None
        assert (info.classes, info.notes, made.lane.classes) == ((), (), ())


async def test_what_waits_while_the_process_is_busy_is_its_next_batch(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v"), batch=8) as made:
        items = [made.submit("time.sleep(0.2)")]
        await asyncio.sleep(0.05)
        items += [made.submit(a=number) for number in range(20)]
        await settled(*items)
        assert made.delivered == [1, 8, 8, 4]
        assert [item.p for item in items[1:]] == [2 * number for number in range(20)]


async def test_what_is_withdrawn_before_it_left_does_not_run(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        busy = made.submit("time.sleep(0.1)")
        await asyncio.sleep(0.02)
        dropped, kept = made.submit("os._exit(1)"), made.submit(a=3)
        made.lane.withdraw(dropped)
        await settled(busy, kept)
        assert kept.p == 6
        assert dropped.result is None


async def test_what_waited_past_its_time_is_not_run(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        busy = made.submit("time.sleep(0.2)")
        await asyncio.sleep(0.02)
        late, kept = made.submit("os._exit(1)", seconds=0.05), made.submit(a=3)
        await settled(busy, late, kept)
        assert isinstance(late.result, Unavailable)
        assert kept.p == 6


async def test_a_row_that_raises_fails_alone(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        wrong = [made.submit("raise KeyError('x')"), made.submit("sys.exit(3)"), made.submit("1 / 0")]
        right = [made.submit(a=number) for number in range(5)]
        await settled(*wrong, *right)
        assert [item.p for item in right] == [0, 2, 4, 6, 8]
        assert all(isinstance(item.result, RowFailed) for item in wrong)
        assert str(wrong[0].result) == "KeyError: 'x' (predict.py, line 8)"
        assert str(wrong[1].result).startswith("SystemExit: 3")
        assert made.lane.restarts == 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("[{'p': float('nan')}]", r"output\.p: expected a JSON value, found a number that is not finite"),
        ("[{'p': [1, {'x': float('inf')}]}]", r"output\.p: expected a JSON value, found a number that is not finite"),
        ("[{'p': b'x'}]", r"output\.p: expected a JSON value, found a value of type bytes"),
        ("[{'p': {1: 2}}]", r"output\.p: expected a JSON value, found an object with a name that is no text"),
        ("[{'p': datetime.now(UTC)}]", r"output\.p: .* found a value of type datetime"),
        ("[{'p': object()}]", "a value of type object is no JSON value"),
        ("[{'p': 2**70}]", "expected an output of JSON values"),
        ("[{'p': [0] * 20_000}]", "more than 10000 values"),
        ("[{'p': deep}]", "expected an output of JSON values|more than 32 deep"),
        ("[{'p': nested}]", "lists and objects more than 32 deep"),
        ("[{'p': 'half \\ud800'}]", "expected an output of JSON values"),
        ("[{'q': 1}]", "the output object of the contract has no field 'q'"),
        ("[{1: 1}]", "the output object of the contract has no field '1'"),
        ("[1.0]", "expected a dict for each record, found a float"),
        ("[]", "expected a list of 1 outputs, one for each record, found 0"),
        ("[{'p': 1}] * 3", "expected a list of 1 outputs, one for each record, found 3"),
        ("None", "expected a list of 1 outputs, one for each record, found a NoneType"),
        ("({} for _ in records)", "found a generator"),
        ("[{'p': 1, 'sure': float('nan')}]", "not finite"),
        ("[{'p': 1, 'sure': 1.5}]", "expected as confidence a number from 0 to 1"),
        ("[{'p': 1, 'sure': 'very'}]", "expected as confidence a number from 0 to 1"),
        ("[{'p': 1, 'sure': True}]", "expected as confidence a number from 0 to 1"),
    ],
)
def test_what_no_output_can_be_fails_the_row(output: str, message: str, tmp_path: Path) -> None:
    code = f"""
from datetime import datetime, UTC
deep = []
for _ in range(5_000):
    deep = [deep]
nested = []
for _ in range(50):
    nested = [nested]
def predict(records):
    return [{{"p": 1}}] if records[0]["a"] else {output}
"""
    (wrong, right), _ = run_isolated(make_model(tmp_path / "v", code), [(0.0, None), (1.0, None)], seconds=10)
    assert isinstance(wrong, RowFailed)
    assert re.search(message, str(wrong))
    assert right == Prediction((1, None), None)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    code = """
import numpy as np
def predict(records):
    return [{"p": [np.int64(1), np.bool_(True), np.array([1.5])], "sure": np.float32(0.5)} for _ in records]
"""
    (result,), _ = run_isolated(make_model(tmp_path / "v", code), [(1.0, None)], seconds=10)
    assert result == Prediction(([1, True, [1.5]], 0.5), 0.5)


async def test_a_row_that_cannot_be_sent_fails_alone(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        wrong = [made.submit(a=2**70), made.submit("x" * (17 << 20))]
        right = made.submit(a=3)
        await settled(*wrong, right)
        assert right.p == 6
        assert re.search("cannot be sent", str(wrong[0].result))
        assert re.search("expected a row of at most", str(wrong[1].result))


async def test_rows_that_are_large_together_go_in_several_frames(tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v", DOUBLE)) as made:
        items = [made.submit("x" * (6 << 20), a=number) for number in range(5)]
        await settled(*items)
        assert made.delivered == [2, 2, 1]
        assert [item.p for item in items] == [0, 2, 4, 6, 8]


def test_the_code_finds_its_neighbours_and_may_have_any_name(tmp_path: Path) -> None:
    model = make_model(tmp_path / "v", "", call="types.py:predict")
    (tmp_path / "v" / "types.py").write_text(
        "from factors import FACTOR\ndef predict(records):\n    return [{'p': r['a'] * FACTOR} for r in records]\n",
        "utf-8",
    )
    (tmp_path / "v" / "factors.py").write_text("FACTOR = 7\n", "utf-8")
    assert run_isolated(model, [(3, None)], seconds=10)[0] == [Prediction((21, None), None)]
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == ["factors.py", "predict.py", "types.py"]


def test_the_process_is_given_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSTAY_KEY_PASSPHRASE", "hunter2")
    code = """
import os, stat, sys
def predict(records):
    descriptors = {int(each) for each in os.listdir("/proc/self/fd")}
    return [{"p": [sorted(os.environ), os.getcwd(), os.listdir(), len(descriptors), os.getsid(0) == os.getpid()]}]
"""
    (result,), _ = run_isolated(make_model(tmp_path / "v", code), [(1.0, None)], seconds=10)
    assert isinstance(result, Prediction)
    names, folder, held, descriptors, leads = result.values[0]
    kept = {"PATH", "LD_LIBRARY_PATH", "LANG", "TZ"} & set(os.environ)
    ours = {"HOME", "TMPDIR", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    assert set(names) - {"LC_CTYPE"} == kept | ours
    assert held == []
    assert not Path(folder).exists(), "its private folder ended with it"
    assert descriptors == 5, "standard input and outputs, the socket, and the one that lists them"
    assert leads


def test_no_rows_are_no_results(tmp_path: Path) -> None:
    assert run_isolated(make_model(tmp_path / "v"), [], seconds=1)[0] == []


def test_what_there_was_no_time_for_is_unavailable(tmp_path: Path) -> None:
    rows = [(1.0, None)] * isolated.REGISTRATION_BATCH + [(1.0, "time.sleep(60)")] + [(1.0, None)] * 300
    results, _ = run_isolated(make_model(tmp_path / "v"), rows, seconds=0.5)
    kinds = [type(each).__name__ for each in results]
    assert kinds == ["Prediction"] * 256 + ["Crashed"] * 256 + ["Unavailable"] * 45


@pytest.mark.parametrize(
    ("code", "changes", "kind", "message"),
    [
        (
            "def predict(records):\n    return [\n",
            {},
            Failed,
            r"SyntaxError: '\[' was never closed \(predict\.py, line 2",
        ),
        (
            "",
            {"call": "other.py:predict"},
            Misuse,
            r"model\.call names other\.py, expected a Python file of the folder",
        ),
        ("predict = 1\ndef guess(): ...", {}, Misuse, r"has no function 'predict'\nIt has: guess\."),
        ("import no_such_library", {}, Failed, r"ModuleNotFoundError: No module named .*predict\.py, line 1"),
        ("raise SystemExit(4)", {}, Failed, "SystemExit: 4"),
        (
            "import os\nprint('so long')\nos._exit(4)",
            {},
            Failed,
            "ended itself with exit code 4 .*\nIt printed:\nso long",
        ),
        (
            "import ctypes\nctypes.string_at(0)",
            {},
            Failed,
            "(?s)ended by signal SIGSEGV.*Segmentation fault.*predict.py",
        ),
        ("import time\ntime.sleep(60)", {"start_seconds": 0.5}, Failed, r"was not ready within 0\.5 s"),
        ("while True: print('x' * 1000)", {"start_seconds": 0.5}, Failed, r"was not ready within 0\.5 s"),
        ("x = bytearray(1 << 40)", {}, Failed, "MemoryError"),
    ],
    ids=["syntax", "no file", "no function", "import", "exit", "_exit", "segfault", "slow", "flood", "memory"],
)
def test_a_start_that_fails_says_why(
    code: str, changes: dict[str, Any], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        run_isolated(make_model(tmp_path / "v", code, **changes), [(1.0, None)], seconds=5)
    assert re.search(message, str(caught.value))
    assert len(str(caught.value)) < 5_000


async def test_no_room_for_a_process_is_a_start_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    made = Asking(asyncio.get_running_loop())
    made.lane = IsolatedLane(make_model(tmp_path / "v"), made.loop, batch=1, deliver=made.deliver)
    with pytest.raises(Failed, match="could not be started"):
        await made.lane.wait_ready(5)
    assert not made.lane.ready
    monkeypatch.setattr("tempfile.tempdir", None)
    await made.lane.wait_ready(20)
    assert (await made.ask(a=2)).p == 4
    made.lane.close()
    await made.lane.closed()


async def test_waiting_for_it_has_an_end(tmp_path: Path) -> None:
    made = Asking(asyncio.get_running_loop())
    model = make_model(tmp_path / "v", "import time\ntime.sleep(60)")
    made.lane = IsolatedLane(model, made.loop, batch=1, deliver=made.deliver)
    with pytest.raises(Failed, match=r"not ready within 0\.1 s"):
        await made.lane.wait_ready(0.1)
    waiting = asyncio.ensure_future(made.lane.wait_ready(10))
    await asyncio.sleep(0)
    made.lane.close()
    with pytest.raises(Failed, match="closed"):
        await waiting
    await made.lane.closed()
