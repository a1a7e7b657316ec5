"""API keys: who may decide, report, push and read, and for which capabilities.

A token is `ms_<key id, 8 hex digits>_<43 base64url characters>`: 256 random bits, shown once and kept by nobody but
its holder. Stored is its SHA-256; a token has too much entropy to be guessed back, so no slow hash is needed. All keys
are one snapshot, `keys.json`, in a DSSE envelope signed by the workspace's key, and replaced as a whole.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec

from mainstay.errors import NOT_READ, Damaged, Misuse
from mainstay.files import write_atomic
from mainstay.locks import locked
from mainstay.signing import open_envelope, sign_envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mainstay.signing import SigningKey, Verifier

PAYLOAD_TYPE: Final = "application/vnd.mainstay.keys+json"
SNAPSHOT = "keys.json"
LOCK = "lock"
ALL_CAPABILITIES: Final = "*"
MAX_SNAPSHOT_BYTES = 64 << 20  # about 200,000 keys

TOKEN_CHARACTERS = 55
_TOKEN = re.compile(r"ms_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_CAPABILITY = re.compile(r"\*|[a-z][a-z0-9-]{1,62}")
_SECRET_BYTES = 32

Verb: TypeAlias = Literal["decide", "report", "push", "read"]
VERBS: Final[tuple[Verb, ...]] = ("decide", "report", "push", "read")

KeyId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}\Z")]
KeyName: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
CapabilityName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z][a-z0-9-]{1,62})\Z")]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stored of a key: everything but its token. Instants are UTC."""

    id: KeyId
    name: KeyName
    sha256: Sha256  # of the whole token
    capabilities: tuple[CapabilityName, ...]  # "*" for all
    verbs: tuple[Verb, ...]
    created_at: datetime
    expires_at: datetime | None = None  # None means never; at this instant it is refused already
    revoked_at: datetime | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key there ever was, revoked ones included. `serial` grows by one with each change."""

    format: Literal["mainstay-keys/1"]
    serial: int
    keys: tuple[ApiKey, ...]


_EMPTY = Snapshot(format="mainstay-keys/1", serial=0, keys=())


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, and what they may do."""

    key_id: str
    name: str
    capabilities: tuple[str, ...]
    verbs: tuple[Verb, ...]

    def may(self, verb: Verb, capability: str) -> bool:
        """Whether this principal may `verb` the capability. Nothing is allowed that was not granted."""
        return verb in self.verbs and (ALL_CAPABILITIES in self.capabilities or capability in self.capabilities)


class KeyRing:
    """The keys of one snapshot, ready to identify callers. Immutable: a changed snapshot makes a new ring."""

    __slots__ = ("_by_digest",)

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._by_digest = {
            bytes.fromhex(key.sha256): (
                Principal(key.id, key.name, key.capabilities, key.verbs),
                float("inf") if key.expires_at is None else key.expires_at.timestamp(),
            )
            for key in keys
            if key.revoked_at is None
        }

    def identify(self, token: str, *, now: float | None = None) -> Principal | None:
        """Who holds `token` at `now` (Unix seconds), or None for anything that is not a live key's token.

        Total: any string is answered. The work is one hash and one look-up whoever asks, and what is compared is a
        digest that the caller cannot steer, so timing tells nothing about other tokens.
        """
        if parse_token(token) is None:
            return None
        found = self._by_digest.get(sha256(token.encode("ascii")).digest())
        if found is None:
            return None
        principal, expires_at = found
        return principal if (time.time() if now is None else now) < expires_at else None


def parse_token(token: str) -> str | None:
    """The key id that a token names, or None when it is not of the form of a token. Reads at most 55 characters."""
    if len(token) != TOKEN_CHARACTERS:
        return None
    match = _TOKEN.fullmatch(token)
    return None if match is None else match[1]


