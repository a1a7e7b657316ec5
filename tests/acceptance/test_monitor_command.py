"""`mainstay monitor` and `mainstay status` over some days of decisions."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

import tiny
from mainstay.cli.main import main
from mainstay.cli.status import gather_status, status_lines
from monitoring.worlds import BEGIN, World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance


def run(world: World, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["monitor", tiny.NAME, "--workspace", str(world.workspace.root), *arguments])
    return int(ended.value.code or 0)


def test_monitor_tells_a_person_writes_a_page_and_gives_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path / "w", monitoring={"step_hours": 12})
    assert not any("monitor " in line for line in status_lines(gather_status(world.workspace, 1)))
    for day in range(4):
        world.decide(600, BEGIN + timedelta(days=day), shift=1.5 if day == 3 else 0.0)
    page = tmp_path / "page.html"
    assert run(world, "--html", str(page)) == 0
    said = capsys.readouterr().out
    assert "the world seems to have changed" in said
    assert "input.a" in said
    assert page.read_text().startswith("<!doctype html>")
    assert run(world, "--json", "--since", "2") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["capability"] == tiny.NAME
    assert {"input_drift"} <= {each["finding"]["code"] for each in found["findings"]}
    status = status_lines(gather_status(world.workspace, 1))
    assert any("critical" in line and line.startswith("  monitor ") for line in status)
    assert any(f"mainstay monitor {tiny.NAME}" in line for line in status)

    for since in ("yesterday", "0", "-3", "1e9"):
        assert run(world, f"--since={since}") == 2
        assert "expected days" in capsys.readouterr().err
