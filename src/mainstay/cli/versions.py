from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.capability.load import load_capability
from mainstay.catalog.register import Registered
from mainstay.catalog.register import register as register_version
from mainstay.catalog.releases import publish
from mainstay.catalog.types import Release
from mainstay.catalog.versions import load_manifest, stored_digests, version_path
from mainstay.cli.common import DEFAULT, Common, err, operator, out, print_json, record_change, signing_key
from mainstay.errors import InvalidDocument, Misuse
from mainstay.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable


def validate(
    directory: Path, /, *, json: Annotated[bool, Parameter(negative="", help="Print facts as JSON.")] = False
) -> int:
    """List every problem of a capability folder, with file and line.

    Example: mainstay validate capabilities/late-arrival

    Parameters
    ----------
    directory
        The folder that holds capability.yaml.
    """
    try:
        declared = load_capability(directory)
    except InvalidDocument as invalid:
        if json:
            print_json({"valid": False, "problems": invalid.problems})
            return 1
        for problem in invalid.problems:
            out.print(str(problem), markup=False)
        out.print(f"{len(invalid.problems)} problem{'' if len(invalid.problems) == 1 else 's'}")
        return 1
    if json:
        print_json({"valid": True, "capability": declared.capability.name, "problems": []})
    else:
        out.print(f"{declared.capability.name}: no problems")
    return 0


def register(
    directory: Path,
    /,
    *,
    trust_pickle: Annotated[str | None, Parameter(help="Why this pickle may be opened; recorded.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Make an immutable version of a capability folder; its sample inputs must run through it.

    Example: mainstay register capabilities/late-arrival

    Parameters
    ----------
    directory
        The folder that holds capability.yaml.
    """
    workspace = common.open()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("reading", total=None)
        registered = record_registration(
            workspace, directory, trust_pickle, lambda step: bar.update(task, description=step)
        )
    manifest = registered.manifest
    if common.json:
        print_json(
            {
                "capability": manifest.capability,
                "version": registered.version,
                "created": registered.created,
                "conversion": manifest.conversion,
                "notes": registered.notes,
                "path": str(registered.path),
            }
        )
        return
    out.print(f"{manifest.capability}  {registered.version}")
    if manifest.conversion is not None:
        done = manifest.conversion
        out.print(
            f"converted to ONNX: largest difference {done.max_difference:.2g} over {done.rows} sample rows, "
            f"{done.tolerance:.2g} allowed"
        )
    for note in registered.notes:
        out.print(f"note: {note}", markup=False)
    if not registered.created:
        out.print("registered before; nothing changed")
    out.print(f"Next: mainstay promote {manifest.capability} --reason '...'")


def record_registration(
    workspace: Workspace, directory: Path, trust_pickle: str | None, progress: Callable[[str], None] | None = None
) -> Registered:
    """Register a folder and put a new version into the ledger."""
    registered = register_version(directory, workspace.versions, trust_pickle=trust_pickle, progress=progress)
    if registered.created:
        manifest = registered.manifest
        details = {
            "conversion": manifest.conversion,
            "notes": registered.notes,
            "pickle_trusted": manifest.pickle_trusted,
        }
        record_change(workspace, "version.registered", registered.version, manifest.capability, details)
    return registered


def promote(
    name: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; recorded.")],
    version: Annotated[
        str, Parameter(help="A version's id or its beginning; by default the one registered last.")
    ] = "",
    common: Common = DEFAULT,
) -> None:
    """Put a version into production: every worker serves it within two seconds. Going back is promoting an earlier one.

    Example: mainstay promote late-arrival --reason "first release"

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    release = record_promotion(workspace, name, find_version(workspace, name, version), reason)
    if common.json:
        print_json(release)
    else:
        out.print(f"{name} release {release.number} is in force: version {release.version}")


def record_promotion(workspace: Workspace, name: str, version: str, reason: str) -> Release:
    """Publish a release and put it into the ledger."""
    release = publish(workspace, name, version, key=signing_key(workspace), reason=reason, principal=operator())
    record_change(workspace, "release.published", f"{name}/{release.number}", reason, release)
    return release


def find_version(workspace: Workspace, name: str, beginning: str) -> str:
    """The one version of `name` whose id begins so; the last registered where nothing is given."""
    known = [
        each
        for each in stored_digests(workspace.versions)
        if load_manifest(workspace.versions, each).capability == name
    ]
    if not known:
        raise Misuse(f"{name} has no version", hint="Register one: mainstay register DIR")
    if not beginning:
        return max(known, key=lambda digest: version_path(workspace.versions, digest).stat().st_mtime_ns)
    wanted = beginning if beginning.startswith("sha256:") else f"sha256:{beginning}"
    found = [each for each in known if each.startswith(wanted)]
    if len(found) != 1:
        listed = "\n".join(known)
        raise Misuse(f"{beginning!r}: expected the beginning of one version of {name}, found {len(found)}", hint=listed)
    return found[0]
