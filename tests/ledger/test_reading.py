from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mainstay.errors import Damaged
from mainstay.ledger import reading
from mainstay.ledger.reading import list_directory, read_regular

if TYPE_CHECKING:
    from pathlib import Path


def test_a_regular_file_is_read_whole_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(Damaged, match="expected at most 4 bytes, found 5"):
        read_regular(path, 4)
    path.write_bytes(b"")
    assert read_regular(path, 0) == b""


def test_nothing_but_a_regular_file_is_opened_or_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "absent"):
        with pytest.raises(OSError) as raised:  # noqa: PT011 - of which kind is the system's matter
            read_regular(tmp_path / name, 10)
        assert raised.value.strerror, name
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 10)


def test_a_directory_is_listed_by_name_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).write_bytes(b"")
    assert [each.name for each in list_directory(tmp_path)] == ["a", "b", "c"]
    assert list_directory(tmp_path / "absent") == []
    assert list_directory(tmp_path / "a") == []
    monkeypatch.setattr(reading, "MAX_NAMES", 2)
    with pytest.raises(Damaged, match="expected at most 2 names"):
        list_directory(tmp_path)
