from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mainstay.errors import Failed
from mainstay.locks import locked

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from mainstay.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_process_and_freed_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Failed, match="held by another process"), locked(path, timeout_seconds=0.05):
            pass
        holder.kill()
    with locked(path, timeout_seconds=0):
        assert path.exists()


def test_a_lock_is_freed_when_its_block_ends_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    with locked(tmp_path / "lock", timeout_seconds=0):
        pass