def create_key(
    access: Path,
    key: SigningKey,
    *,
    name: str,
    capabilities: Sequence[str],
    verbs: Sequence[Verb],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Add a key to the snapshot in directory `access`; returns it and its token, which is nowhere else.

    Raises Misuse when the name is that of a live key, nothing is granted, or the expiry has no zone or has passed;
    Damaged when the snapshot is not what `key` signed.
    """
    now = _now()
    _check_grants(name, capabilities, verbs)
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise Misuse(f"expires_at is {expires_at.isoformat()}: expected a later instant than now, with a time zone")
    with locked(access / LOCK):
        snapshot = _load(access, key.verifier)
        if any(each.name == name and _is_live(each, now) for each in snapshot.keys):
            raise Misuse(f"a live key is named {name!r}", hint="Choose another name, or revoke that key first.")
        taken = {each.id for each in snapshot.keys}
        key_id = next(each for each in iter(lambda: secrets.token_hex(4), "") if each not in taken)
        token = f"ms_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        made = ApiKey(
            id=key_id,
            name=name,
            sha256=sha256(token.encode("ascii")).hexdigest(),
            capabilities=tuple(dict.fromkeys(capabilities)),
            verbs=tuple(verb for verb in VERBS if verb in verbs),
            created_at=now,
            expires_at=None if expires_at is None else expires_at.astimezone(UTC),
        )
        _store(access, key, snapshot, (*snapshot.keys, made))
    return made, token


def revoke_key(access: Path, key: SigningKey, key_id: str) -> ApiKey:
    """Refuse the key from now on; workers follow when they next look. Revoking again changes nothing.

    Raises Misuse when there is no such key.
    """
    with locked(access / LOCK):
        snapshot = _load(access, key.verifier)
        found = next((each for each in snapshot.keys if each.id == key_id), None)
        if found is None:
            raise Misuse("no key has this id: expected the 8 hex digits of one", hint="List them: mainstay key list")
        if found.revoked_at is not None:
            return found
        revoked = msgspec.structs.replace(found, revoked_at=_now())
        _store(access, key, snapshot, tuple(revoked if each.id == key_id else each for each in snapshot.keys))
    return revoked


def list_keys(access: Path, verifier: Verifier) -> tuple[ApiKey, ...]:
    """Every key, oldest first, revoked and expired ones included. Raises Damaged when the snapshot is."""
    return _load(access, verifier).keys


def load_key_ring(access: Path, verifier: Verifier) -> KeyRing:
    """The ring of the current snapshot; one that lets nobody in when there is none. Raises Damaged when it is."""
    return KeyRing(_load(access, verifier).keys)


def signature_of(access: Path) -> tuple[int, int, int] | None:
    """A cheap fingerprint of the snapshot, for polling; None when there is none."""
    try:
        found = (access / SNAPSHOT).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _check_grants(name: str, capabilities: Sequence[str], verbs: Sequence[str]) -> None:
    if not 1 <= len(name) <= 200 or not name.isprintable() or _TOKEN.search(name):
        raise Misuse("a key's name: expected 1 to 200 printable characters that say whose it is, and no token")
    if not capabilities or not verbs:
        raise Misuse(
            "the key grants nothing: expected at least one capability and one verb",
            hint=f"Verbs are: {', '.join(VERBS)}. Capability {ALL_CAPABILITIES!r} means all of them.",
        )
    for capability in capabilities:
        if not _CAPABILITY.fullmatch(capability):
            raise Misuse(f"capability {capability[:80]!r}: expected a capability's name, or '*' for all")
    for verb in verbs:
        if verb not in VERBS:
            raise Misuse(f"verb {verb[:80]!r}: expected one of {', '.join(VERBS)}")


def _is_live(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def _load(access: Path, verifier: Verifier) -> Snapshot:
    path = access / SNAPSHOT
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SNAPSHOT_BYTES + 1)
    except FileNotFoundError:
        return _EMPTY
    if len(content) > MAX_SNAPSHOT_BYTES:
        raise Damaged(f"{path}: expected at most {MAX_SNAPSHOT_BYTES} bytes, found more")
    try:
        payload = open_envelope(content, PAYLOAD_TYPE, verifier)
        return msgspec.json.decode(payload, type=Snapshot)
    except Damaged as error:
        raise Damaged(f"{path}: {error.message}", hint=error.hint) from None
    except NOT_READ as error:
        raise Damaged(f"{path}: signed, but no snapshot of keys: {error}") from None


def _store(access: Path, key: SigningKey, before: Snapshot, keys: tuple[ApiKey, ...]) -> None:
    after = Snapshot(format="mainstay-keys/1", serial=before.serial + 1, keys=keys)
    payload = msgspec.json.encode(after, order="deterministic")
    write_atomic(access / SNAPSHOT, sign_envelope(PAYLOAD_TYPE, payload, key), mode=0o640)


def _now() -> datetime:
    return datetime.now(UTC)
