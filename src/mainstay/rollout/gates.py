"""The gate before a stage: every check that is asked there, answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mainstay.errors import MainstayError
from mainstay.rollout import gates_evidence, gates_stage, gates_version
from mainstay.rollout.gates_looking import Looking
from mainstay.rollout.gates_types import CHECKS, Check, Found, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mainstay.rollout.gates_types import CheckId, Stage
    from mainstay.signing import Verifier
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

CHECKERS: Final[dict[CheckId, Callable[[Looking], Found]]] = {
    "version-whole": gates_version.version_whole,
    "model-signed": gates_version.model_signed,
    "samples-run": gates_version.samples_run,
    "conversion-agrees": gates_version.conversion_agrees,
    "policies-compile": gates_version.policies_compile,
    "expressions-compile": gates_version.expressions_compile,
    "contract-compatible": gates_version.contract_compatible,
    "reference-fitted": gates_version.reference_fitted,
    "promise-on-reference": gates_version.promise_on_reference,
    "training-known": gates_version.training_known,
    "runbook-there": gates_version.runbook_there,
    "owner-reachable": gates_version.owner_reachable,
    "fallback-answers": gates_version.fallback_answers,
    "rollback-possible": gates_stage.rollback_possible,
    "stages-passed": gates_stage.stages_passed,
    "nothing-else-on-trial": gates_stage.nothing_else_on_trial,
    "shadow-compared": gates_stage.shadow_compared,
    "shadow-agrees": gates_stage.shadow_agrees,
    "canary-guards": gates_stage.canary_guards,
    "labels-enough": gates_stage.labels_enough,
    "no-critical-finding": gates_evidence.no_critical_finding,
    "service-levels-kept": gates_evidence.service_levels_kept,
    "promise-kept": gates_evidence.promise_kept,
    "approval-given": gates_stage.approval_given,
    "out-of-force": gates_stage.out_of_force,
}
SETTLED_BY_THE_MOVE: Final[frozenset[CheckId]] = frozenset({"approval-given"})
"""What moving a version looks after itself: where somebody has to approve it, a proposal is made of the move."""


def run_checks(  # noqa: PLR0913 - keywords only: what is looked at, and with what
    workspace: Workspace,
    capability: str,
    version: str,
    stage: Stage,
    *,
    verifier: Verifier,
    database: Database | None,
    without: Collection[CheckId] = (),
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Every check that is asked before `stage`, in the order of the list, but those of `without`.

    A check whose evidence cannot be read is unknown, and says why. Without a database, what stands there is unknown.
    """
    looking = Looking(workspace, capability, version, stage, verifier, database, datetime.now(UTC))
    made = []
    for name, question in CHECKS.items():
        if stage in question.stages and name not in without:
            if progress is not None:
                progress(question.text)
            made.append(_answered(name, looking))
    return Report(capability=capability, version=version, stage=stage, at=looking.now, checks=tuple(made))


def _answered(name: CheckId, looking: Looking) -> Check:
    try:
        found = CHECKERS[name](looking)
    except (MainstayError, OSError) as error:
        said = str(error).splitlines()
        found = Found("unknown", f"it cannot be looked at: {said[0] if said else type(error).__name__}", "evidence")
    age = 0.0 if found.since is None else max(0.0, (looking.now - found.since).total_seconds())
    return Check(
        id=name,
        question=CHECKS[name].text,
        verdict=found.verdict,
        observed=found.observed,
        required=found.required,
        needed=found.needed,
        evidence=found.evidence,
        age_seconds=round(age, 3),
    )
