from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lake.lakes import SCHEMA, numbers, rows
from mainstay.lake.durable import LAST_CHECKPOINT, LOG_FOLDER, commit_path, set_torn_aside
from mainstay.lake.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "intake/flights/feed"


def write(directory: Path, count: int) -> Path:
    """A table with some batches of ten rows, by steps that know nothing of each other; its folder."""
    for last in range(10, 10 * count + 1, 10):
        table = Lake(directory).create(NAME, SCHEMA, partition_by=["day"])
        table.append(rows(last - 10, last), writer="w", position=last)
    return directory / NAME


def newest_rows(folder: Path) -> Path:
    return max(folder.rglob("day=*/*.parquet"), key=lambda path: path.stat().st_mtime_ns)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "an empty commit": lambda commit, _: commit.write_bytes(b""),
    "half a commit": lambda commit, _: commit.write_bytes(commit.read_bytes()[:100]),
    "a commit of zeros": lambda commit, _: commit.write_bytes(bytes(commit.stat().st_size)),
    "a short file of rows": lambda _, file: file.write_bytes(file.read_bytes()[:50]),
    "no file of rows": lambda _, file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_commit_that_a_power_cut_tore_is_set_aside_and_made_again(
    tmp_path: Path, damage: Callable[[Path, Path], object]
) -> None:
    folder = write(tmp_path, 3)
    damage(commit_path(folder, 3), newest_rows(folder))
    set_torn_aside(folder)
    assert (folder / LOG_FOLDER / f"_torn.{3:020d}.json").exists()
    write(tmp_path, 3)
    assert numbers(Lake(tmp_path).table(NAME)) == list(range(30))


def test_a_torn_commit_takes_its_checkpoint_with_it(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    table = Lake(tmp_path).table(NAME)
    table.delta().create_checkpoint()
    commit_path(folder, 3).write_bytes(b"{")
    (folder / LOG_FOLDER / f"{3:020d}.checkpoint.parquet").write_bytes(b"torn")
    set_torn_aside(folder)
    assert not (folder / LOG_FOLDER / LAST_CHECKPOINT).exists()
    write(tmp_path, 4)
    assert numbers(Lake(tmp_path).table(NAME)) == list(range(40))


def test_a_whole_table_stays_as_it_is_and_so_does_none(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    before = sorted(path.name for path in (folder / LOG_FOLDER).iterdir())
    set_torn_aside(folder)
    assert sorted(path.name for path in (folder / LOG_FOLDER).iterdir()) == before
    set_torn_aside(tmp_path / "nothing")


def test_a_writer_heals_its_table_before_it_appends(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    table = Lake(tmp_path).table(NAME)  # opened before the power went
    newest_rows(folder).unlink()
    table.append(rows(10, 20), writer="w", position=20)
    assert numbers(table) == list(range(20))
