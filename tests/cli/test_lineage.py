"""What stands behind a decision, and what an item touched, in a workspace with a door, a ledger and a lake."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

import tiny
from ledger.samples import Writer
from mainstay.capability.load import load_capability
from mainstay.cli.common import Common
from mainstay.cli.evidence import explain
from mainstay.cli.lineage import lineage
from mainstay.errors import Misuse
from mainstay.intake.door import Door
from mainstay.intake.landing import landing_of
from mainstay.lake.decisions import Exporter
from mainstay.lake.exporting import KEY_FOLDER
from mainstay.lake.lake import open_lake
from mainstay.lake.taking import take
from mainstay.ledger.index_key import load_index_key
from mainstay.ledger.sealer import Sealer
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.landing import Item
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

SOURCE = "feed"
TABLE = f"intake/{tiny.NAME}/{SOURCE}"
ORIGIN = "GET https://api.example.com/orders"


def contract_with_id() -> dict[str, Any]:
    contract = copy.deepcopy(tiny.CONTRACT)
    contract["schema"][0]["properties"].insert(0, {"name": "id", "logicalType": "string"})
    return contract


class World(NamedTuple):
    """A served capability with one pushed source whose key is `id`."""

    workspace: Workspace
    version: str
    lake: Lake

    def land(self, *rows: dict[str, Any]) -> Item:
        """An item, taken by the door."""
        folder = load_capability(self.workspace.capabilities / tiny.NAME)
        source = folder.capability.sources[0]
        landing = landing_of(self.workspace.data, tiny.NAME, SOURCE)
        with landing.begin("jsonl") as draft:
            draft.file.write(b"\n".join(map(msgspec.json.encode, rows)) + b"\n")
            item = draft.land(origin=ORIGIN)
        Door(self.lake, tiny.NAME, source, folder.contract, folder.contract.schema[0]).take(item, landing.path(item))
        landing.drop(item)
        return item

    def decide(self, *bodies: dict[str, Any], at: datetime | None = None, **fields: Any) -> list[str]:
        """Decisions with these bodies, sealed and exported; their ids."""
        writer = Writer(self.workspace.ledger)
        said = (at or datetime.now(UTC)).isoformat(timespec="microseconds").replace("+00:00", "Z")
        leaf = {"capability": tiny.NAME, "version": self.version, "at": said, "policy": "sha256:p", **fields}
        ids = [
            msgspec.json.decode(entry.leaf)["id"]
            for body in bodies
            for entry in writer.append(body={"key": None, "input": {"a": 1}, **body}, **leaf)
        ]
        writer.segment.close()
        with Sealer(
            self.workspace.ledger, load_signing_key(self.workspace.keys, None), self.workspace.settings.log
        ) as s:
            s.seal_once()
        folder = self.workspace.data / KEY_FOLDER
        folder.mkdir(exist_ok=True)
        Exporter(self.lake, self.workspace.ledger, load_index_key(folder)).catch_up()
        return ids


@pytest.fixture
def world(tmp_path: Path) -> World:
    source = {"name": SOURCE, "push": {}, "key": ["id"], "repeated": "correct"}
    workspace, _ = tiny.make_served(tmp_path / "w", contract=contract_with_id(), sources=[source])
    (manifest,) = workspace.versions.glob("*/manifest.json")
    return World(workspace, f"sha256:{manifest.parent.name}", open_lake(workspace))


def asked(world: World, capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> Any:
    capsys.readouterr()
    lineage(*words, common=Common(workspace=world.workspace.root, json=True), **options)
    text = capsys.readouterr().out
    return (
        json.loads(text)
        if "item" not in options and "batch" not in options
        else list(map(json.loads, text.splitlines()))
    )


def shown(world: World, capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> str:
    capsys.readouterr()
    lineage(*words, common=Common(workspace=world.workspace.root), **options)
    return capsys.readouterr().out


def from_row(item: Item, row: int, batch: str = "nightly") -> dict[str, Any]:
    return {"source": {"batch": batch, "table": TABLE, "item": item.number, "row": row}}


def test_a_batch_decision_is_followed_to_its_row_contract_version_and_release(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.land({"id": "x", "a": 1}, {"id": "y", "a": 2})
    item = world.land({"id": "z", "a": 1}, {"id": "q", "a": 1000}, {"id": "w", "a": 3})
    (decision,) = world.decide(from_row(item, 3))
    found = asked(world, capsys, decision)
    (row,) = found["rows"]
    assert (row["link"], row["table"], row["item"], row["row"]) == ("row", TABLE, 2, 3)
    assert (row["contract"], row["origin"]) == ("tiny@1.0.0", ORIGIN)
    assert datetime.fromisoformat(row["arrived_at"]) == item.arrived_at
    assert found["batch"] == "nightly"
    assert (found["contract"]["id"], found["contract"]["version"]) == ("tiny", "1.0.0")
    assert found["contract"]["digest"] == found["release"]["contract"]
    assert (found["version"], found["release"]["number"], found["trained_on"]) == (world.version, 1, None)
    text = shown(world, capsys, decision)
    assert f"source row   {TABLE} item 2, row 3\n" in text
    assert f"from {ORIGIN}" in text
    assert "by key" not in text


def test_a_call_is_linked_by_its_key_to_the_newest_row_that_had_arrived(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before = datetime.now(UTC)
    first = world.land({"id": "x", "a": 1}, {"id": "y", "a": 2})
    between = datetime.now(UTC)
    second = world.land({"id": "x", "a": 3})
    (early,) = world.decide({"key": "x"}, at=before)
    (old,) = world.decide({"key": "x"}, at=between)
    new, other, nobody = world.decide({"key": "x"}, {"key": "nobody"}, {"key": None})
    assert asked(world, capsys, early)["rows"] == []
    (row,) = asked(world, capsys, old)["rows"]
    assert (row["link"], row["item"], row["row"]) == ("key", first.number, 1)
    assert row["table_version"] < asked(world, capsys, new)["rows"][0]["table_version"]
    assert [each["item"] for each in asked(world, capsys, new)["rows"]] == [second.number, first.number]
    assert asked(world, capsys, other)["rows"] == asked(world, capsys, nobody)["rows"] == []
    assert "(by key: the newest of this key then, the table being at version" in shown(world, capsys, new)
    assert "none is known: no row of its key in the 31 days before" in shown(world, capsys, other)


def test_what_an_item_touched_is_told_by_row_and_by_key(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    good = world.land({"id": "x", "a": 1}, {"id": "y", "a": 2})
    bad = world.land({"id": "x", "a": 3}, {"id": "z", "a": 4}, {"id": "w", "a": 1000})
    called = world.decide({"key": "x"}, {"key": "y"}, {"key": "z"}, outcome="fallback")
    by_row = world.decide(from_row(bad, 1), from_row(bad, 2), from_row(good, 1))
    world.land({"id": "z", "a": 5})
    later = world.decide({"key": "z"}, {"key": "x"})
    facts, *touched, total = asked(world, capsys, tiny.NAME, SOURCE, item=bad.number)
    assert (facts["item"]["accepted"], facts["item"]["quarantined"]) == (2, 1)
    assert facts["item"]["origin"] == ORIGIN
    assert [(each["decision"], each["link"]) for each in touched if each["link"] == "row"] == [
        (by_row[0], "row"),
        (by_row[1], "row"),
    ]
    assert {each["decision"] for each in touched if each["link"] == "key"} == {called[0], called[2], later[1]}
    assert total["decisions"] == 5
    assert {(each["link"], each["outcome"], each["decisions"]) for each in total["counts"]} == {
        ("row", "answered", 2),
        ("key", "fallback", 2),
        ("key", "answered", 1),
    }
    text = shown(world, capsys, tiny.NAME, SOURCE, item=bad.number)
    assert "accepted     2 rows" in text
    assert "quarantined  1 row: rules 1" in text
    assert "2 answered, linked by row" in text


def test_what_a_batch_decided_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    item = world.land({"id": "x", "a": 1}, {"id": "y", "a": 2})
    ids = world.decide(from_row(item, 1, "b1"), from_row(item, 2, "b1"), from_row(item, 1, "b2"))
    file = {"source": {"batch": "b3", "file": "march.csv", "row": 17}}
    (filed,) = world.decide(file)
    _, *touched, total = asked(world, capsys, tiny.NAME, batch="b1")
    assert [each["decision"] for each in touched] == ids[:2]
    assert total["decisions"] == 2
    assert "row 17 of march.csv" in shown(world, capsys, filed)
    assert "no exported decision was touched" in shown(world, capsys, tiny.NAME, batch="b9")


def test_what_a_version_was_trained_on_stands_behind_its_decisions(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.land({"id": "x", "a": 1}, {"id": "y", "a": 2})
    snapshot = take(world.lake, "march", TABLE)
    model = {**tiny.DECLARATION["model"], "trained_on": "march"}
    version = tiny.release(world.workspace, contract=contract_with_id(), model=model)
    (decision,) = world.decide({"key": "x"}, version=version, release=2)
    found = asked(world, capsys, decision)
    assert (found["release"]["number"], found["trained_on"]["snapshot"]) == (2, "march")
    assert found["trained_on"]["sha256"] == snapshot.sha256
    line = f"trained on   snapshot march: 2 rows of {TABLE} at version 1, SHA-256 {snapshot.sha256}\n"
    assert line in shown(world, capsys, decision)
    explain(decision, common=Common(workspace=world.workspace.root))
    assert line in capsys.readouterr().out


def test_rows_that_left_the_table_and_versions_that_are_gone_are_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    item = world.land({"id": "x", "a": 1})
    missing, unknown = world.decide(from_row(item, 9))[0], world.decide({"key": "x"}, version="sha256:" + "0" * 64)[0]
    assert "the row is not in the table any more" in shown(world, capsys, missing)
    text = shown(world, capsys, unknown)
    assert "what it declares is not known: no version sha256:000" in text


def test_wrong_words_are_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.land({"id": "x", "a": 1})
    with pytest.raises(Misuse, match="no decision 'x' in this ledger"):
        asked(world, capsys, "x")
    with pytest.raises(Misuse, match="expected a decision's id, found two names"):
        asked(world, capsys, tiny.NAME, SOURCE)
    with pytest.raises(Misuse, match="expected a capability and a source"):
        asked(world, capsys, tiny.NAME, item=1)
    with pytest.raises(Misuse, match="found both"):
        asked(world, capsys, tiny.NAME, SOURCE, item=1, batch="b")
    with pytest.raises(Misuse, match=r"item 7 of tiny/feed: expected rows of it"):
        asked(world, capsys, tiny.NAME, SOURCE, item=7)


def test_decisions_before_the_item_arrived_are_not_read(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """They stand in partitions of earlier days, which no link can come from."""
    old = datetime.now(UTC) - timedelta(days=3)
    world.decide({"key": "x"}, at=old)
    item = world.land({"id": "x", "a": 1})
    decided = world.decide({"key": "x"})
    files = sorted((world.workspace.data / "lake" / "decisions" / tiny.NAME).glob(f"day={old:%Y-%m-%d}/*.parquet"))
    assert files
    for file in files:
        file.unlink()  # whoever read it would fail
    _, *touched, _ = asked(world, capsys, tiny.NAME, SOURCE, item=item.number)
    assert [each["decision"] for each in touched] == decided
