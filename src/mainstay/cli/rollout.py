from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mainstay.authority.policy import Moved
from mainstay.capability.load import load_capability
from mainstay.catalog.versions import FOLDER, version_path
from mainstay.cli.checks import evidence_of, facts_of, look, summary_lines
from mainstay.cli.common import DEFAULT, Common, operator, out, record_change, require
from mainstay.cli.rollout_shown import SHORT_DIGEST
from mainstay.cli.steered import Reason, steered, tell
from mainstay.cli.versions import find_version
from mainstay.errors import Failed, Misuse
from mainstay.rollout import steering, store
from mainstay.rollout.gates import SETTLED_BY_THE_MOVE
from mainstay.rollout.moves import Move

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.rollout.gates_types import Report
    from mainstay.rollout.settling import Steering
    from mainstay.rollout.types import Begun, Proposal, Rollout
    from mainstay.workspace import Workspace

Override = Annotated[
    str | None,
    Parameter(help="Why it may go on although a check that is needed does not pass; recorded, and a matter of policy."),
]


def promote(
    name: str,
    /,
    version: Annotated[
        str, Parameter(help="A version's id or its beginning; by default the one registered last.")
    ] = "",
    *,
    reason: Reason,
    to: Annotated[
        Literal["shadow", "canary", "production"] | None, Parameter(help="The stage; by default production.")
    ] = None,
    canary: Annotated[
        float | None,
        Parameter(help="Make it a canary that decides for this percentage of the keys; by default the next step."),
    ] = None,
    override: Override = None,
    common: Common = DEFAULT,
) -> None:
    """Bring a version to a stage, where the checks of that stage pass; every worker follows within two seconds.

    Example: mainstay promote late-arrival --reason "first release"

    Example: mainstay promote late-arrival ab12 --to shadow --reason "trained on March"

    Parameters
    ----------
    name
        The capability.
    """
    stage: Begun = to or ("production" if canary is None else "canary")
    if canary is not None and stage != "canary":
        raise Misuse(f"--canary gives the percentage of a canary: expected --to canary beside it, found {stage}")
    workspace = common.open()
    found = find_version(workspace, name, version)
    candidate = load_capability(version_path(workspace.versions, found) / FOLDER)
    require(workspace, name, "promote", candidate=candidate, moved=Moved(stage, found))
    with steered(workspace) as steers:
        report = look(workspace, name, found, stage, steers.database, without=SETTLED_BY_THE_MOVE)
        _tell_checks(report, json=common.json)
        overridden = _pass_gate(workspace, report, override, candidate)
        move = Move(
            capability=name,
            version=found,
            stage=stage,
            percent=canary,
            reason=reason,
            principal=operator(),
            evidence=evidence_of(report) | {"override": overridden},
        )
        made = _move(steers, move)
    facts = {"stage": stage, "checks": facts_of(report), "override": overridden}
    tell(workspace, name, made, facts, json=common.json)


def approve(
    proposal: str,
    /,
    *,
    reason: Reason,
    digest: Annotated[
        str | None, Parameter(help="The digest of what was looked at, so that nothing else is approved.")
    ] = None,
    refuse: Annotated[bool, Parameter(negative="", help="Refuse it, or take back one's own.")] = False,
    override: Override = None,
    common: Common = DEFAULT,
) -> None:
    """Approve what somebody else proposed, where the checks of the stage still pass; it is done at once.

    Example: mainstay approve proposal-5f0c2e1a --reason "read the comparison of last week"

    Parameters
    ----------
    proposal
        The id of the proposal; `mainstay rollouts` lists those that wait.
    """
    workspace = common.open()
    with steered(workspace) as steers:
        found = steers.database.read(lambda connection: store.find_proposal(connection, proposal))
        if found is None:
            raise Misuse(f"no proposal {proposal[:80]!r}", hint="List those that wait: mainstay rollouts")
        name = found.capability
        moved = Moved(found.stage, found.version, _account_of(found.proposed_by))
        require(workspace, name, "approve", moved=moved)
        if refuse:
            withdrawn = steering.withdraw(steers, proposal, reason=reason, principal=operator())
            tell(workspace, name, withdrawn, {}, json=common.json)
            return
        report = look(workspace, name, found.version, found.stage, steers.database, without=SETTLED_BY_THE_MOVE)
        _tell_checks(report, json=common.json)
        overridden = _pass_gate(workspace, report, override, None)
        if overridden is not None:
            record_change(workspace, "checks.overridden", f"{name}/{found.stage}", overridden, evidence_of(report))
        made = steering.approve(steers, proposal, digest=digest or found.digest, reason=reason, principal=operator())
    facts = {"stage": found.stage, "checks": facts_of(report), "override": overridden}
    tell(workspace, name, made, facts, json=common.json)


def _pass_gate(workspace: Workspace, report: Report, override: str | None, candidate: Declared | None) -> str | None:
    """None where the gate is open; else why it is passed all the same. Raises Failed when it may not be."""
    if report.passes:
        return None
    shut = ", ".join(each.id for each in report.closed_by)
    if override is None:
        of = f"{report.capability} --version {report.version[:SHORT_DIGEST]} --for {report.stage}"
        raise Failed(
            f"the gate to {report.stage} is shut: {shut}",
            hint=f"See: mainstay check {of}\nWhere policy permits it, --override REASON passes it, and is recorded.",
        )
    moved = Moved(report.stage, report.version)
    require(workspace, report.capability, "override", candidate=candidate, moved=moved)
    return override


def _move(steers: Steering, move: Move) -> Rollout | Proposal:
    running = steers.database.read(lambda connection: store.find_running(connection, move.capability))
    if move.stage == "production":
        return steering.promote(steers, move)
    if running is not None and running.version == move.version:
        return steering.advance(steers, move)
    return steering.begin(steers, move)


def _account_of(principal: str) -> str | None:
    """The account of a person; None for what no person does."""
    kind, _, account = principal.partition(":")
    return account if kind == "os" else None


def _tell_checks(report: Report, *, json: bool) -> None:
    if not json:
        for line in summary_lines(report):
            out.print(line, markup=False)
