"""What is answered for many rows at once is what is answered for each of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tiny
from mainstay.catalog.releases import read_current
from mainstay.catalog.versions import open_version
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.decision.guard import guard
from mainstay.decision.guard_columns import answer_many
from mainstay.decision.plan import compile_release
from mainstay.decision.record import Verdict
from mainstay.decision.runner import load_graph
from mainstay.runtime.lane import run_rows
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.decision.plan import Plan
    from mainstay.runtime.model import OnnxModel
    from mainstay.runtime.tensors import Column

POLICY = """
@id("keys") permit (principal is Mainstay::Key, action, resource);
@id("people") permit (principal is Mainstay::Person, action, resource);
@id("only-small") permit (principal is Mainstay::Capability, action == Mainstay::Action::"answer", resource) when {
  %s
};
"""
CONDITIONS = {
    "of the output": 'context.output.probability.lessThan(decimal("0.8"))',
    "of the input": (
        'context.input.a.lessThan(decimal("1.5")) && !(context.input has note && context.input.note == "x")'
    ),
    "of the confidence": 'context has confidence && context.confidence.greaterThan(decimal("0.7"))',
    "of the engine": 'context.input has note && context.input.note like "y*"',
}


def compiled(directory: Path, policy: str, **changes: Any) -> tuple[Plan, OnnxModel]:
    workspace, _ = tiny.make_served(directory / "first")
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, **changes)
    (folder / "authority.cedar").write_text(policy)
    record_promotion(workspace, tiny.NAME, record_registration(workspace, folder, None).version, "for a test")
    release = read_current(workspace.releases, tiny.NAME, load_verifier(workspace.keys))
    plan = compile_release(workspace, release).production
    return plan, load_graph(open_version(workspace.versions, plan.digest), plan.declared)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_many_are_answered_as_each_is(condition: str, tmp_path: Path) -> None:
    plan, model = compiled(tmp_path, POLICY % CONDITIONS[condition], min_confidence=0.55)
    random = np.random.default_rng(1)
    rows = [
        (float(a), None if place % 7 == 0 else float(b), (None, "x", "yes")[place % 3])
        for place, (a, b) in enumerate(random.normal(size=(200, 2)))
    ]
    columns: dict[str, Column] = {
        "a": np.array([row[0] for row in rows]),
        "b": np.array([row[1] for row in rows], np.float64),
        "note": [row[2] for row in rows],
    }
    one_by_one = guard(plan, rows, run_rows(model, rows))
    answers = answer_many(plan, model.run_columns(columns), None, lambda: rows)
    for place, each in enumerate(one_by_one):
        simply = isinstance(each, Verdict) and not each.reasons
        assert (answers.outputs[place] is not None) == simply
        if isinstance(each, Verdict) and simply:
            assert json.loads(answers.outputs[place] or b"") == pytest.approx(json.loads(each.output))
            assert float(answers.confidences[place]) == pytest.approx(float(each.confidence))
    assert any(output is not None for output in answers.outputs)
    assert any(output is None for output in answers.outputs)
