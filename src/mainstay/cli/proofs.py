from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mainstay.cli.common import DEFAULT, Common, err, out, print_json, read_bounded, require_sight
from mainstay.cli.explained import capability_seen
from mainstay.cli.proven import log_facts, not_shown, other_signers, place_of, proven_facts, proven_rows, read_object
from mainstay.errors import Failed, InvalidDocument, Misuse
from mainstay.files import write_atomic
from mainstay.ledger.cosignature import parse_log_key
from mainstay.ledger.entry import MAX_LEAF_BYTES
from mainstay.ledger.find import find_entry
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import tree_root
from mainstay.ledger.note import MAX_NOTE_BYTES, verify_checkpoint
from mainstay.ledger.proof import (
    HEADER,
    MAX_PROOF_BYTES,
    SUFFIX,
    prove_entry,
    verify_proof,
)
from mainstay.ledger.receipt import MAX_ANSWER_BYTES, hold_receipt
from mainstay.ledger.sealer import is_sealing
from mainstay.ledger.trust_policy import MAX_POLICY_BYTES, parse_policy
from mainstay.signing import PUBLIC_FILE, load_verifier

if TYPE_CHECKING:
    from mainstay.errors import MainstayError
    from mainstay.ledger.find import Found
    from mainstay.ledger.note import Checkpoint, NoteVerifier
    from mainstay.ledger.proof import Proven
    from mainstay.ledger.trust_policy import TrustPolicy
    from mainstay.workspace import Workspace

MAX_VKEY_BYTES = 64 << 10
LONG_LINE_BYTES = 64 << 10  # more than this in a line of a file is more than some readers take
MAX_WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05


