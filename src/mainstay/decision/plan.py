"""A plan: everything a release needs to decide, compiled once.

Compiling opens the version, checks every file against its digest, and prepares the validators, the protection, the
model and the parts of the record that never change. A call then only uses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from mainstay.capability.load import load_capability
from mainstay.catalog.versions import open_version
from mainstay.decision.record import DecisionRecorder, Verdict
from mainstay.decision.types import Reason, ReasonCode
from mainstay.errors import Failed
from mainstay.privacy.pseudonym import Protector, any_classified, load_pseudonym_key
from mainstay.runtime.lane import INLINE_SECONDS, seconds_per_batch
from mainstay.runtime.model import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from msgspec import Raw, Struct

    from mainstay.capability.load import Declared
    from mainstay.capability.types import Capability
    from mainstay.catalog.types import Manifest, Release
    from mainstay.contract.types import Violation
    from mainstay.runtime.tensors import Row
    from mainstay.workspace import Workspace

_encode = msgspec.json.Encoder().encode
SAMPLE_ROWS = 64  # how many sample rows the model is timed on


@dataclass(frozen=True, slots=True)
class Plan:
    """One release of one capability, ready to decide."""

    release: Release
    manifest: Manifest
    declared: Declared
    model: OnnxModel
    inline: bool  # the model is fast enough to run on the event loop
    recorder: DecisionRecorder
    protector: Protector | None  # None: nothing in the input is classified
    fallback: bytes | None  # the output of the first rung, as JSON
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
        """The input as it may be recorded."""
        return raw if self.protector is None else self.protector.protect(bytes(raw))

    def given_malformed(self, raw: bytes) -> bytes:
        """What may be recorded of a call that is no JSON of the documented form: all of it, or its digest."""
        if self.protector is not None:
            return self.protector.withhold(raw)
        return _encode({"raw": raw.decode("utf-8", "backslashreplace")})

    def without_model(self, code: ReasonCode, detail: str) -> Verdict:
        """The verdict where the model gave nothing usable: the declared fallback, or a refusal."""
        reasons = (Reason(code, detail),)
        if self.fallback is None:
            return Verdict("refused", reasons=reasons)
        return Verdict("fallback", output=self.fallback, reasons=reasons)


def compile_plan(workspace: Workspace, release: Release) -> Plan:
    """Open a release. Raises Damaged or Failed when its version is not whole or cannot run here."""
    version = open_version(workspace.versions, release.version)
    if version.manifest.contract.digest != release.contract:
        raise Failed(f"release {release.number} names contract {release.contract}, its version holds another")
    declared = load_capability(version.folder)
    capability = declared.capability
    if capability.name != release.capability:
        raise Failed(f"release of {release.capability} names a version of {capability.name}")
    mapping = {name: capability.output[name] for name in declared.output.fields}
    model = OnnxModel(version.artifact.read_bytes(), version.manifest, declared.input.fields, mapping)
    rows = _sample_rows(declared, version.folder / capability.samples)
    classified = any_classified(declared.input.properties)
    return Plan(
        release=release,
        manifest=version.manifest,
        declared=declared,
        model=model,
        inline=seconds_per_batch(model, rows, capability.limits.batch) < INLINE_SECONDS,
        recorder=DecisionRecorder(release, workspace.settings.log),
        protector=Protector(declared.input.properties, load_pseudonym_key(workspace.keys)) if classified else None,
        fallback=_encode(capability.fallback[0].constant) if capability.fallback else None,
        decode=declared.input.decode,
        values=declared.input.values,
        make_output=declared.output.make,
        check_output=declared.output.decode,
    )


def _sample_rows(declared: Declared, samples: Path) -> Sequence[Row]:
    """The first sample records of the version, as rows. They were checked when the version was registered."""
    lines = (line for line in samples.read_bytes().split(b"\n") if line.strip())
    return [
        declared.input.values(declared.input.decode(line)) for line, _ in zip(lines, range(SAMPLE_ROWS), strict=False)
    ]
