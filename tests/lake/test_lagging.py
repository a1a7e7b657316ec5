from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.samples import seal, write_segment
from lineage.emitted import make_workspace
from mainstay.lake.lagging import PROGRESS_FILE, Lag, Progress, lag_behind, save_progress, standing

if TYPE_CHECKING:
    from pathlib import Path

AT = "2026-03-01T12:00:00Z"


def test_how_far_the_tables_are_is_known_without_them(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    assert standing(workspace) is None
    write_segment(workspace.ledger, 10)
    seal(workspace.ledger)
    save_progress(workspace, Progress(exported=4, at=AT))
    found = standing(workspace)
    assert found is not None
    assert (found.lag.sealed, found.lag.exported) == (10, 4)
    assert found.lag.seconds > 3_600  # the sample entries are of the year's first day
    save_progress(workspace, Progress(exported=10, at=AT, problem="the disk is full"))
    assert standing(workspace) == (Progress(exported=10, at=AT, problem="the disk is full"), Lag(10, 10, 0.0))


def test_what_nobody_wrote_says_nothing(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    workspace.run.mkdir(parents=True)
    for content in (b"", b"{", b'{"exported": "many"}'):
        (workspace.run / PROGRESS_FILE).write_bytes(content)
        assert standing(workspace) is None


def test_an_empty_log_has_no_lag(tmp_path: Path) -> None:
    assert lag_behind(tmp_path, 0) == Lag(0, 0, 0.0)
