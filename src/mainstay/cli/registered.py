"""What `mainstay register` says of a version, and what it lends to registering."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mainstay.errors import Failed
from mainstay.privacy.protection import ProtectionFailed, Protector
from mainstay.privacy.pseudonym import load_pseudonym_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.capability.load import Declared
    from mainstay.catalog.register import Registered
    from mainstay.catalog.types import Manifest, TrainedOn
    from mainstay.runtime.types import Row
    from mainstay.workspace import Workspace


# Loaded where a version names a snapshot: what reads tables takes a third of a second, which no other command owes.
_TRAINING: Final = "mainstay.catalog.training"


def make_leaving(workspace: Workspace, declared: Declared) -> Callable[[Row], Row]:
    """What of a row may leave for a remote model, as in production. What it gives raises Failed."""
    key = load_pseudonym_key(workspace.keys)
    protector = Protector(declared.input.properties, key, declared.capability.protect)

    def leave(row: Row) -> Row:
        try:
            return protector.for_remote(row)
        except ProtectionFailed as failed:
            raise Failed(f"a row could not be protected before it left for the remote model: {failed}") from None

    return leave


def find_training(workspace: Workspace, name: str) -> TrainedOn:
    """The snapshot of this name. Raises Misuse when there is none."""
    found: TrainedOn = import_module(_TRAINING).find_training(workspace, name)
    return found


def trained_on_line(trained_on: TrainedOn) -> str:
    """For people."""
    return (
        f"snapshot {trained_on.snapshot}: {trained_on.rows:,} rows of {trained_on.table}"
        f" at version {trained_on.table_version}, SHA-256 {trained_on.sha256}"
    )


def version_facts(manifest: Manifest) -> dict[str, Any]:
    """How a version came about, for programs and for the ledger."""
    calibration, profile = manifest.calibration, manifest.profile
    return {
        "runtime": manifest.runtime,
        "conversion": manifest.conversion,
        "isolated_because": manifest.isolated_because,
        "calibration": None
        if calibration is None
        else {
            "method": calibration.method,
            "rows": calibration.rows,
            "error_before": calibration.error_before,
            "error_after": calibration.error_after,
        },
        "profile": None if profile is None else {"rows": profile.rows, "false_alarms": profile.false_alarms},
        "trust": manifest.trust,
        "trained_on": manifest.trained_on,
    }


def registered_facts(registered: Registered) -> dict[str, Any]:
    """The JSON of `mainstay register`."""
    return {
        "capability": registered.manifest.capability,
        "version": registered.version,
        "created": registered.created,
        **version_facts(registered.manifest),
        "notes": registered.notes,
        "path": str(registered.path),
    }


def registered_lines(registered: Registered) -> Iterator[str]:
    """What `mainstay register` prints."""
    manifest = registered.manifest
    yield f"{manifest.capability}  {registered.version}"
    yield _runtime(manifest)
    if manifest.trust is not None and manifest.trust.signed_by is not None:
        yield f"signed: the model's file, by the key {manifest.trust.signed_by}"
    if manifest.trust is not None and manifest.trust.reason is not None:
        yield f"trusted: {manifest.trust.reason}"
    if manifest.profile is not None:
        profile = manifest.profile
        yield (
            f"novelty: fitted on {profile.rows:,} reference rows, "
            f"{profile.false_alarms:.2%} of ordinary calls will be called strange"
        )
    if manifest.trained_on is not None:
        yield f"trained on: {trained_on_line(manifest.trained_on)}"
    if manifest.calibration is not None:
        fit = manifest.calibration
        yield (
            f"confidence: {fit.method} calibration on {fit.rows:,} labelled rows, "
            f"calibration error {fit.error_before:.4f} before, {fit.error_after:.4f} after"
        )
    yield from (f"note: {note}" for note in registered.notes)
    if not registered.created:
        yield "registered before; nothing changed"


def _runtime(manifest: Manifest) -> str:
    if manifest.conversion is not None:
        done = manifest.conversion
        return (
            f"converted to ONNX: largest difference {done.max_difference:.2g} over {done.rows} sample rows, "
            f"{done.tolerance:.2g} allowed"
        )
    match manifest.runtime:
        case "onnx":
            return "runs in process (ONNX)"
        case "remote":
            return "runs elsewhere (Open Inference Protocol)"
        case "isolated":
            because = "" if manifest.isolated_because is None else f": {manifest.isolated_because}"
            return f"runs isolated, in a process of its own{because}"
