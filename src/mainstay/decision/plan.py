"""A plan: everything one version needs to decide in a release, compiled once.

Compiling opens the version, checks every file against its digest, and prepares the validators, the protection, the
policies, the model and the parts of the record that never change. A call then only uses them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mainstay.authority.policy import Authority, compile_authority
from mainstay.capability.load import load_capability
from mainstay.catalog.versions import open_version
from mainstay.decision.ladder import Step, compile_ladder
from mainstay.decision.record import DecisionRecorder, Served, ShadowRecorder
from mainstay.decision.runner import compile_background_runner, compile_runner
from mainstay.errors import Failed, MainstayError, Misuse
from mainstay.privacy.protection import Protector, any_classified
from mainstay.privacy.pseudonym import load_pseudonym_key
from mainstay.runtime.calibration import Calibrator
from mainstay.runtime.novelty import Novelty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from msgspec import Raw, Struct

    from mainstay.capability.load import Declared
    from mainstay.capability.types import Capability
    from mainstay.catalog.types import Digest, Manifest, Release
    from mainstay.catalog.versions import StoredVersion
    from mainstay.contract.types import Property, Violation
    from mainstay.decision.runner import Runner
    from mainstay.decision.types import Stage
    from mainstay.runtime.types import Row
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.decision")

RECORD_SECONDS = 0.020  # kept at the end of a deadline for the record, where that is at most
RECORD_SHARE = 0.1  # of it

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Plan:
    """One version in one release, ready to decide."""

    digest: Digest
    stage: Stage
    manifest: Manifest
    declared: Declared
    authority: Authority
    open_lane: Runner
    recorder: DecisionRecorder
    protector: Protector | None  # None: nothing in the input is classified
    output_protector: Protector | None
    novelty: Novelty | None
    false_alarms: float
    calibrator: Calibrator | None
    ladder: tuple[Step, ...]
    run_seconds: float  # how long the model may take
    decode: Callable[[bytes | Raw], Struct]
    values: Callable[[Struct], Row]
    make_output: Callable[..., Struct]
    check_output: Callable[[bytes | Raw], Struct]

    @property
    def capability(self) -> Capability:
        return self.declared.capability

    def violations(self, raw: bytes) -> tuple[Violation, ...]:
        """Every rule that an input breaks."""
        return self.declared.input.violations(raw)

    def given(self, raw: bytes | Raw) -> bytes | Raw:
        """The input as it may be recorded. Raises ProtectionFailed."""
        return raw if self.protector is None else self.protector.protect(bytes(raw))

    def given_malformed(self, raw: bytes) -> bytes:
        """What may be recorded of a call that is no JSON of the documented form: all of it, or its digest."""
        if self.protector is not None:
            return self.protector.withhold(raw)
        return _encode({"raw": raw.decode("utf-8", "backslashreplace")})

    def recorded(self, output: bytes) -> bytes | None:
        """What is recorded of an output; None: the output itself. Raises ProtectionFailed."""
        return None if self.output_protector is None else self.output_protector.protect(output)


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """A version that is a shadow in one release, ready to run beside it."""

    plan: Plan
    recorder: ShadowRecorder
    share: float
    queue: int


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """A release, ready to decide."""

    release: Release
    production: Plan
    canary: Plan | None
    fallbacks: dict[Digest, Plan]  # the versions that rungs of the ladders name
    shadows: tuple[ShadowPlan, ...] = ()

    @property
    def capability(self) -> Capability:
        return self.production.capability

    @property
    def plans(self) -> dict[Digest, Plan]:
        """Every plan by the digest of its version. A version that also decides itself is not run twice."""
        deciding = [self.production] if self.canary is None else [self.production, self.canary]
        return self.fallbacks | {plan.digest: plan for plan in deciding}


def compile_release(workspace: Workspace, release: Release, *, shadows: bool = False) -> ReleasePlan:
    """Open a release, and its shadows where they are asked for. Those that cannot be opened are logged and left out.

    Raises Damaged, Failed or InvalidDocument when a version that decides is not whole or cannot run here.
    """
    canary = release.canary
    named = (*release.fallback_versions, *(() if canary is None else canary.fallback_versions))
    compile_plan = partial(_compile, workspace, release.capability, release.number)
    return ReleasePlan(
        release=release,
        production=compile_plan(release.version, release.contract, "production", release.fallback_versions),
        canary=None
        if canary is None
        else compile_plan(canary.version, canary.contract, "canary", canary.fallback_versions),
        fallbacks={digest: compile_plan(digest, None, "production", ()) for digest in dict.fromkeys(named)},
        shadows=tuple(_shadows(workspace, release)) if shadows else (),
    )


def _shadows(workspace: Workspace, release: Release) -> Iterator[ShadowPlan]:
    for each in release.shadows:
        try:
            plan = _compile(
                workspace, release.capability, release.number, each.version, each.contract, "production", None
            )
        except (MainstayError, ValueError, OSError, RuntimeError) as error:
            logger.error("shadow %s of %s not run: %s", each.version, release.capability, error)  # noqa: TRY400 - says all
            continue
        recorder = ShadowRecorder(release.capability, each.version, release.number, plan.authority.digest)
        yield ShadowPlan(plan, recorder, each.share, each.queue)


def compile_stage(workspace: Workspace, release: Release, stage: Stage) -> ReleasePlan:
    """What decided under one stage of a release, alone: its version for all calls, and those on its ladder.

    Raises as `compile_release` does, and Misuse when the release had no such stage.
    """
    chosen = release if stage == "production" else release.canary
    if chosen is None:
        raise Misuse(f"release {release.number} of {release.capability} had no {stage}")
    compile_plan = partial(_compile, workspace, release.capability, release.number)
    return ReleasePlan(
        release=msgspec.structs.replace(release, canary=None, shadows=()),
        production=compile_plan(chosen.version, chosen.contract, stage, chosen.fallback_versions),
        canary=None,
        fallbacks={
            digest: compile_plan(digest, None, "production", ()) for digest in dict.fromkeys(chosen.fallback_versions)
        },
    )


def compile_alone(workspace: Workspace, digest: Digest, capability: str) -> Plan:
    """A version by itself, in no release: what it answers where nothing stands behind it.

    Raises Damaged, Failed or InvalidDocument when it is not whole, cannot run here, or is of another capability.
    """
    return _compile(workspace, capability, 0, digest, None, "production", ())


def _compile(
    workspace: Workspace,
    name: str,
    release: int,
    digest: Digest,
    contract: Digest | None,
    stage: Stage,
    ladder_versions: tuple[Digest, ...] | None,
) -> Plan:
    """A version as a plan. One that only stands on a ladder has none of its own: it gives no `contract`.

    Without `ladder_versions` it is for a shadow: the versions on its ladder are never run.
    """
    version = open_version(workspace.versions, digest)
    manifest = version.manifest
    if contract is not None and manifest.contract.digest != contract:
        raise Failed(f"release {release} names contract {contract}, version {digest} holds another")
    declared = load_capability(version.folder)
    capability = declared.capability
    if capability.name != name:
        raise Failed(f"expected a version of {name}, found {digest}, which is one of {capability.name}")
    authority = compile_authority(declared)
    served = Served(capability.name, digest, release, stage, authority.digest)
    protector = _protector(workspace, capability, declared.input.properties)
    profile = manifest.profile
    rungs = capability.fallback if contract is not None else ()
    if ladder_versions is None:
        compile_lane, ladder_versions = compile_background_runner, ("",) * len(rungs)
    else:
        compile_lane = compile_runner
    ladder = compile_ladder(rungs, ladder_versions, declared.input.fields)
    return Plan(
        digest=digest,
        stage=stage,
        manifest=manifest,
        declared=declared,
        authority=authority,
        open_lane=compile_lane(version, declared, protector),
        recorder=DecisionRecorder(served, workspace.settings.log),
        protector=protector,
        output_protector=_protector(workspace, capability, declared.output.properties),
        novelty=None if profile is None else _novelty(version, declared),
        false_alarms=0.0 if profile is None else profile.false_alarms,
        calibrator=None if manifest.calibration is None else Calibrator(manifest.calibration),
        ladder=ladder,
        run_seconds=_run_seconds(capability, ladder),
        decode=declared.input.decode,
        values=declared.input.values,
        make_output=declared.output.make,
        check_output=declared.output.decode,
    )


def _protector(workspace: Workspace, capability: Capability, properties: tuple[Property, ...]) -> Protector | None:
    if not any_classified(properties):
        return None
    return Protector(properties, load_pseudonym_key(workspace.keys), capability.protect)


def _novelty(version: StoredVersion, declared: Declared) -> Novelty:
    profile = version.manifest.profile
    assert profile is not None
    return Novelty.load((version.path / profile.file.path).read_bytes(), declared.input.fields)


def record_seconds(allowed_seconds: float) -> float:
    """What is kept of the time that a decision may take, so that a fallback is recorded within it, too."""
    return min(RECORD_SECONDS, RECORD_SHARE * allowed_seconds)


def _run_seconds(capability: Capability, ladder: tuple[Step, ...]) -> float:
    """What is declared; else all the time there is, or half of it where another version may have to run after."""
    if capability.limits.run_ms is not None:
        return capability.limits.run_ms / 1000
    share = 0.5 if any(step.name == "version" for step in ladder) else 1.0
    return capability.deadline_ms / 1000 * share
