"""Registering: from a capability folder to an immutable version that has been seen to work on the sample.

    1  load and validate the folder; the model's file is trusted, or never opened
    2  read the samples and the reference rows; each must keep its contract
    3  get a model that runs: a graph as it is, converted and found to agree, isolated, or elsewhere
    4  run every sample row; every output must be finite and keep the output contract
    5  from the reference rows, fit what ordinary input looks like and how far stated confidence holds
    6  store it under the digest of its manifest

Every file is read once; what is checked, hashed and stored is that one reading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mainstay.capability.types import FILE_NAME
from mainstay.catalog.conversion import Limits
from mainstay.catalog.fitting import Fitted, fit_reference
from mainstay.catalog.models import Means, Model, get_model
from mainstay.catalog.reference import ReferenceRows, read_reference
from mainstay.catalog.samples import check_outputs, read_samples
from mainstay.catalog.sources import Sources, reading
from mainstay.catalog.types import VERSION_FORMAT, Digest, Manifest, Profile, StoredFile, TrainedOn
from mainstay.catalog.versions import (
    StoredVersion,
    load_manifest,
    open_version,
    store_version,
    stored_digests,
    stored_file,
)
from mainstay.errors import Damaged, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mainstay.capability.load import Declared
    from mainstay.runtime.types import Row

CONVERTED: Final = "artifact.onnx"
PROFILE: Final = "profile.bin"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version, and whether this call made it. `notes` are what its owner should know; only a new version has any."""

    version: Digest
    manifest: Manifest
    path: Path
    created: bool
    notes: tuple[str, ...] = ()


def register(  # noqa: PLR0913 - keywords only, each with its default
    folder: Path,
    versions: Path,
    *,
    trust_pickle: str | None = None,
    signed_by: Sequence[Path] = (),
    check: Callable[[Declared], object] | None = None,
    leaving: Callable[[Declared], Callable[[Row], Row]] | None = None,
    training: Callable[[str], TrainedOn] | None = None,
    trained_on: TrainedOn | None = None,
    progress: Callable[[str], None] | None = None,
    limits: Limits | None = None,
) -> Registered:
    """Register the capability folder in the directory `versions`; the same content always makes the same version.

    `trust_pickle` is why a model that is a pickle may be opened; `signed_by` names public keys in PEM, one of which
    must have signed the model's file. `check` is asked of the folder before anything of it is run, and raises
    InvalidDocument where the folder is not sound. `leaving` makes what of a row may leave for a remote model; without
    it, one that takes a classified field is refused. `training` finds the snapshot that `model.trained_on` names, and
    raises Misuse where there is none; `trained_on` says it in place of the declaration. `progress` is told each step as
    it begins. `limits` hold the conversion, and its wall time the isolated process.

    Raises InvalidDocument when the folder or a row breaks its rules, with every problem; Misuse when the model cannot
    be taken as it is; Failed when it does not run, or a signature does not hold. Nothing is stored then.
    """
    tell = progress or (lambda _: None)
    tell("reading the folder")
    with reading(folder, trust_pickle=trust_pickle, signed_by=signed_by) as sources:
        existing = _find_existing(versions, sources)
        if existing is not None:
            tell("nothing to do: this content is registered")
            return Registered(existing.digest, existing.manifest, existing.path, created=False)
        declared = sources.declared
        if check is not None:
            check(replace(declared, folder=folder))
        trained_on = trained_on or _find_training(declared, training)
        tell("checking the samples")
        samples = declared.capability.samples
        rows = read_samples(sources.content(samples), str(folder / samples), declared.input)
        reference = _read_reference(sources, folder, tell)
        model = get_model(sources, rows, Means(limits=limits or Limits(), leaving=leaving, tell=tell))
        tell("checking the outputs")
        check_outputs(declared, model.samples)
        fitted = None if reference is None else fit_reference(declared, model, reference, tell)
        tell("storing the version")
        stored, created = _store(versions, sources, model, fitted, trained_on)
    notes = model.notes if fitted is None else (*model.notes, *fitted.notes)
    return Registered(stored.digest, stored.manifest, stored.path, created, notes if created else ())


def _read_reference(sources: Sources, folder: Path, tell: Callable[[str], None]) -> ReferenceRows | None:
    reference = sources.declared.capability.reference
    if reference is None:
        return None
    tell("checking the reference rows")
    return read_reference(sources.content(reference.file), str(folder / reference.file), sources.declared)


def _find_existing(versions: Path, sources: Sources) -> StoredVersion | None:
    """The version that these very sources made in this environment. Raises Damaged when it is not whole."""
    wanted = _named(sources)
    for digest in reversed(stored_digests(versions)):
        try:
            manifest = load_manifest(versions, digest)
        except Damaged:
            continue  # another version's damage is for whoever opens that version
        if all(getattr(manifest, name) == value for name, value in wanted.items()):
            return open_version(versions, digest)
    return None


def _named(sources: Sources) -> dict[str, Any]:
    """The fields of the manifest that say what was brought; all others follow from it."""
    capability = sources.declared.capability
    return {
        "format": VERSION_FORMAT,
        "capability": capability.name,
        "declaration": sources.stored(FILE_NAME),
        "contract": sources.stored(capability.contract),
        "authority": sources.stored(capability.authority),
        "samples": sources.stored(capability.samples),
        "reference": None if capability.reference is None else sources.stored(capability.reference.file),
        "source": None if capability.model.file is None else sources.stored(capability.model.file),
        "code": sources.code,
        "environment": sources.environment,
        "trust": sources.trust,
    }


def _find_training(declared: Declared, training: Callable[[str], TrainedOn] | None) -> TrainedOn | None:
    name = declared.capability.model.trained_on
    if name is None:
        return None
    if training is None:
        raise Misuse(f"model.trained_on is {name}: expected a lake to find that snapshot in, found none")
    return training(name)


def _store(
    versions: Path, sources: Sources, model: Model, fitted: Fitted | None, trained_on: TrainedOn | None
) -> tuple[StoredVersion, bool]:
    contents = dict(sources.contents)
    named = _named(sources)
    artifact: StoredFile | None = named["source"]
    if model.converted is not None:
        artifact = stored_file(CONVERTED, model.converted)
        contents[CONVERTED] = model.converted
    profile = None
    if fitted is not None:
        contents[PROFILE] = fitted.profile
        stored = stored_file(PROFILE, fitted.profile)
        profile = Profile(file=stored, rows=fitted.rows, false_alarms=fitted.false_alarms)
    manifest = Manifest(
        **named,
        runtime=model.runtime,
        artifact=artifact,
        inputs=model.inputs,
        outputs=model.outputs,
        classes=model.classes,
        conversion=model.conversion,
        isolated_because=model.isolated_because,
        calibration=None if fitted is None else fitted.calibration,
        profile=profile,
        trained_on=trained_on,
    )
    return store_version(versions, manifest, contents)
