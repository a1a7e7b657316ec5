"""A witness (c2sp.org/tlog-witness): cosigns the checkpoints of logs it was told of, while each extends the last.

    witness.pem, witness.vkey        the key it cosigns with
    logs/<origin hash>/keys          the log's verifier keys, one on a line; default deny: no folder, no cosignature
    logs/<origin hash>/checkpoint    the last checkpoint cosigned, with the log's signature and the witness's own

The origin hash is the SHA-256 of the log's origin in hex. What makes it a witness: a checkpoint is durable before its
cosignature leaves, and the one after it must be shown to extend it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from mainstay.errors import Damaged, Misuse
from mainstay.files import sync_directory, write_atomic
from mainstay.ledger.cosignature import CosigningKey, parse_cosigner, parse_log_key, time_of
from mainstay.ledger.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from mainstay.ledger.note import add_signatures, parse_checkpoint, split_note, verify_note
from mainstay.locks import locked
from mainstay.signing import decode_base64, read_private_key, store_private_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.ledger.note import Checkpoint, NoteSignature, NoteVerifier

logger = logging.getLogger("mainstay.witness")

Algorithm: TypeAlias = Literal["ed25519", "ml-dsa-44"]

PRIVATE_FILE = "witness.pem"
PUBLIC_FILE = "witness.vkey"
LOCK_FILE = "witness.lock"
LOGS_FOLDER = "logs"
KEYS_FILE = "keys"
CHECKPOINT_FILE = "checkpoint"
MAX_PROOF_LINES = 63
MAX_REQUEST_BYTES = 256 << 10  # a proof takes 3 kB; a note may have 64 signatures, each by ML-DSA 3 kB
MAX_LOG_KEYS = 64
MAX_ORIGIN_BYTES = 255  # what an ML-DSA-44 cosignature can hold
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"

_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer over HTTP."""

    status: int
    body: str
    content_type: str = TEXT_TYPE


class Refused(Exception):
    """The request is not fulfilled; `answer` says why."""

    def __init__(self, status: int, reason: str, content_type: str = TEXT_TYPE) -> None:
        super().__init__(reason)
        self.answer = Answer(status, reason + "\n", content_type)


@dataclass(frozen=True, slots=True)
class Request:
    """A request of `add-checkpoint`, read."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes
    text: str  # of the note
    signatures: tuple[NoteSignature, ...]
    checkpoint: Checkpoint


def create_witness(directory: Path, name: str, algorithm: Algorithm, passphrase: bytes | None) -> CosigningKey:
    """Make the key of a witness, which knows no log yet.

    Raises Misuse when one stands there, the name is not allowed, or the cryptography at hand lacks the algorithm.
    """
    try:
        private = Ed25519PrivateKey.generate() if algorithm == "ed25519" else MLDSA44PrivateKey.generate()
    except UnsupportedAlgorithm as error:
        raise Misuse(f"{algorithm}: {error}", hint="Use a newer OpenSSL, or `--algorithm ed25519`.") from None
    key = CosigningKey(name, private)
    if not (directory / PUBLIC_FILE).exists():
        (directory / PRIVATE_FILE).unlink(missing_ok=True)  # nobody was told its other half: a command was killed here
    store_private_key(directory / PRIVATE_FILE, key.pem(passphrase))
    (directory / LOGS_FOLDER).mkdir(exist_ok=True)
    write_atomic(directory / PUBLIC_FILE, key.verifier.vkey.encode() + b"\n")
    return key


def load_witness_key(directory: Path, passphrase: bytes | None) -> CosigningKey:
    """The key made by `create_witness`. Raises as `load_signing_key` does."""
    path = directory / PUBLIC_FILE
    try:
        verifier = parse_cosigner(path.read_text("utf-8").removesuffix("\n"))
    except FileNotFoundError:
        raise Misuse(f"no witness at {directory}", hint="`mainstay witness init DIR` makes one.") from None
    except UnicodeDecodeError:
        raise Damaged(f"{path}: expected a verifier key, found bytes that are not UTF-8") from None
    private = read_private_key(directory / PRIVATE_FILE, passphrase, maker="mainstay witness init")
    if not isinstance(private, Ed25519PrivateKey | MLDSA44PrivateKey):
        raise Damaged(f"{directory / PRIVATE_FILE}: expected Ed25519 or ML-DSA-44, found {type(private).__name__}")
    key = CosigningKey(verifier.name, private)
    if key.verifier.vkey != verifier.vkey:
        raise Damaged(f"{directory}: expected {PRIVATE_FILE} and {PUBLIC_FILE} to be of one key, found different ones")
    return key


def origin_hash(origin: str) -> str:
    """The name of a log's folder, and of its checkpoint under the monitoring prefix."""
    return sha256(origin.encode()).hexdigest()


