from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Each in a process of its own, which may adopt and end what is below it.
BURN = "import time\nwhile time.process_time() < 0.3: pass\n"

MEASURE = """
import json, subprocess, sys, time
from tree import adopt_orphans, descendants, end_tree, tree_cpu_seconds, tree_memory
adopt_orphans()
before = tree_cpu_seconds()
server = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
server.stdout.readline()
found = {"cpu": tree_cpu_seconds() - before, "alive": len(descendants()), "resident": tree_memory().resident_mb}
found["proportional"] = tree_memory().proportional_mb
end_tree(server)
found["left"] = len(descendants())
print(json.dumps(found))
"""


def _measured(bench: Path, server: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, server], cwd=bench, capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.acceptance
def test_short_lived_children_count(bench: Path) -> None:
    server = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
    found = _measured(bench, f"{server}print(flush=True)\ntime.sleep(60)")
    assert 0.25 <= found["cpu"] < 2
    assert found["alive"] == 1
    assert found["left"] == 0


@pytest.mark.acceptance
def test_a_daemon_that_left_its_parent_counts_and_is_ended_with_the_rest(bench: Path) -> None:
    daemon = (
        f"{BURN}print(flush=True)\nimport signal, time\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\ntime.sleep(60)"
    )
    server = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {daemon!r}], start_new_session=True)"
    found = _measured(bench, f"{server}\n")
    assert 0.25 <= found["cpu"] < 2
    assert found["alive"] >= 1
    assert found["resident"] >= found["proportional"] > 1
    assert found["left"] == 0
