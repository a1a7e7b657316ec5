"""Bodies go while the service runs, archives leave, and whoever does it is killed everywhere."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tiny
from ledger.persons import Persons, secret_of
from ledger.samples import fork, reap
from ledger.test_archive import archivist
from ledger.test_crashes import kill_everywhere
from mainstay.decision.last_good import LastGood
from mainstay.ledger.index import Index
from mainstay.ledger.index_key import load_index_key
from mainstay.ledger.verify import verify_ledger
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance


LADDER = [{"last_good": {"max_age_seconds": 3600}}, {"constant": {"probability": 0.5, "yes": True}}]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    directory = tmp_path_factory.mktemp("erasure")
    workspace, token = tiny.make_served(directory / "workspace", fallback=LADDER, min_confidence=0.9)
    with tiny.up(workspace, token) as service:
        yield service


def decide(up: tiny.Up, key: str, count: int = 1, value: float = 50.0) -> list[str]:
    """Decisions about a person; the model is sure where the value is high, and else a person is asked."""
    with httpx.Client(headers=up.headers, timeout=10) as client:
        sent = {"input": {"a": value, "b": 0.0, "note": "x"}, "key": key}
        answers = [client.post(up.decisions_url, json=sent) for _ in range(count)]
        return [answer.raise_for_status().json()["decision_id"] for answer in answers]


def report(up: tiny.Up, **named: str) -> None:
    url = up.decisions_url.replace("/decisions", "/outcomes")
    body = {**named, "outcome": {"yes": True}, "observed_at": "2026-06-01T00:00:00Z"}
    httpx.post(url, json=body, headers=up.headers, timeout=10).raise_for_status()


def mainstay(*words: str, workspace: Workspace | None = None, code: int = 0) -> str:
    """Run a command; what it prints. Without a workspace it stands in a directory that has none."""
    command = [sys.executable, "-m", "mainstay.cli.main", *words]
    where = "/" if workspace is None else workspace.root
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, cwd=where)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr


def facts(*words: str, workspace: Workspace | None = None, code: int = 0) -> Any:
    return json.loads(mainstay(*words, "--json", workspace=workspace, code=code))


def files_with(workspace: Workspace, text: str) -> list[str]:
    paths = (path for path in workspace.root.rglob("*") if path.is_file() and path.suffix != ".log")
    return sorted(path.name for path in paths if text.encode() in path.read_bytes())


def test_a_person_is_forgotten_while_the_service_answers(up: tiny.Up) -> None:
    workspace = up.workspace
    ids = decide(up, "person-11", 5)
    (waiting,) = decide(up, "person-11", value=0.1)
    others = decide(up, "person-22", 3)
    report(up, decision_id=ids[0])
    report(up, key="person-11")
    accept = ("review", "resolve", waiting, "--accept", "--reason", "looked at it")
    mainstay(*accept, workspace=workspace)
    told = mainstay("erase", "tiny", "--key", "person-11", "--reason", "x", "--dry-run", workspace=workspace)
    assert told.startswith("would erase 6 decisions, 2 outcomes, 1 resolution")
    assert files_with(workspace, "person-11")
    refused = mainstay("erase", "tiny", "--key", "person-11", "--reason", "x", workspace=workspace, code=2)
    assert "expected --yes" in refused
    erase = ("erase", "tiny", "--key", "person-11", "--reason", "request 2026-118", "--yes")
    erased = facts(*erase, workspace=workspace)
    (carried,) = erased["erasures"]
    assert carried["bodies"] == 9
    assert carried["carried_out_by"] == "control"
    assert erased["forgotten"]
    assert files_with(workspace, "person-11") == []
    explained = facts("explain", ids[0], workspace=workspace)
    assert explained["body"] is None
    assert explained["erasure"]["reason"] == "request 2026-118"
    lines = mainstay("explain", ids[0], workspace=workspace)
    assert "on word of" in lines
    assert carried["receipt"] in lines
    assert explained["entry"]["outcome"] == "answered"
    assert facts("explain", others[0], workspace=workspace)["body"]["key"] == "person-22"
    assert "the ledger verifies" in mainstay("ledger", "verify", workspace=workspace)
    assert "nothing to erase" in mainstay(*erase, workspace=workspace)


def test_last_good_answers_of_the_person_are_let_go_of(up: tiny.Up) -> None:
    decide(up, "person-33")
    contract = next(iter((up.workspace.memory).glob("*.table")))
    digest = json.loads(next(up.workspace.versions.glob("*/manifest.json")).read_text())["contract"]["digest"]
    now = int(time.time() * 1000)
    assert LastGood(contract, digest).get(b'"person-33"', now, 3_600_000)
    mainstay("erase", "--key", "person-33", "--reason", "asked", "--yes", workspace=up.workspace)
    assert LastGood(contract, digest).get(b'"person-33"', now, 3_600_000) is None


def test_a_misused_erasure_says_what_was_expected(up: tiny.Up) -> None:
    for words, expected in (
        (("--reason", "x"), "expected either --key or --id, found neither"),
        (("--reason", "x", "--key", "k", "--id", "i"), "found both"),
        (("--reason", " ", "--key", "k"), "needs a reason"),
        (("--reason", "x", "--id", "0"), "no decision of tiny has the id"),
    ):
        assert expected in mainstay("erase", "tiny", *words, workspace=up.workspace, code=2)


def test_an_archive_leaves_a_running_ledger_and_verifies_elsewhere(up: tiny.Up, tmp_path: Path) -> None:
    workspace, place = up.workspace, tmp_path / "archive"
    first = decide(up, "person-44", 300)[0]
    made = facts("ledger", "archive", str(place), "--remove", workspace=workspace)
    assert (made["first"], made["remove"], made["verified"]["ok"]) == (0, True, True)
    assert "their hashes verify" in mainstay("ledger", "verify", workspace=workspace)
    gone = mainstay("explain", first, workspace=workspace, code=1)
    assert f"archived at {place}" in gone
    erased = mainstay("erase", "--key", "person-44", "--reason", "asked", "--yes", workspace=workspace)
    assert f"mainstay ledger update-archive {place}" in erased
    assert "bodies erased in the archive" in mainstay("ledger", "update-archive", str(place), workspace=workspace)
    assert not [path for path in place.rglob("*") if path.is_file() and b"person-44" in path.read_bytes()]
    key = tmp_path / "signing.vkey"
    shutil.copy(workspace.keys / "signing.vkey", key)
    for path in (place, *place.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in (place, *place.rglob("*"))}
    verified = facts("ledger", "verify", "--directory", str(place), "--public-key", str(key))
    assert verified["ok"]
    assert verified["archive"]["size"] == verified["size"]
    assert {path: path.stat().st_mtime_ns for path in (place, *place.rglob("*"))} == before
    for path in (place, *place.rglob("*")):
        path.chmod(0o755)
    moved = tmp_path / "moved"
    place.rename(moved)
    missing = mainstay("ledger", "reindex", workspace=workspace, code=1)
    assert "reindex --archive DIR" in missing
    indexed = facts("ledger", "reindex", "--archive", str(moved), workspace=workspace)["indexed"]
    assert indexed >= verified["size"]
    decide(up, "person-55")
    assert "the ledger verifies" in mainstay("ledger", "verify", workspace=workspace)


def test_bodies_go_by_their_age_while_the_service_runs(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", retention={"bodies_days": 30})
    persons = Persons(tmp_path, workspace)
    for place in range(50):
        persons.decide(f"K-{place % 10}", capability=tiny.NAME, at="2026-01-01T00:00:00.000000Z")
    persons.leave_segment()
    persons.writer.segment.abandon()
    with tiny.up(workspace, token) as service:
        decide(service, "person-66")
        deadline = time.monotonic() + 30
        while files_with(workspace, "secret of ") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert files_with(workspace, "secret of ") == []
        assert files_with(workspace, "person-66")
    found = verify_ledger(workspace.ledger, load_verifier(workspace.keys))
    assert found.ok, found.findings
    assert found.erased == 50


def test_no_copy_is_left_where_rows_of_the_index_moved(tmp_path: Path) -> None:
    """Rows of one person that go make others move between pages; those that go later were in both."""
    persons = Persons(tmp_path / "w")
    persons.fill(1_000)
    persons.leave_segment()
    persons.seal()
    digests = load_index_key(persons.ledger)
    erased = [f"K-{place}" for place in range(8)]
    for key in erased:
        persons.request(key)
    persons.turns()
    content = (persons.ledger / "index.db").read_bytes()
    assert [key for key in erased if digests.of(key) in content] == []
    assert [key for key in erased if secret_of(key).encode() in content] == []
    assert digests.of("K-8") in content
    assert secret_of("K-8").encode() in content
    persons.writer.segment.abandon()


def test_an_archivist_may_be_killed_in_front_of_any_change_to_the_disk(tmp_path: Path) -> None:
    begun = Persons(tmp_path / "begun")
    for number in range(270):
        begun.decide(f"K-{number % 10}")
    begun.erase("K-3")
    begun.writer.segment.close()
    begun.seal()
    persons = Persons(tmp_path / "w")
    persons.writer.segment.abandon()
    persons.key = begun.key
    place = tmp_path / "archive"

    def prepare() -> None:
        shutil.rmtree(persons.ledger)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(begun.ledger, persons.ledger)
        shutil.copytree(begun.workspace.keys, persons.workspace.keys, dirs_exist_ok=True)

    def run() -> None:
        archivist(persons).make(place, remove=True)

    def examine() -> None:
        found = persons.verify()
        assert found.ok, found.findings
        if found.gone:
            assert verify_ledger(place, persons.key.verifier).ok, "what leaves is there"
        run()  # which verifies what is there
        found = persons.verify()
        assert found.ok, found.findings
        assert [each.size for each in found.gone] == [256]
        assert not (persons.ledger / "bodies" / "000").exists()
        with Index(persons.ledger) as index:
            index.catch_up(persons.log)
            assert sum(index.counts("late-arrival").decisions.values()) == 270

    assert kill_everywhere(run, prepare, examine) > 40


# Killed anywhere.


def test_whoever_erases_may_be_killed_in_front_of_any_change_to_the_disk(tmp_path: Path) -> None:
    begun = Persons(tmp_path / "begun")
    begun.fill(290)
    begun.request("K-3")
    begun.request("K-4")
    begun.writer.segment.close()
    begun.seal()
    persons = Persons(tmp_path / "w")
    persons.writer.segment.abandon()
    concerned = [place for place, body in enumerate(begun.bodies()) if b"of 3." in body or b"of 4." in body]

    def prepare() -> None:
        shutil.rmtree(persons.ledger)
        shutil.copytree(begun.ledger, persons.ledger)
        shutil.copytree(begun.workspace.keys, persons.workspace.keys, dirs_exist_ok=True)

    persons.key = begun.key

    def examine() -> None:
        report = persons.verify()
        assert report.ok, report.findings
        persons.turns()
        assert [place for place, body in enumerate(persons.bodies()) if not body] == concerned
        assert len(persons.receipts()) == 2
        report = persons.verify()
        assert report.ok, report.findings
        assert report.unsealed == 0
        assert report.unreferenced <= 1, "a segment that was not born yet stays for a minute"
        assert persons.files_with("secret of 3.") == []
        persons.turns()
        assert len(persons.receipts()) == 2

    assert kill_everywhere(persons.turns, prepare, examine) > 15


def test_erasers_killed_at_random_moments_write_each_receipt_once(tmp_path: Path) -> None:
    persons = Persons(tmp_path / "w")
    persons.fill(3_000)
    persons.leave_segment()
    persons.seal()
    rng = random.Random(20180525)
    asked: list[str] = []
    deadline = time.monotonic() + 8
    killed = 0
    while time.monotonic() < deadline and killed < 60:
        if len(asked) < 10 and rng.random() < 0.3:
            asked += persons.request(f"K-{len(asked)}")
        child = fork(persons.turns)
        time.sleep(rng.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        killed += not reap(child)
        if killed % 10 == 0:
            report = persons.verify()
            assert report.ok, report.findings
    persons.turns()
    assert len(persons.receipts()) == len(set(persons.receipts())) == len(asked)
    report = persons.verify()
    assert report.ok, report.findings
    for place in range(len(asked)):
        assert persons.files_with(f"secret of {place}.") == []
    assert killed > 5
    persons.writer.segment.abandon()
