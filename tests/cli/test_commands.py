from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.cli.evidence import explain_entry
from mainstay.cli.init import create_workspace
from mainstay.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.acceptance


@dataclass
class Shell:
    """Runs `mainstay` as a person would, in one directory."""

    directory: Path
    token: str = ""

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MAINSTAY_API_KEY": self.token, "COLUMNS": "200"}
        command = [sys.executable, "-m", "mainstay.cli.main", *words]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *words: str, stdin: str = "") -> Any:
        done = self.run(*words, "--json", stdin=stdin)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    _, _, token = create_workspace(tmp_path / "w", "tests.example.com/cli")
    return Shell(tmp_path / "w", token)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("cli") / "w")
    with tiny.up(workspace, token):
        yield Shell(workspace.root, token)


def test_init_makes_a_workspace_and_shows_the_key_once(tmp_path: Path) -> None:
    made = Shell(tmp_path).json("init", "pilots", "--log", "ledger.example.com/pilots")
    assert made["log"] == "ledger.example.com/pilots"
    assert made["token"].startswith("ms_")
    root = tmp_path / "pilots"
    secrets = {path.name: path.stat().st_mode & 0o777 for path in (root / ".mainstay" / "keys").iterdir()}
    assert secrets["signing.pem"] == 0o600
    assert secrets["pseudonym.key"] == 0o600
    stored = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert made["token"].encode() not in stored
    again = Shell(tmp_path).run("init", "pilots")
    assert again.returncode == 2
    assert "is a workspace already" in again.stderr