def prove(
    entry_id: str,
    /,
    *,
    with_body: Annotated[
        bool, Parameter(negative="", help="Put in what was asked and answered, as it was recorded.")
    ] = False,
    output: Annotated[
        Path | None, Parameter(help=f"Where to write it; by convention *{SUFFIX}. By default to the terminal.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Write a proof that an entry is in the log, which anyone can check with `mainstay ledger check-proof`.

    Example: mainstay ledger prove 01990c2a-5b1e-7a3f-8c21-55e000000007 --output late.tlog-proof

    Parameters
    ----------
    entry_id
        The decision_id of an answer, or the id of any other entry.
    """
    workspace = common.open()
    if output is not None:
        _require_room(output)
    found, sequence = _find_sealed(workspace, entry_id)
    if with_body:
        body = read_object(found.entry.body) if found.entry.body else None
        capability = capability_seen(workspace, read_object(found.entry.leaf) or {}, body)
        if capability is not None:
            require_sight(workspace, capability)
    made = prove_entry(workspace.ledger, sequence, found.entry, load_verifier(workspace.keys), with_body=with_body)
    if output is not None:
        _write(output, made.content, mode=0o600 if with_body else 0o644)
    if common.json:
        facts = {"with_body": with_body, "cosigned_by": other_signers(made.proven)}
        text = made.content.decode() if output is None else None
        place = {"entry": entry_id, "sequence": sequence, **log_facts(made.proven.checkpoint)}
        print_json({**place, **facts, "file": None if output is None else str(output), "proof": text})
    elif output is None:
        sys.stdout.write(made.content.decode())
    else:
        _print(_made_rows(made.proven, output, workspace.keys / PUBLIC_FILE))
    if max(map(len, made.content.split(b"\n"))) > LONG_LINE_BYTES:
        err.print("its line of extra data is longer than 64 KiB, which some other programs do not read", markup=False)


def check_proof(
    file: Annotated[Path, Parameter(help="The proof; - for stdin.", allow_leading_hyphen=True)],
    /,
    *,
    public_key: Annotated[
        Path | None, Parameter(help="The log's signing.vkey; by default this workspace's, or the policy's.")
    ] = None,
    policy: Annotated[
        Path | None, Parameter(help="A trust policy: which witnesses must have cosigned (c2sp.org/tlog-policy).")
    ] = None,
    leaf: Annotated[Path | None, Parameter(help="The leaf's exact bytes, for a proof that carries none.")] = None,
    receipt: Annotated[
        Path | None, Parameter(help="An answer that was kept, as JSON, to be held against the proof.")
    ] = None,
    common: Common = DEFAULT,
) -> int:
    """Check a proof with nothing but a public key: no workspace, no network. Says what it shows and what it does not.

    Example: mainstay ledger check-proof late.tlog-proof --public-key signing.vkey
    """
    content = read_bounded(file, MAX_PROOF_BYTES)
    trusted = None if policy is None else _read_policy(policy)
    verifier = _log_key(public_key, trusted, common)
    given = None if leaf is None else read_bounded(leaf, MAX_LEAF_BYTES)
    answer = None if receipt is None else read_bounded(receipt, MAX_ANSWER_BYTES)
    try:
        proven = verify_proof(content, verifier, policy=trusted, leaf=given)
        held = None if answer is None else hold_receipt(answer, proven)
    except Failed as error:
        _show_failure(error, common)
        return 1
    lacking = not_shown(proven, held)
    if common.json:
        print_json(proven_facts(proven, held, lacking))
        return 0
    rows = proven_rows(proven, verifier)
    if held is not None:
        rows.append(
            ("receipt", "the answer is of this entry" + (", its output is the recorded one" * (held == "same")))
        )
    _print([*rows, *(("not shown", each) for each in lacking)])
    return 0


def checkpoint(
    *,
    output: Annotated[
        Path | None,
        Parameter(help="Keep it in this file. One kept there before is replaced only if the log extends it."),
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Print or keep the log's signed checkpoint: kept elsewhere, it shows whether the log was ever rewritten.

    Example: mainstay ledger checkpoint --output kept/checkpoint
    """
    workspace = common.open()
    log, verifier = Log(workspace.ledger), load_verifier(workspace.keys)
    note = log.note()
    if note is None:
        raise Failed("nothing was ever sealed: there is no checkpoint", hint="`mainstay control` seals the ledger.")
    found = verify_checkpoint(note, verifier, verifier.name)
    if output is not None:
        _hold_kept(output, log, found, verifier)
        _write(output, note, mode=0o644)
    if common.json:
        file = None if output is None else str(output)
        print_json({**log_facts(found), "file": file, "checkpoint": note.decode()})
    elif output is None:
        sys.stdout.write(note.decode())
    else:
        out.print(f"{output}: {found.size:,} entries of {found.origin}", markup=False)


def _hold_kept(path: Path, log: Log, found: Checkpoint, verifier: NoteVerifier) -> None:
    """A checkpoint kept before is evidence against a rewritten log: it must not be lost to that log's own."""
    if not path.exists():
        return
    try:
        kept = verify_checkpoint(read_bounded(path, MAX_NOTE_BYTES), verifier, verifier.name)
    except Failed as error:
        raise Misuse(f"{path} is no checkpoint of this log and was left as it is: {error.message}") from None
    if kept.size > found.size:
        raise Failed(f"{path} has {kept.size:,} entries and was left as it is: the log has only {found.size:,} now")
    if tree_root(kept.size, log.node(found.size)) != kept.root:
        raise Failed(
            f"{path} was left as it is: the log does not extend the {kept.size:,} entries it had then",
            hint=f"`mainstay ledger verify --against {path}` says more.",
        )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    try:
        write_atomic(path, content, mode=mode)
    except OSError as error:
        raise Misuse(f"{path}: expected a file that can be written, found: {error.strerror}") from None


# Making a proof.


def _made_rows(proven: Proven, output: Path, public_key: Path) -> list[tuple[str, str]]:
    body = "the leaf alone, nothing of the body" if proven.body is None else "the leaf and the body"
    cosigners = other_signers(proven)
    return [
        ("proof", str(output)),
        ("shows", place_of(proven)),
        ("holds", body),
        ("cosigned", "by " + ", ".join(cosigners) if cosigners else "by nobody yet"),
        ("check", shlex.join(["mainstay", "ledger", "check-proof", str(output), "--public-key", str(public_key)])),
    ]


def _find_sealed(workspace: Workspace, entry_id: str) -> tuple[Found, int]:
    """The entry and its number, after waiting for the sealer where there is one at work."""
    deadline = None
    while True:
        size = Log(workspace.ledger).size
        found = find_entry(workspace.ledger, entry_id)
        if found is None:
            raise Misuse(f"no entry {entry_id[:80]!r} in this ledger", hint="Expected the decision_id of an answer.")
        if found.sequence is not None:
            return found, found.sequence
        if deadline is None:
            interval = workspace.settings.seal_interval_seconds
            deadline = time.monotonic() + min(MAX_WAIT_SECONDS, 5 + 2 * interval)
            _require_sealer(workspace, entry_id)
            err.print("not sealed yet, waiting for the sealer", markup=False)
        while Log(workspace.ledger).size == size:
            if time.monotonic() > deadline:
                raise Failed(f"{entry_id} is recorded and was not sealed in time", hint="Its sealer's log says why.")
            time.sleep(POLL_SECONDS)


def _require_sealer(workspace: Workspace, entry_id: str) -> None:
    if not is_sealing(workspace.ledger):
        raise Failed(
            f"{entry_id} is recorded and not sealed yet, and nothing seals this ledger now",
            hint="Start `mainstay control` (or `mainstay up`), and ask again.",
        )


def _require_room(output: Path) -> None:
    """A proof replaces a proof and nothing else."""
    if output.exists():
        try:
            with output.open("rb") as file:
                is_proof = file.read(len(HEADER)) == HEADER
        except OSError as error:
            raise Misuse(f"{output}: expected a file that can be written, found: {error.strerror}") from None
        if not is_proof:
            raise Misuse(f"{output} exists and is no proof: it was left as it is")


# Checking one.


def _read_policy(path: Path) -> TrustPolicy:
    try:
        return parse_policy(read_bounded(path, MAX_POLICY_BYTES), path.name)
    except InvalidDocument as error:
        raise Misuse(f"{path}: expected a trust policy, found {error}") from None


def _log_key(path: Path | None, policy: TrustPolicy | None, common: Common) -> NoteVerifier | None:
    """The key that the checkpoint must be signed with; None when it is the policy that knows."""
    if path is not None:
        try:
            return parse_log_key(read_bounded(path, MAX_VKEY_BYTES).decode("utf-8", "replace").strip())
        except Failed as error:
            raise Misuse(f"{path}: expected the public key of a log, found: {error.message}") from None
    if policy is not None and policy.logs:
        return None
    try:
        return load_verifier(common.open().keys)
    except Misuse as error:
        raise Misuse(
            f"expected the public key of the log, found {error.message}",
            hint="Name its signing.vkey with --public-key.",
        ) from None


def _show_failure(error: MainstayError, common: Common) -> None:
    if common.json:
        print_json({"proven": False, "reason": error.message})
    else:
        out.print(f"NOT PROVEN    {error.message}", markup=False)


def _print(rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        out.print(f"{name:<13} {value}", markup=False)
