"""What people at the command line may do with a capability, by the policies in force.

The policies of the version in production decide about its successor, so that no version can let itself in. Before the
first release the folder's own decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.authority.policy import Person, compile_authority
from mainstay.capability.load import load_capability
from mainstay.catalog.releases import capabilities_with_releases, read_current
from mainstay.catalog.versions import open_version
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from mainstay.authority.policy import Moved
    from mainstay.authority.schema import Action
    from mainstay.capability.load import Declared
    from mainstay.signing import Verifier
    from mainstay.workspace import Workspace


def require_permit(
    workspace: Workspace,
    capability: str,
    action: Action,
    account: str,
    verifier: Verifier,
    *,
    candidate: Declared | None = None,
    moved: Moved | None = None,
) -> None:
    """Raises Misuse when the person `account` may not do `action` with the capability.

    `moved` says of an action on a version where that is brought.
    `candidate` is the folder whose policies decide while nothing of that name has been released.
    """
    declared = candidate
    if capability in capabilities_with_releases(workspace.releases):
        version = read_current(workspace.releases, capability, verifier).version
        declared = load_capability(open_version(workspace.versions, version).folder)
    if declared is None:
        raise Misuse(f"{capability} has no release", hint=f"Publish one: mainstay promote {capability}")
    denial = compile_authority(declared).may(Person(account), action, moved)
    if denial is not None:
        why = f"{denial.policy}: {denial.detail}" if denial.detail else denial.policy
        raise Misuse(
            f"{account} may not {action.replace('_', ' ')} {capability}: {why}",
            hint=f"The {declared.capability.authority} of the version in force says who may.",
        )