def test_outside_a_workspace_it_says_how_to_make_one(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("status")
    assert done.returncode == 2
    assert "no workspace at" in done.stderr
    assert "mainstay init" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_with_its_value(shell: Shell) -> None:
    settings = shell.directory / "mainstay.toml"
    settings.write_text(settings.read_text() + "wrokers = 3\n")
    done = shell.run("status")
    assert done.returncode == 2
    assert "wrokers" in done.stderr
    assert "workers" in done.stderr


def test_validate_lists_every_problem_with_its_line(shell: Shell) -> None:
    folder = tiny.write_folder(shell.directory / "capabilities" / "tiny")
    assert shell.run("validate", str(folder)).returncode == 0
    tiny.write_folder(folder, name="Not A Name", ownr={}, deadline_ms=0)
    done = shell.run("validate", str(folder))
    assert done.returncode == 1
    assert "capability.yaml:1" in done.stdout
    for word in ("name", "ownr", "deadline_ms"):
        assert word in done.stdout
    problems = shell.json("validate", str(folder))["problems"]
    assert {"file", "line", "where", "expected", "found"} == set(problems[0])


def test_registering_twice_changes_nothing_and_promoting_is_recorded(shell: Shell) -> None:
    folder = str(tiny.write_folder(shell.directory / "capabilities" / "tiny"))
    first = shell.json("register", folder)
    assert first["created"]
    second = shell.json("register", folder)
    assert (second["version"], second["created"]) == (first["version"], False)
    assert shell.run("promote", "tiny").returncode == 2
    release = shell.json("promote", "tiny", "--reason", "first", "--version", first["version"][:19])["release"]
    assert (release["number"], release["version"], release["reason"]) == (1, first["version"], "first")
    unknown = shell.run("promote", "tiny", "--reason", "x", "--version", "sha256:00")
    assert unknown.returncode == 2
    assert first["version"] in unknown.stderr


def test_keys_are_made_listed_and_revoked(shell: Shell) -> None:
    made = shell.json("key", "create", "desk", "--capability", "tiny", "--verb", "decide")
    listed = {key["id"]: key for key in shell.json("key", "list")}
    assert listed[made["id"]]["verbs"] == ["decide"]
    assert made["token"] not in shell.run("key", "list").stdout
    assert shell.run("key", "revoke", made["id"], "--reason", "left").returncode == 0
    assert "revoked" in shell.run("key", "list").stdout
    assert shell.run("key", "revoke", "00000000", "--reason", "left").returncode == 2


def test_decisions_and_outcomes_from_the_shell(served: Shell) -> None:
    decision = served.json("decide", "tiny", "--input", "-", "--key", "case", stdin='{"a": 1, "b": 2}')
    assert decision["outcome"] == "answered"
    report = {"key": "case", "outcome": {"yes": True}, "observed_at": "2026-01-01T00:00:00Z"}
    assert served.json("outcomes", "tiny", "-", stdin=json.dumps(report))["recorded"] == 1
    refused = served.run("decide", "tiny", "--input", "-", stdin='{"a": 1000}')
    assert refused.returncode == 1
    assert "a: maximum" in refused.stdout
    many = served.run("decide", "tiny", "--input", "-", stdin='{"a": 1, "b": 1}\n{"a": 2, "b": 1}\n')
    assert many.returncode == 0
    assert len(many.stdout.splitlines()) == 2


def test_input_that_is_no_json_is_named_by_line(served: Shell) -> None:
    done = served.run("decide", "tiny", "--input", "-", stdin='{"a": 1}\n{"a": \n')
    assert done.returncode == 2
    assert "-:2: expected a JSON object" in done.stderr
    absent = served.run("decide", "tiny", "--input", "absent.json")
    assert absent.returncode == 2
    assert "absent.json" in absent.stderr


def test_a_missing_or_wrong_key_is_told(served: Shell) -> None:
    without = Shell(served.directory).run("decide", "tiny", "--input", "-", stdin="{}")
    assert (without.returncode, "MAINSTAY_API_KEY" in without.stderr) == (2, True)
    wrong = Shell(served.directory, "ms_00000000_" + "A" * 43).run("decide", "tiny", "--input", "-", stdin='{"a": 1}')
    assert (wrong.returncode, "401" in wrong.stdout) == (1, True)


def test_explain_and_verify_and_status_tell_the_same_story(served: Shell) -> None:
    decision = served.json("decide", "tiny", "--input", "-", "--key", "told", stdin='{"a": 1, "b": 2}')
    explained = served.json("explain", decision["decision_id"])
    assert explained["body"]["key"] == "told"
    assert explained["in_force"]["reason"] == "for a test"
    text = served.run("explain", decision["decision_id"]).stdout
    assert decision["version"] in text
    assert served.run("explain", "no-such-id").returncode == 2
    verified = served.json("ledger", "verify")
    assert verified["ok"]
    status = served.json("status")
    assert status["up"]["ready"]
    assert status["capabilities"][0]["counts"]["decisions"]["answered"] >= 1
    assert "tiny  release 1" in served.run("status").stdout


def test_a_changed_copy_of_the_ledger_does_not_verify(shell: Shell, tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "s")
    with tiny.up(workspace, token):
        Shell(workspace.root, token).run("decide", "tiny", "--input", "-", stdin='{"a": 1, "b": 2}')
    kept = tmp_path / "checkpoint"
    kept.write_bytes((workspace.ledger / "checkpoint").read_bytes())
    public = str(workspace.keys / "signing.vkey")
    words = (
        "ledger",
        "verify",
        "--directory",
        str(workspace.ledger),
        "--public-key",
        public,
        "--against",
        str(kept),
    )
    assert shell.run(*words).returncode == 0
    entries = next(path for path in (workspace.ledger / "tile" / "entries").rglob("*") if path.is_file())
    content = bytearray(entries.read_bytes())
    content[40] ^= 1
    entries.chmod(0o640)
    entries.write_bytes(content)
    done = shell.run(*words)
    assert done.returncode == 1
    assert "entry 0" in done.stdout


def test_changes_are_entries_of_the_ledger(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "s")
    with tiny.up(workspace, token):
        shell = Shell(workspace.root, token)
        decided = shell.json("decide", "tiny", "--input", "-", stdin='{"a": 1, "b": 2}')
        assert explain_entry(workspace, decided["decision_id"])["entry"]["kind"] == "decision"
    counted = Shell(workspace.root, token).json("ledger", "verify")["kinds"]
    assert counted["change"] == 4  # the workspace, its key, the version, the release
    assert counted["decision"] == 1


def test_every_command_shows_an_example_that_names_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    top = shell.run("--help").stdout
    for command in ("init", "validate", "register", "promote", "up", "decide", "outcomes", "status", "explain", "demo"):
        assert command in top
        assert f"Example: mainstay {command}" in shell.run(command, "--help").stdout
    for words in (
        *(("ledger", "verify"), ("ledger", "anchor")),
        *(("witness", "init"), ("witness", "add-log"), ("witness", "serve")),
        *(("key", "create"), ("key", "list"), ("key", "revoke")),
    ):
        assert f"Example: mainstay {' '.join(words)}" in shell.run(*words, "--help").stdout


def test_every_command_has_its_line_in_the_list(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for words, (_, line) in COMMANDS.items():
        listed = shell.run(*words[:-1], "--help").stdout
        assert line in " ".join(listed.replace("│", " ").split())
