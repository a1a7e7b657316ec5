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
from mainstay.catalog.releases import history as past_releases
from mainstay.catalog.releases import publish, publish_canary, roll_back
from mainstay.catalog.types import Release
from mainstay.catalog.versions import FOLDER, load_manifest, stored_digests, version_path
from mainstay.cli.common import (
    DEFAULT,
    Common,
    columns,
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
from mainstay.errors import InvalidDocument, MainstayError, Misuse
from mainstay.signing import load_verifier
from mainstay.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.capability.load import Declared

SHORT_DIGEST = 19  # "sha256:" and 12 digits


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


def promote(
    name: str,
    /,
    version: Annotated[
        str, Parameter(help="A version's id or its beginning; by default the one registered last.")
    ] = "",
    *,
    reason: Annotated[str, Parameter(help="Why; recorded.")],
    canary: Annotated[
        float | None,
        Parameter(help="Let it decide for this percentage of the keys only, beside the version in force."),
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Put a version into production: every worker serves it within two seconds.

    Example: mainstay promote late-arrival --reason "first release"

    Example: mainstay promote late-arrival ab12 --canary 5 --reason "trained on March"

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    found = find_version(workspace, name, version)
    _tell(record_promotion(workspace, name, found, reason, canary_percent=canary), json=common.json)


def rollback(
    name: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; recorded.")],
    to: Annotated[
        int | None, Parameter(help="The number of the release to go back to; by default the one before.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Go back: publish again what an earlier release put into force. Nothing is rebuilt; workers follow within 2 s.

    Example: mainstay rollback late-arrival --reason "refuses night flights"

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    require(workspace, name, "change")
    release = roll_back(workspace, name, key=signing_key(workspace), reason=reason, principal=operator(), to=to)
    _record_release(workspace, release)
    _tell(release, json=common.json)


def history(name: str, /, *, common: Common = DEFAULT) -> None:
    """List the releases of a capability, oldest first; the last is in force.

    Example: mainstay history late-arrival

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    releases = past_releases(workspace.releases, name, load_verifier(workspace.keys))
    if common.json:
        print_json(releases)
        return
    if not releases:
        out.print(f"{name} has no release")
        return
    trained_on = [_trained_on(workspace, each.version) for each in releases]
    shown = any(trained_on)
    rows = [["RELEASE", "PUBLISHED", "BY", "VERSION", "CANARY", *(["TRAINED ON"] if shown else []), "REASON"]]
    for each, snapshot in zip(releases, trained_on, strict=True):
        *facts, reason = _history_row(each)
        rows.append([*facts, *([snapshot] if shown else []), reason])
    for line in columns(rows):
        out.print(line, markup=False)


def _trained_on(workspace: Workspace, version: str) -> str:
    """The snapshot that a version was trained on; nothing where it names none, or cannot be read any more."""
    try:
        trained_on = load_manifest(workspace.versions, version).trained_on
    except (MainstayError, OSError):
        return ""
    return "" if trained_on is None else trained_on.snapshot


def _history_row(release: Release) -> list[str]:
    canary = release.canary
    again = "" if release.content_of is None else f"back to {release.content_of}: "
    return [
        str(release.number),
        f"{release.published_at[:19]}Z",
        release.published_by,
        release.version[:SHORT_DIGEST],
        "" if canary is None else f"{canary.percent:g} % {canary.version[:SHORT_DIGEST]}",
        again + " ".join(release.reason.split()),
    ]


def record_promotion(
    workspace: Workspace, name: str, version: str, reason: str, *, canary_percent: float | None = None
) -> Release:
    """Publish a release and put it into the ledger.

    With `canary_percent`, `version` decides for that share of the keys, beside what is in force. Raises Misuse when
    the policies in force do not let whoever runs this change the capability.
    """
    require(workspace, name, "change", candidate=load_capability(version_path(workspace.versions, version) / FOLDER))
    key, principal = signing_key(workspace), operator()
    if canary_percent is None:
        release = publish(workspace, name, version, key=key, reason=reason, principal=principal)
    else:
        release = publish_canary(workspace, name, version, canary_percent, key=key, reason=reason, principal=principal)
    _record_release(workspace, release)
    return release


def _record_release(workspace: Workspace, release: Release) -> None:
    record_change(workspace, "release.published", f"{release.capability}/{release.number}", release.reason, release)


def _tell(release: Release, *, json: bool) -> None:
    if json:
        print_json(release)
        return
    out.print(f"{release.capability} release {release.number} is in force: version {release.version}")
    if release.content_of is not None:
        out.print(f"this is the content of release {release.content_of}")
    if release.canary is not None:
        out.print(f"canary, for {release.canary.percent:g} % of the keys: version {release.canary.version}")
    for version in release.fallback_versions:
        out.print(f"fallback: version {version}")


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
