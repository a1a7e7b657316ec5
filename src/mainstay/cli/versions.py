from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.authority.policy import compile_authority
from mainstay.capability.load import load_capability
from mainstay.catalog.register import Registered
from mainstay.catalog.register import register as register_version
from mainstay.catalog.releases import publish, publish_canary
from mainstay.catalog.versions import FOLDER, load_manifest, stored_digests, version_path
from mainstay.cli.common import (
    DEFAULT,
    Common,
    err,
    operator,
    out,
    print_json,
    record_change,
    require,
    signing_key,
)
from mainstay.cli.registered import (
    find_training,
    make_leaving,
    registered_facts,
    registered_lines,
    version_facts,
)
from mainstay.errors import InvalidDocument, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Release
    from mainstay.workspace import Workspace


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
        compile_authority(declared)
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
    signed_by: Annotated[
        tuple[Path, ...],
        Parameter(help="A public key in PEM, one of which must have signed the model's file (FILE.sig).", negative=""),
    ] = (),
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
            workspace, directory, trust_pickle, lambda step: bar.update(task, description=step), signed_by=signed_by
        )
    if common.json:
        print_json(registered_facts(registered))
        return
    for line in registered_lines(registered):
        out.print(line, markup=False)
    out.print(f"Next: mainstay promote {registered.manifest.capability} --reason '...'")


def record_registration(
    workspace: Workspace,
    directory: Path,
    trust_pickle: str | None,
    progress: Callable[[str], None] | None = None,
    *,
    signed_by: Sequence[Path] = (),
) -> Registered:
    """Register a folder and put a new version into the ledger."""
    registered = register_version(
        directory,
        workspace.versions,
        trust_pickle=trust_pickle,
        signed_by=signed_by,
        check=partial(_check_authority, workspace),
        leaving=partial(make_leaving, workspace),
        training=partial(find_training, workspace),
        progress=progress,
    )
    if registered.created:
        details = version_facts(registered.manifest) | {"notes": registered.notes}
        record_change(workspace, "version.registered", registered.version, registered.manifest.capability, details)
    return registered


def _check_authority(workspace: Workspace, declared: Declared) -> None:
    """Raises InvalidDocument when the folder's policies are broken, Misuse when those in force forbid a change."""
    compile_authority(declared)
    require(workspace, declared.capability.name, "change", candidate=declared)


def record_promotion(
    workspace: Workspace, name: str, version: str, reason: str, *, canary_percent: float | None = None
) -> Release:
    """Publish a release and put it into the ledger, outside of any rollout: no check is made, and nothing is watched.

    With `canary_percent`, `version` decides for that share of the keys, beside what is in force. Raises Misuse when
    the policies in force do not let whoever runs this change the capability.
    """
    require(workspace, name, "change", candidate=load_capability(version_path(workspace.versions, version) / FOLDER))
    key, principal = signing_key(workspace), operator()
    if canary_percent is None:
        release = publish(workspace, name, version, key=key, reason=reason, principal=principal)
    else:
        release = publish_canary(workspace, name, version, canary_percent, key=key, reason=reason, principal=principal)
    record_change(workspace, "release.published", f"{release.capability}/{release.number}", release.reason, release)
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
