"""What `mainstay shadow` says, to people and to programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import tiny
from mainstay.cli.common import Common
from mainstay.cli.init import create_workspace
from mainstay.cli.shadow import shadow
from mainstay.errors import Misuse
from mainstay.rollout.comparison_types import Comparison
from mainstay.rollout.steering import begin, roll_back
from rollout.made import OPS, Stage
from rollout.rows import Traffic
from state.databases import opened

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def traffic(tmp_path: Path) -> tuple[Stage, Traffic]:
    workspace = create_workspace(tmp_path / "w", "tests.example.com/shadow")[0]
    with opened(workspace) as database:
        stage = Stage(workspace, database)
        begin(stage.steering, stage.move(stage.version(cost={"per_decision": 0.01}), "production"))
        return stage, Traffic(workspace)


def test_a_person_is_told_how_much_differs_and_which_cases(
    traffic: tuple[Stage, Traffic], capsys: pytest.CaptureFixture[str]
) -> None:
    stage, rows = traffic
    plain, programs = (Common(workspace=stage.workspace.root, json=json) for json in (False, True))
    with pytest.raises(Misuse, match="no version is or was one"):
        shadow(tiny.NAME, common=plain)
    other = stage.version()
    begin(stage.steering, stage.move(other, "shadow"))
    shadow(tiny.NAME, common=plain)
    assert "nothing was compared yet: 0 decisions" in capsys.readouterr().out
    ids = rows.decide(stage.current, 300, disagreement=0.2)
    shadow(tiny.NAME, other[:19], cases=4, common=programs)
    found = msgspec.json.decode(capsys.readouterr().out, type=Comparison)
    assert found.whole is not None
    assert (found.capability, found.trial.version, found.trial.until) == (tiny.NAME, other, None)
    assert (found.whole.compared, found.currency, len(found.cases)) == (300, "EUR", 4)
    assert 30 < found.whole.differ == found.whole.outputs_differ < 90
    assert {each.decision_id for each in found.cases} <= set(ids)
    shadow(tiny.NAME, cases=4, common=plain)
    said = capsys.readouterr().out
    assert said.startswith(f"{tiny.NAME}: {other[:19]}, a shadow since ")
    assert f"differ    {found.whole.differ:,}, {found.whole.disagreement.value:.1%} [" in said
    assert said.rstrip().endswith(f"All of one: mainstay explain {found.cases[0].decision_id}")
    for case in found.cases:
        assert any(line.startswith(case.decision_id) and ", shadow " in line for line in said.splitlines())
    roll_back(stage.steering, tiny.NAME, reason="seen enough", principal=OPS)
    shadow(tiny.NAME, cases=0, common=plain)
    said = capsys.readouterr().out
    assert f"{other[:19]}, was a shadow from " in said
    assert "mainstay explain" not in said
