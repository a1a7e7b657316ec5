from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter

from mainstay.authority.keys import VERBS, Verb, list_keys
from mainstay.authority.keys import create_key as make_key
from mainstay.authority.keys import revoke_key as withdraw_key
from mainstay.cli.common import DEFAULT, Common, columns, out, print_json, record_change, signing_key
from mainstay.signing import load_verifier


def create_key(
    name: str,
    /,
    *,
    capability: Annotated[list[str], Parameter(help="A capability it may call; repeat for several, * for all.")],
    verb: Annotated[list[Verb] | None, Parameter(help="It may decide, report, push, read; by default all.")] = None,
    expires_in_days: Annotated[float | None, Parameter(help="When it stops being valid; by default never.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Make an API key. Its token is shown once and stored nowhere.

    Example: mainstay key create check-in-desk --capability late-arrival --verb decide --expires-in-days 90

    Parameters
    ----------
    name
        Whose key it is.
    """
    workspace = common.open()
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    made, token = make_key(
        workspace.access,
        signing_key(workspace),
        name=name,
        capabilities=capability,
        verbs=verb or list(VERBS),
        expires_at=expires_at,
    )
    details = {"name": name, "capabilities": made.capabilities, "verbs": made.verbs, "expires_at": made.expires_at}
    record_change(workspace, "key.created", made.id, "mainstay key create", details)
    if common.json:
        print_json({"id": made.id, "token": token, **details})
    else:
        out.print(f"key    {made.id}\ntoken  {token}\n       shown once")


def list_key(*, common: Common = DEFAULT) -> None:
    """List every key: whose it is, what it may do, and until when. Tokens are not known.

    Example: mainstay key list
    """
    workspace = common.open()
    found = list_keys(workspace.access, load_verifier(workspace.keys))
    if common.json:
        print_json([{name: getattr(key, name) for name in key.__struct_fields__ if name != "sha256"} for key in found])
        return
    rows = [("id", "name", "capabilities", "verbs", "created", "expires", "state")]
    now = datetime.now(UTC)
    for key in found:
        expired = key.expires_at is not None and key.expires_at <= now
        state = "revoked" if key.revoked_at is not None else "expired" if expired else "live"
        expires = "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}"
        capabilities, verbs = ", ".join(key.capabilities), ", ".join(key.verbs)
        rows.append((key.id, key.name, capabilities, verbs, f"{key.created_at:%Y-%m-%d %H:%M}", expires, state))
    for line in columns(rows):
        out.print(line, markup=False)


def revoke_key(
    key_id: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; recorded.")],
    common: Common = DEFAULT,
) -> None:
    """Refuse a key from now on; every worker follows within two seconds.

    Example: mainstay key revoke 1f0c9a2b --reason "left the team"

    Parameters
    ----------
    key_id
        The id as `mainstay key list` shows it.
    """
    workspace = common.open()
    revoked = withdraw_key(workspace.access, signing_key(workspace), key_id)
    record_change(workspace, "key.revoked", revoked.id, reason, {"name": revoked.name})
    if common.json:
        print_json({"id": revoked.id, "revoked_at": revoked.revoked_at})
    else:
        out.print(f"{revoked.id} ({revoked.name}) is revoked")