def add_log(directory: Path, vkey: str, origin: str | None = None) -> tuple[str, bool]:
    """Let the witness cosign a log, or trust one more key for it; its origin, and whether that is new.

    The origin is the key's name unless given. A witness that is serving follows at once. Raises Misuse when there is
    no witness or the origin is none, Damaged when it is no verifier key of a log.
    """
    if not (directory / PUBLIC_FILE).exists():
        raise Misuse(f"no witness at {directory}", hint="`mainstay witness init DIR` makes one.")
    key = parse_log_key(vkey)
    log = key.name if origin is None else origin
    if not log.isprintable() or not 0 < len(log.encode()) <= MAX_ORIGIN_BYTES:
        raise Misuse(f"origin {log[:80]!r}: expected the first line of the log's checkpoints, up to 255 bytes")
    folder = directory / LOGS_FOLDER / origin_hash(log)
    with locked(directory / f"{LOGS_FOLDER}.lock"):
        known = _read_keys(folder)
        if any(each.vkey == key.vkey for each in known):
            return log, False
        if len(known) >= MAX_LOG_KEYS:
            raise Misuse(f"{log}: expected at most {MAX_LOG_KEYS} keys")
        write_atomic(folder / KEYS_FILE, "".join(f"{each.vkey}\n" for each in (*known, key)).encode())
        sync_directory(folder.parent)
    return log, True


def _read_keys(folder: Path) -> list[NoteVerifier]:
    """The keys of a log; none when it is not known. Raises Damaged when the file is not as it was written."""
    try:
        content = (folder / KEYS_FILE).read_text("utf-8")
    except FileNotFoundError:
        return []
    return [parse_log_key(line) for line in content.splitlines()]


def read_request(body: bytes) -> Request:
    """Read a request of `add-checkpoint`. Raises Refused, 400, when it is none."""
    head, blank, note = body.partition(b"\n\n")
    if not blank:
        raise Refused(400, "expected an old size, a proof, an empty line and a checkpoint")
    try:
        old, *proof = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Refused(400, "expected an old size and a proof in ASCII") from None
    size = _OLD.fullmatch(old)
    if size is None:
        raise Refused(400, "expected `old`, a space and a number of entries on the first line")
    if len(proof) > MAX_PROOF_LINES:
        raise Refused(400, f"expected at most {MAX_PROOF_LINES} lines of proof, found {len(proof)}")
    try:
        hashes = tuple(decode_base64(line.encode(), "proof") for line in proof)
        text, signatures = split_note(note)
        checkpoint = parse_checkpoint(text)
    except Damaged as error:
        raise Refused(400, error.message) from None
    if any(len(each) != HASH_BYTES for each in hashes):
        raise Refused(400, f"proof: expected hashes of {HASH_BYTES} bytes")
    return Request(int(size[1]), hashes, note, text, tuple(signatures), checkpoint)


