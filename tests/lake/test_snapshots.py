from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from lake.lakes import DAY, make_table, parquet_with, rows
from lineage.emitted import emitted, make_workspace
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.lake import snapshots, taking
from mainstay.lake.conditions import OneOf, Within
from mainstay.lake.lake import Lake
from mainstay.lake.snapshots import Snapshot, export, open_snapshot, read_document, snapshot_names
from mainstay.lake.taking import take
from mainstay.lineage.emitting import Emitter

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "intake/flights/feed"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    make_table(lake, TABLE, count=50)
    return lake


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (snapshots, taking):
        monkeypatch.setattr(module, "PART_ROWS", 16)


def content(snapshot: Snapshot) -> bytes:
    return b"".join(snapshot.encoded())


@pytest.mark.usefixtures("small_parts")
def test_a_snapshot_gives_the_same_bytes_whatever_becomes_of_the_table(lake: Lake) -> None:
    taken = take(lake, "march", TABLE)
    before = content(taken)
    table = lake.table(TABLE)
    table.append(rows(50, 60), writer="w", position=60)
    table.compact()
    table.vacuum(timedelta())
    table.retain(Within("day", None, DAY + timedelta(days=3)))
    table.vacuum(timedelta())
    table.evolve(pl.Schema({"new": pl.String()}))
    again = open_snapshot(Lake(lake.location.root), "march")
    assert content(again) == before
    assert again.taken == taken.taken
    again.verify()
    assert sorted(again.frame().collect()["n"].to_list()) == list(range(50))
    assert [part.height for part in again.parts()] == [16, 16, 16, 2]
    assert again.table.compact() == 0  # a part is a file already
    assert snapshot_names(lake) == ["march"]


def test_the_document_says_what_was_taken_and_carries_its_digest(lake: Lake) -> None:
    snapshot = take(lake, "few", TABLE, version=3, where=Within("n", 5, 25))
    taken = read_document(snapshot.document)
    assert (taken.name, taken.table, taken.version, taken.rows) == ("few", TABLE, 3, 20)
    assert taken.where == '"n" >= 5 AND "n" < 25'
    assert taken.columns == (("day", "date"), ("n", "int64"), ("who", "string"), ("x", "float64"))
    assert taken.sha256 == snapshots.digest(snapshot.encoded())
    for changed in (snapshot.document.replace(b'"rows":20', b'"rows":21'), snapshot.document[:-1], b"", b"{}\n"):
        with pytest.raises(Damaged, match="document of a snapshot"):
            read_document(changed)


def test_taking_it_again_gives_the_one_there_is_and_another_needs_another_name(lake: Lake) -> None:
    first = take(lake, "march", TABLE)
    lake.table(TABLE).append(rows(50, 60), writer="w", position=60)
    assert take(lake, "march", TABLE).taken == first.taken
    assert take(lake, "march", TABLE, version=5).taken == first.taken
    others: list[dict[str, Any]] = [{"version": 6}, {"where": OneOf("n", (1,))}, {"table": "snapshots/march"}]
    for other in others:
        with pytest.raises(Misuse, match="A snapshot never changes"):
            take(lake, "march", **{"table": TABLE, **other})
    with pytest.raises(Misuse, match="number their rows"):
        take(lake, "of-a-snapshot", "snapshots/march")


def test_names_are_held_to_their_form_and_what_is_not_there_is_told(lake: Lake) -> None:
    with pytest.raises(Misuse, match="without slashes"):
        take(lake, "a/b", TABLE)
    take(lake, "march", TABLE)
    with pytest.raises(Misuse, match="There are: march"):
        open_snapshot(lake, "april")


def test_an_empty_table_has_a_snapshot_too(lake: Lake) -> None:
    snapshot = take(lake, "none", TABLE, where=Within("n", 1000))
    assert (snapshot.taken.rows, list(snapshot.parts())) == (0, [])
    assert snapshot.frame().collect().height == 0
    snapshot.verify()


