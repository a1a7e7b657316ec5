from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from house import dependencies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    Program = Callable[[str], ModuleType]

ROWS = 2_400
TIMES = 20


@pytest.mark.parametrize("name", ["drift-alibi", "drift-evidently", "drift-nannyml", "streams"])
def test_what_the_peers_need_is_pinned_by_hash(bench: Path, name: str) -> None:
    lock = (bench / "peers" / name / "requirements.txt").read_text("utf-8")
    assert list(dependencies.unpinned(lock)) == []
    assert dict(dependencies.pinned(lock)).keys() & {"alibi-detect", "evidently", "nannyml"}


def test_an_environment_is_made_anew_only_when_its_list_has_changed(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = program("environments")
    (tmp_path / "peers" / "tool").mkdir(parents=True)
    listed = tmp_path / "peers" / "tool" / "requirements.txt"
    listed.write_text("# nothing\n", "utf-8")
    monkeypatch.setattr(environments, "HERE", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "made")
    uv = tmp_path / "uv"
    uv.write_text(f'#!{sys.executable}\nimport os, sys\nif sys.argv[1] == "venv": os.makedirs(sys.argv[-1])\n', "utf-8")
    uv.chmod(0o755)
    monkeypatch.setattr(environments, "_uv", lambda: str(uv))
    python = environments.python_of("tool")
    uv.unlink()
    assert environments.python_of("tool") == python == tmp_path / "made" / "tool" / "bin" / "python"
    listed.write_text("# something\n", "utf-8")
    with pytest.raises(FileNotFoundError):
        environments.python_of("tool")


@pytest.mark.parametrize("kind", ["numbers", "texts", "autocorrelated", "hours", "days", "weak", "middling"])
def test_windows_differ_from_their_reference_by_the_change_alone(program: Program, kind: str) -> None:
    draws = program("drift_draws")
    drawn = draws.rows(kind, ROWS, TIMES)
    assert drawn.reference.shape == (TIMES, ROWS * (14 if kind == "days" else 10))
    assert drawn.windows.shape == (len(draws.effects(kind)), TIMES, ROWS)
    for effect, windows in zip(draws.effects(kind), drawn.windows, strict=True):
        if kind == "texts":
            before, now = (np.bincount(each.ravel(), minlength=8) / each.size for each in (drawn.windows[0], windows))
            assert np.abs(now - before).sum() / 2 == pytest.approx(effect, abs=0.01)
        else:
            assert np.allclose(windows - drawn.windows[0], effect)


@pytest.mark.parametrize(("kind", "effect"), [("numbers", 0.2), ("texts", 0.1)])
def test_rows_and_counts_of_them_are_judged_alike(program: Program, kind: str, effect: float) -> None:
    draws = program("drift_draws")
    drawn = draws.rows(kind, ROWS, TIMES)
    windows = drawn.windows[draws.effects(kind).index(effect)]
    by_rows = [draws.judge(kind, *pair).distance.value for pair in zip(drawn.reference, windows, strict=True)]
    random = np.random.default_rng(0)
    by_counts = [draws.counts(kind, effect, ROWS)(random).distance.value for _ in range(TIMES)]
    assert np.mean(by_rows) == pytest.approx(np.mean(by_counts), abs=0.02)


def test_long_streams_are_left_out_and_what_is_chosen_stays(program: Program) -> None:
    errors = program("drift_errors")
    every = dict(errors.Chosen(frozenset(), frozenset(), frozenset()).cells(errors.WINDOWS))
    assert every[10_000] == list(errors.KINDS)
    assert every[1_000_000] == ["numbers", "texts", "days"]
    chosen = errors.Chosen(frozenset({"days"}), frozenset({1_000}), frozenset())
    assert list(chosen.cells(errors.WINDOWS)) == [(1_000, ["days"])]
    hardest = errors.Chosen(frozenset({errors.HARDEST}), frozenset({1_000}), frozenset())
    assert list(hardest.cells(errors.WINDOWS)) == [(1_000, ["slow"])]
