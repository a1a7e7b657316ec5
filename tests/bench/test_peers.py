from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from house import dependencies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    Program = Callable[[str], ModuleType]

RECORD = {"mean_radius": 17.99, "mean_texture": 10.38}
PLACES = dict.fromkeys(("bin", "scratch", "model", "port", "port2", "port3"), "0")


def test_every_peer_has_a_list_pinned_by_hash_with_the_scikit_learn_that_writes_the_model(
    bench: Path, program: Program
) -> None:
    ours = dict(dependencies.pinned((bench.parent / "requirements" / "dev.txt").read_text("utf-8")))
    for folder in {peer.folder for peer in program("peer_servers").PEERS}:
        lock = (bench / "peers" / folder / "requirements.txt").read_text("utf-8")
        assert list(dependencies.unpinned(lock)) == []
        pins = dict(dependencies.pinned(lock))
        assert pins.keys() & {"scikit-learn", "onnxruntime"}
        for name in pins.keys() & {"scikit-learn", "onnxruntime"}:
            assert pins[name] == ours[name], f"{folder}: {name}; run python bench/peers.py --lock"


def test_what_a_peer_asks_for_is_in_its_list(bench: Path) -> None:
    for wanted in bench.glob("peers/*/requirements.in"):
        lines = [line for line in wanted.read_text("utf-8").splitlines() if not line.startswith("#")]
        locked = {name for name, _ in dependencies.pinned(wanted.with_suffix(".txt").read_text("utf-8"))}
        assert {dependencies.normal_name(line) for line in lines} <= locked, wanted


def test_every_peer_runs_files_that_are_there_and_is_asked_for_one_record(bench: Path, program: Program) -> None:
    peers = program("peer_servers").PEERS
    assert len({peer.name for peer in peers}) == len(peers)
    for peer in peers:
        places = {**PLACES, "folder": str(bench / "peers" / peer.folder)}
        for part in f"{peer.command} {peer.prepare}".split():
            named = part.format_map(places)
            if named.startswith(places["folder"]):
                assert (bench / named).exists(), named
        for value in peer.environment.values():
            value.format_map(places)
        assert "17.99" in str(peer.request(RECORD))


def test_a_table_gives_the_ratio_of_each_pair_and_says_which_goal_is_missed(program: Program) -> None:
    peers, (peer, *_) = program("peers"), program("peer_servers").PEERS

    def run(cpu_us: float) -> Any:
        return peers.Run(cpu_us, 100.0, 1.0, 2.0, 50.0, 40.0, 0.5)

    # A machine that turned twice as slow for one pair changes no ratio.
    row = peers.summary(peer, [(run(50), run(100)), (run(100), run(200)), (run(50), run(100))])
    assert row["ratio"] == 2.0
    assert not row["met"]
    assert "| 2.0 | 2.5 (missed) |" in peers.table([peers.own_summary([run(50)]), row])
    assert peers.summary(peer, [(run(50), run(150))])["met"]


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["peers", "overload"])
def test_a_program_says_what_it_does(name: str, bench: Path) -> None:
    said = subprocess.run(
        [sys.executable, str(bench / f"{name}.py"), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"python bench/{name}.py" in said.stdout