class Witness:
    """The witness in `directory`. Its methods may be called from several threads."""

    def __init__(self, directory: Path, key: CosigningKey, clock: Callable[[], float] = time.time) -> None:
        """Raises Misuse when another process is this witness: two could cosign what contradicts each other."""
        self._root = directory
        self._key = key
        self._clock = clock
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)  # by origin hash
        self._locks_lock = Lock()
        self._claim = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._claim)
            raise Misuse(f"{directory} is being served already: expected to be the only one") from None

    def close(self) -> None:
        """Let another process be this witness."""
        os.close(self._claim)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer `POST <submission prefix>/add-checkpoint`.

        Raises OSError when nothing can be made durable, Damaged when what is stored is not what was written; then
        nothing is cosigned.
        """
        try:
            request = read_request(body)
            folder = origin_hash(request.checkpoint.origin)
            keys = _read_keys(self._root / LOGS_FOLDER / folder)
            if not keys:
                raise Refused(404, f"the log {request.checkpoint.origin[:200]} is not known here")  # noqa: TRY301 - one answer
            trusted = _trusted_signatures(request, keys)
            with self._only(folder):
                return Answer(200, self._cosign(request, folder, trusted).line)
        except Refused as refused:
            return refused.answer

    def checkpoint(self, folder: str) -> Answer:
        """Answer `GET <monitoring prefix>/<origin hash>/checkpoint`. Raises as `add_checkpoint` does."""
        if not re.fullmatch(r"[0-9a-f]{64}", folder):
            return Answer(404, "expected the SHA-256 of an origin in lowercase hex\n")
        latest = self._latest(folder)
        return Answer(404, "nothing was cosigned for such a log\n") if latest is None else Answer(200, latest.decode())

    @contextmanager
    def _only(self, folder: str) -> Iterator[None]:
        with self._locks_lock:
            lock = self._locks[folder]
        with lock:
            yield

    def _latest(self, folder: str) -> bytes | None:
        try:
            return (self._root / LOGS_FOLDER / folder / CHECKPOINT_FILE).read_bytes()
        except FileNotFoundError:
            return None

    def _recorded(self, folder: str) -> tuple[int, bytes, int]:
        """Size and root of the last checkpoint cosigned for a log, and when. Raises Damaged when it is not by us."""
        note = self._latest(folder)
        if note is None:
            return 0, EMPTY_ROOT, 0
        try:
            recorded = parse_checkpoint(verify_note(note, self._key.verifier))
        except Damaged as error:
            raise Damaged(f"{LOGS_FOLDER}/{folder}/{CHECKPOINT_FILE}: {error.message}") from None
        times = [time_of(each.signature) for each in split_note(note)[1] if each.claims(self._key.verifier)]
        return recorded.size, recorded.root, max(times)

    def _cosign(self, request: Request, folder: str, trusted: list[NoteSignature]) -> NoteSignature:
        """Check that the log only grew, remember its checkpoint, and cosign it; the caller holds the log's lock."""
        checkpoint = request.checkpoint
        if request.old_size > checkpoint.size:
            raise Refused(400, f"expected an old size up to {checkpoint.size}, found {request.old_size}")
        size, root, last_time = self._recorded(folder)
        if request.old_size != size:
            raise Refused(409, str(size), SIZE_TYPE)
        if not verify_consistency(size, checkpoint.size, root, checkpoint.root, request.proof):
            logger.warning(
                "inconsistent checkpoint refused: origin=%s size=%d root=%s cosigned_size=%d cosigned_root=%s",
                *(ascii(checkpoint.origin), checkpoint.size, checkpoint.root.hex(), size, root.hex()),
            )
            raise Refused(
                422, f"the proof does not show that {checkpoint.size} entries extend the {size} cosigned here"
            )
        # A clock that was set back must not make an older time the time of a newer tree.
        cosignature = self._key.cosign(request.text, max(int(self._clock()), last_time, 1))
        bare = f"{request.text}\n{''.join(each.line for each in trusted)}".encode()
        path = self._root / LOGS_FOLDER / folder / CHECKPOINT_FILE
        write_atomic(path, add_signatures(bare, [cosignature]))
        return cosignature


def _trusted_signatures(request: Request, keys: list[NoteVerifier]) -> list[NoteSignature]:
    """The log's signatures, verified. Raises Refused, 403, when there is none or one is wrong."""
    content = request.text.encode()
    trusted = []
    for key in keys:
        for signature in request.signatures:
            if signature.claims(key):
                if not key.verify(content, signature.signature):
                    raise Refused(403, f"the signature by {key.name} is not over this checkpoint")
                trusted.append(signature)
    if not trusted:
        raise Refused(403, f"expected a signature by {' or '.join(key.name for key in keys)}, found none")
    return trusted
