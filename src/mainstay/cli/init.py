from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mainstay.authority.keys import ALL_CAPABILITIES, VERBS, create_key
from mainstay.cli.common import API_KEY_VARIABLE, out, passphrase, print_json, record_change
from mainstay.cli.settings_record import remember_settings, settings_of
from mainstay.errors import Misuse
from mainstay.files import write_atomic
from mainstay.privacy.pseudonym import create_pseudonym_key
from mainstay.signing import create_signing_key
from mainstay.workspace import SETTINGS_FILE, Workspace, open_workspace

FIRST_KEY = "first key"

_SETTINGS = """\
# Settings of this workspace. Each can also be given as MAINSTAY_<NAME> in the environment.

# The name of the ledger. Checkpoints are signed for it: it must never change.
log = "{log}"

# Where decisions are served.
host = "127.0.0.1"
port = 8321
workers = 2
"""


def init(
    directory: Path = Path(),
    /,
    *,
    log: Annotated[str, Parameter(help="The ledger's name, for ever; like a URL without a scheme.")] = "",
    json: Annotated[bool, Parameter(negative="", help="Print facts as JSON.")] = False,
) -> None:
    """Make a workspace: its settings, its signing key and the first API key.

    Example: mainstay init pilots --log ledger.example.com/pilots

    Parameters
    ----------
    directory
        Where; made when it is absent.
    """
    workspace, key_name, token = create_workspace(directory, log)
    if json:
        print_json({"workspace": str(workspace.root), "log": workspace.settings.log, "key": key_name, "token": token})
        return
    out.print(f"workspace   {workspace.root}")
    out.print(f"ledger      {workspace.settings.log}")
    out.print(f"public key  {workspace.keys / 'signing.vkey'}")
    out.print(f"API key     {token}")
    out.print("            shown once; it may decide, report, push and read for every capability")
    out.print(
        f"\nNext: export {API_KEY_VARIABLE}={token}\n      mainstay register DIR, mainstay promote NAME, mainstay up"
    )


def create_workspace(directory: Path, log: str = "") -> tuple[Workspace, str, str]:
    """Make a workspace in `directory`; also the id and the token of its first key.

    Raises Misuse when one is there already, or the name of the log is not one.
    """
    root = directory.resolve()
    if (root / SETTINGS_FILE).exists():
        raise Misuse(f"{root} is a workspace already")
    name = log or f"{root.name or 'workspace'}.mainstay.local/{secrets.token_hex(4)}"
    if not name.isascii() or not name.isprintable() or any(mark in name for mark in ' +"\\') or len(name) > 200:
        raise Misuse(f"log {name[:80]!r}: expected up to 200 printable ASCII characters without space, plus or quotes")
    workspace_keys = root / ".mainstay" / "keys"
    key = create_signing_key(workspace_keys, name, passphrase())
    create_pseudonym_key(workspace_keys)
    (root / "capabilities").mkdir(exist_ok=True)
    write_atomic(root / SETTINGS_FILE, _SETTINGS.format(log=name).encode())
    workspace = open_workspace(root, {})
    made, token = create_key(workspace.access, key, name=FIRST_KEY, capabilities=[ALL_CAPABILITIES], verbs=list(VERBS))
    details = {"public_key": key.verifier.vkey, "settings": settings_of(workspace)}
    record_change(workspace, "workspace.created", name, "mainstay init", details)
    remember_settings(workspace)
    record_change(workspace, "key.created", made.id, "mainstay init", {"name": made.name, "verbs": made.verbs})
    return workspace, made.id, token
