from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from mainstay.errors import Failed
from mainstay.intake.state import KEPT_FOR, MAX_FINDINGS, State, StateFile, noted, passed, state_of, states
from mainstay.intake.types import Finding

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NEW = State(began_at=NOW)


def test_a_state_that_is_not_there_or_not_readable_is_a_new_one(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    assert file.read().last_run_at is None
    (tmp_path / "state.json").write_bytes(b'{"began_at": 3}')
    assert file.read().failures == 0
    file.update(failures=2)
    assert file.read().failures == 2


def test_a_state_that_the_disk_does_not_give_is_not_replaced(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    (tmp_path / "state.json").mkdir()  # as any error of the disk that passes
    assert file.read().held is None
    with pytest.raises(OSError, match="directory"):
        file.update(failures=1)


def test_changes_of_many_are_all_there(tmp_path: Path) -> None:
    file = StateFile(tmp_path)

    def count() -> None:
        for _ in range(20):
            file.change(lambda before: State(began_at=before.began_at, failures=before.failures + 1))

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read().failures == 80


def test_the_fingerprint_is_another_after_every_change(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    seen = {file.fingerprint()}
    for number in range(3):
        file.update(failures=number + 1)
        seen.add(file.fingerprint())
    assert len(seen) == 4


def test_one_process_runs_a_source_at_a_time(tmp_path: Path) -> None:
    file = state_of(tmp_path, "late-arrival", "months")
    with file.running(), pytest.raises(Failed, match="held by another process"), file.running():
        pass
    with file.running():
        pass


@pytest.mark.acceptance
def test_a_writer_killed_at_any_moment_leaves_a_state_that_reads(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mainstay.intake.state import StateFile\n"
        "file = StateFile(Path(sys.argv[1]))\n"
        "print('on', flush=True)\n"
        "for number in range(10**6): file.update(failures=number + 1)\n"
    )
    file, newest = StateFile(tmp_path), 0
    for pause in (0.0, 0.01, 0.03, 0.05):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        newest = max(newest, file.read().failures)
        assert file.update(failures=7).failures == 7  # its locks have gone with it
    assert newest > 0


def test_sources_that_were_run_are_listed(tmp_path: Path) -> None:
    assert states(tmp_path) == []
    state_of(tmp_path, "late-arrival", "months").update(failures=1)
    (tmp_path / "intake" / "late-arrival" / "pushed").mkdir()
    assert [(name, source, state.failures) for name, source, state in states(tmp_path)] == [
        ("late-arrival", "months", 1)
    ]


def test_a_finding_is_counted_until_it_has_passed_and_begins_anew_then() -> None:
    down = Finding("source_down", "refused")
    state = noted(NEW, [down], NOW, until="run")
    state = noted(state, [Finding("source_down", "no route")], NOW + timedelta(seconds=5), until="run")
    (found,) = state.lasting
    assert (found.since, found.times, found.detail) == (NOW, 2, "no route")
    state = passed(state, "run", NOW + timedelta(seconds=9))
    assert state.lasting == ()
    assert state.found[0].passed == NOW + timedelta(seconds=9)
    state = noted(state, [down], NOW + timedelta(seconds=60), until="run")
    assert state.lasting[0].since == NOW + timedelta(seconds=60)
    assert state.lasting[0].times == 1


def test_what_ends_one_finding_does_not_end_another() -> None:
    state = noted(NEW, [Finding("source_down", "a")], NOW, until="run")
    state = noted(state, [Finding("bad_share", "b")], NOW, until="release")
    state = noted(state, [Finding("column_new", "c", field="gate")], NOW)
    assert {each.code for each in passed(state, "run", NOW).lasting} == {"bad_share"}
    assert {each.code for each in passed(state, "run", NOW, but=[Finding("source_down", "")]).lasting} == {
        "bad_share",
        "source_down",
    }


def test_findings_are_bounded_and_what_is_so_now_stays() -> None:
    state = noted(NEW, [Finding("bad_share", "held")], NOW, until="release")
    for number in range(MAX_FINDINGS + 50):
        at = NOW + timedelta(seconds=number)
        state = noted(state, [Finding("column_new", "x" * 5_000, field=f"f{number}")], at)
    assert len(state.found) == MAX_FINDINGS
    assert max(len(each.detail) for each in state.found) == 2_000
    assert [each.code for each in state.lasting] == ["bad_share"]
    later = passed(state, "run", NOW + KEPT_FOR + timedelta(days=1))
    assert [each.code for each in later.found] == ["bad_share"]
