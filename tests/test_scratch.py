from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import scratch
from scratch import folder_in_memory


def test_a_folder_with_room_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "NEEDED_BYTES", 1)
    runs_programs = not os.statvfs(tmp_path).f_flag & os.ST_NOEXEC
    assert folder_in_memory(tmp_path) == (tmp_path if runs_programs else None)
    monkeypatch.setattr(scratch, "NEEDED_BYTES", shutil.disk_usage(tmp_path).total + 1)
    assert folder_in_memory(tmp_path) is None


@pytest.mark.parametrize("folder", ["/proc", "/nowhere"])
def test_where_nothing_can_be_kept_nothing_is_written(folder: str) -> None:
    assert folder_in_memory(Path(folder)) is None