@pytest.mark.usefixtures("small_parts")
def test_a_take_that_was_killed_is_begun_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    real, left = type(lake.table(TABLE)).append, [2]

    def append(table: Any, *arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(table, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("mainstay.lake.tables.Table.append", append)
        left[0] = 4  # the names, and three parts
        with pytest.raises(Killed):
            take(lake, "march", TABLE)
    with pytest.raises(Misuse, match="begun and never finished"):
        open_snapshot(lake, "march")
    snapshot = take(lake, "march", TABLE)
    assert snapshot.taken.rows == 50
    assert snapshot.frame().collect()["n"].n_unique() == 50
    snapshot.verify()


@pytest.mark.usefixtures("small_parts")
def test_two_who_take_it_at_once_do_not_seal_a_mixture(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a bucket, where no lock keeps them apart."""
    monkeypatch.setattr(taking, "_alone", lambda *_: nullcontext())
    real = taking._copy

    def second(batches: Any, target: Any) -> int:
        monkeypatch.setattr(taking, "_copy", real)
        written = real(batches, target)
        take(lake, "march", TABLE, where=Within("n", 0, 40))
        return written

    monkeypatch.setattr(taking, "_copy", second)
    with pytest.raises(Failed, match="Nothing was sealed"):
        take(lake, "march", TABLE)
    assert open_snapshot(lake, "march").taken.rows == 40
    open_snapshot(lake, "march").verify()


def test_rows_erased_while_they_are_taken_are_not_sealed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = taking._copy

    def erased_meanwhile(batches: Any, target: Any) -> int:
        written = real(batches, target)
        lake.table(TABLE).erase(OneOf("who", ("K-3",)))
        return written

    with monkeypatch.context() as patch:
        patch.setattr(taking, "_copy", erased_meanwhile)
        with pytest.raises(Failed, match="rows were erased from it"):
            take(lake, "march", TABLE)
    assert take(lake, "march", TABLE).taken.rows == 40


@pytest.mark.usefixtures("small_parts")
def test_erasure_reaches_snapshots_and_they_say_so(lake: Lake, tmp_path: Path) -> None:
    before = take(lake, "march", TABLE)
    other = take(lake, "of-another", make_table(lake, "intake/other/feed", count=10).name)
    erased = snapshots.erase(lake, TABLE, OneOf("who", ("K-3",)))
    assert erased.rows == 20
    after = open_snapshot(lake, "march")
    assert after.taken == before.taken
    (loss,) = after.losses
    assert (loss.rows, loss.times, loss.sha256) == (40, 1, after.sha256)
    after.verify()
    assert after.frame().collect()["who"].unique().sort().to_list() == ["K-0", "K-1", "K-2", "K-4"]
    assert open_snapshot(lake, "of-another").losses == other.losses == ()
    assert parquet_with(tmp_path / "intake/flights", "K-3") == []
    assert parquet_with(tmp_path / "snapshots/march", "K-3") == []
    assert snapshots.blank(lake, TABLE, Within("n", 0, 10), ["who"]).rows == 16
    assert [each.rows for each in open_snapshot(lake, "march").losses] == [40, 40]
    open_snapshot(lake, "march").verify()


def test_a_loss_that_was_not_yet_said_is_said_when_the_erasure_is_made_again(lake: Lake) -> None:
    take(lake, "march", TABLE)
    lake.table("snapshots/march").erase(OneOf("who", ("K-3",)))  # killed before it was accounted for
    with pytest.raises(Damaged, match="expected rows with SHA-256"):
        open_snapshot(lake, "march").verify()
    snapshots.erase(lake, TABLE, OneOf("who", ("K-3",)))
    open_snapshot(lake, "march").verify()


def test_a_changed_snapshot_is_found_out(lake: Lake) -> None:
    take(lake, "march", TABLE)
    table = lake.table("snapshots/march")
    table.retain(OneOf("n", (7,)))
    with pytest.raises(Damaged, match="snapshot march: expected rows with SHA-256"):
        open_snapshot(lake, "march").verify()
    table.set_property(snapshots.DOCUMENT, "{}")
    with pytest.raises(Damaged, match="document of a snapshot"):
        open_snapshot(lake, "march")


def test_a_snapshot_of_every_type_reads_as_it_was(lake: Lake) -> None:
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, None], dtype=pl.Int8),
            "b": [True, None],
            "l": [[1, 2], None],
            "s": [{"a": 1, "t": "x"}, None],
            "y": [b"\x00", None],
            "d": pl.Series(["1.5", None]).cast(pl.Decimal(10, 2)),
        }
    )
    lake.create("typed", frame.schema).append(frame, writer="w", position=1)
    snapshot = take(lake, "typed", "typed")
    assert snapshot.frame().collect().equals(frame)
    snapshot.verify()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_snapshot_is_written_to_files_in_its_order(form: Any, lake: Lake, tmp_path: Path) -> None:
    taken = take(lake, "march", TABLE)
    directory = tmp_path / "out" / "march"
    files = export(taken, directory, form)
    assert [file.name for file in files] == [f"part-{n:05}.{form}" for n in range(4)]
    read = pl.read_parquet if form == "parquet" else pl.read_ndjson
    found = pl.concat([read(file) for file in files])
    assert found["n"].to_list() == pl.concat(taken.parts())["n"].to_list()
    assert read_document((directory / "snapshot.json").read_bytes()) == taken.taken
    assert [each.name for each in directory.parent.iterdir()] == ["march"]
    with pytest.raises(Misuse, match="does not exist yet"):
        export(taken, directory, form)


def test_taking_says_what_it_read_and_that_each_column_is_a_copy(lake: Lake, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w")
    emitter = Emitter(workspace)
    taken = take(lake, "march", TABLE, version=3, emitter=emitter)
    take(lake, "march", TABLE, version=3, emitter=emitter)  # which is there already
    start, complete = emitted(workspace)
    assert (start["job"]["name"], complete["eventType"]) == ("snapshot.march", "COMPLETE")
    (read,), (wrote,) = complete["inputs"], complete["outputs"]
    assert (read["name"], read["facets"]["version"]["datasetVersion"]) == (f"{tmp_path}/{TABLE}", "3")
    assert wrote["facets"]["version"]["datasetVersion"] == taken.sha256
    copied = wrote["facets"]["columnLineage"]["fields"]
    assert {name: each["inputFields"][0]["field"] for name, each in copied.items()} == {
        n: n for n in ("day", "n", "who", "x")
    }
    assert wrote["outputFacets"]["outputStatistics"]["rowCount"] == read["inputFacets"]["inputStatistics"]["rowCount"]
