from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

import tiny
from mainstay.cli.init import create_workspace
from mainstay.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made, _, _ = create_workspace(tmp_path / "w", "tests.example.com/export")
    levels = {"availability": 0.999, "latency_ms": 20_000}
    tiny.write_folder(made.capabilities / tiny.NAME, service_levels=levels)
    return made


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_rules_go_to_standard_output_and_what_is_left_out_is_said_beside(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "prometheus", tiny.NAME, "--workspace", str(workspace.root)) == 0
    printed = capsys.readouterr()
    groups = yaml.safe_load(printed.out)["groups"]
    assert [group["name"] for group in groups] == [f"mainstay-tiny-{part}" for part in ("levels", "service", "data")]
    assert printed.err == "note: latency: no rule is made; the metrics end at 10,000 ms\n"
    assert "from its folder" in printed.out.splitlines()[0]


def test_a_file_is_written_anew_and_alerts_link_to_the_runbook_that_is_named(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rules" / "tiny.yml"
    for runbook in ("runbook.md", "https://wiki.example.com/tiny"):
        words = ("--output", str(file), "--runbook", runbook, "--workspace", str(workspace.root))
        assert run("export", "prometheus", tiny.NAME, *words) == 0
        assert f"{runbook}#nobody-calls" in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == ["tiny.yml"]
    assert capsys.readouterr().out.startswith(f"{file}: ")


def test_a_dashboard_is_json(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "grafana", tiny.NAME, "--workspace", str(workspace.root)) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["uid"], found["schemaVersion"]) == ("mainstay-tiny", 42)


def test_what_is_not_there_and_what_cannot_be_written_are_misuse(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "grafana", "nothing", "--workspace", str(workspace.root)) == 2
    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / "x.json")
    assert run("export", "grafana", tiny.NAME, "--output", output, "--workspace", str(workspace.root)) == 2
    assert "expected a file that can be written" in capsys.readouterr().err
