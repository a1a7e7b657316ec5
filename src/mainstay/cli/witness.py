from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from mainstay.cli.common import err, out, passphrase, print_json, read_bounded
from mainstay.errors import Damaged, Misuse
from mainstay.ledger.witness import (
    KEYS_FILE,
    LOGS_FOLDER,
    PUBLIC_FILE,
    Algorithm,
    Witness,
    add_log,
    create_witness,
    load_witness_key,
    origin_hash,
)
from mainstay.processes import set_up_logging
from mainstay.server.witness import serve_witness

MAX_VKEY_BYTES = 64 << 10

Json = Annotated[bool, Parameter(negative="", help="Print facts as JSON.")]


def init_witness(
    directory: Path,
    /,
    *,
    name: Annotated[str, Parameter(help="Its name, for ever; like a URL without a scheme.")],
    algorithm: Annotated[Algorithm, Parameter(help="What it signs with.")] = "ml-dsa-44",
    json: Json = False,
) -> None:
    """Make a witness: its key, and a directory for what it must remember. It knows no log yet.

    Example: mainstay witness init north --name witness.example.com/north

    Parameters
    ----------
    directory
        Where; made when it is absent.
    """
    key = create_witness(directory, name, algorithm, passphrase())
    if json:
        print_json({"directory": str(directory), "name": name, "algorithm": algorithm, "vkey": key.verifier.vkey})
        return
    out.print(f"witness     {name}, {algorithm}", markup=False)
    out.print(f"public key  {directory / PUBLIC_FILE}", markup=False)
    out.print(key.verifier.vkey, markup=False)
    place = shlex.quote(str(directory))
    out.print(f"\nNext: mainstay witness add-log {place} VKEY\n      mainstay witness serve {place}", markup=False)


def add_witness_log(
    directory: Path,
    vkey: str,
    /,
    *,
    origin: Annotated[
        str | None, Parameter(help="The first line of its checkpoints, where it is not the key's name.")
    ] = None,
    json: Json = False,
) -> None:
    """Let a witness cosign a log; without this it cosigns nothing. A second key of a log is trusted beside its first.

    Example: mainstay witness add-log north signing.vkey

    Parameters
    ----------
    directory
        Of the witness.
    vkey
        The log's verifier key, or a file that holds it, such as a workspace's signing.vkey.
    """
    text = vkey if "+" in vkey else read_bounded(Path(vkey), MAX_VKEY_BYTES).decode("utf-8", "replace").strip()
    try:
        log, added = add_log(directory, text, origin)
    except Damaged as error:
        raise Misuse(error.message, hint="Give the log's verifier key, or the file that holds it.") from None
    if json:
        print_json({"log": log, "added": added, "origin_hash": origin_hash(log)})
    else:
        out.print(f"{log} is {'cosigned from now on' if added else 'known with this key already'}", markup=False)


def serve(
    directory: Path,
    /,
    *,
    host: Annotated[str, Parameter(help="The address it listens on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port.", validator=Number(gte=1, lte=65_535))] = 8322,
) -> None:
    """Cosign checkpoints over HTTP, for logs that were added. Ctrl-C ends it.

    Example: mainstay witness serve north --host 0.0.0.0

    Parameters
    ----------
    directory
        Of the witness.
    """
    set_up_logging("witness")
    key = load_witness_key(directory, passphrase())
    witness = Witness(directory, key)
    known = sum(1 for _ in (directory / LOGS_FOLDER).glob(f"*/{KEYS_FILE}"))

    def say() -> None:
        shown = f"[{host}]" if ":" in host else host
        logs = "1 log" if known == 1 else f"{known} logs"
        out.print(f"{key.verifier.name} cosigns at http://{shown}:{port}, {logs}", markup=False)
        if not known:
            err.print("no log is known yet: mainstay witness add-log DIR VKEY", markup=False)

    try:
        asyncio.run(serve_witness(witness, host, port, say))
    finally:
        witness.close()
    # Threads of granian may outlive its server by a moment, and abort the process when Python ends before them. All
    # that was answered is on the disk: end without waiting for them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
