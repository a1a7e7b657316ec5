"""The workspace's Ed25519 key (RFC 8032), and what is signed with it.

A verifier is written as a C2SP signed-note verifier key: `name+hex(key id)+base64(type || public key)`, with
key id = SHA-256(name || 0x0A || type || public key)[:4]; the type of Ed25519 is 0x01. Documents are signed as DSSE
envelopes (https://github.com/secure-systems-lab/dsse, protocol 1.0.2).
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from mainstay.errors import NOT_READ, Damaged, Misuse
from mainstay.files import sync_directory, write_all, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PRIVATE_FILE = "signing.pem"
PUBLIC_FILE = "signing.vkey"
PASSPHRASE_VARIABLE = "MAINSTAY_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable, not a passphrase
ED25519 = b"\x01"  # the signature type of C2SP signed-note
PUBLIC_KEY_BYTES = 32
MAX_NAME_CHARACTERS = 256
MAX_ENVELOPE_BYTES = 64 << 20


def is_key_name(name: str) -> bool:
    """Whether C2SP signed-note allows `name` for a key: not empty, no Unicode space, no plus, no control character."""
    return 0 < len(name) <= MAX_NAME_CHARACTERS and not any(
        character == "+" or character.isspace() or not character.isprintable() for character in name
    )


class Vkey(NamedTuple):
    """A public key of any signature type of C2SP signed-note, with its name."""

    name: str
    kind: bytes  # the signature type, one byte
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand for the key in signatures."""
        return sha256(self.name.encode() + b"\n" + self.kind + self.public_key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(self.kind + self.public_key).decode()}"


class Verifier:
    """A public key and the name it goes by."""

    def __init__(self, name: str, public_key: bytes) -> None:
        """Raises Misuse when the name is not allowed or the key is not 32 bytes."""
        if not is_key_name(name):
            raise Misuse(f"key name {name!r}: expected no spaces, no plus, at most {MAX_NAME_CHARACTERS} characters")
        if len(public_key) != PUBLIC_KEY_BYTES:
            raise Misuse(f"public key: expected {PUBLIC_KEY_BYTES} bytes, found {len(public_key)}")
        self.name = name
        self.public_key = public_key
        self.key_id = Vkey(name, ED25519, public_key).key_id
        self._key = Ed25519PublicKey.from_public_bytes(public_key)

    @property
    def vkey(self) -> str:
        """The C2SP verifier key text."""
        return str(Vkey(self.name, ED25519, self.public_key))

    def verify(self, content: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `content`."""
        try:
            self._key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key and the name it goes by."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._key = private_key
        self.verifier = Verifier(name, private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def name(self) -> str:
        return self.verifier.name

    def sign(self, content: bytes) -> bytes:
        """The 64-byte signature of `content`."""
        return self._key.sign(content)

    def pem(self, passphrase: bytes | None) -> bytes:
        """PKCS #8, encrypted when there is a passphrase."""
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def parse_vkey(text: str) -> Verifier:
    """Read a C2SP verifier key. Raises Damaged when it is not one, or not of an Ed25519 key."""
    found = split_vkey(text, {ED25519: PUBLIC_KEY_BYTES})
    return Verifier(found.name, found.public_key)


def split_vkey(text: str, sizes: Mapping[bytes, int]) -> Vkey:
    """Read a C2SP verifier key of one of the signature types in `sizes`, each with the bytes of its public keys.

    Raises Damaged when it is not one, is of another type, or names another key id than its own.
    """
    parts = text.split("+", 2)  # base64 may hold a plus as well
    if len(parts) != 3:
        raise Damaged(f"verifier key: expected name+id+key, found {text[:80]!r}")
    name, key_id, encoded = parts
    material = decode_base64(encoded.encode("utf-8", "replace"), "verifier key")
    found = Vkey(name, material[:1], material[1:])
    if sizes.get(found.kind) != len(found.public_key) or not is_key_name(name):
        types = " or ".join(f"{size} bytes behind type 0x{kind.hex()}" for kind, size in sizes.items())
        raise Damaged(
            f"verifier key: expected a key name and a key of {types},"
            f" found {name[:80]!r}, {len(found.public_key)} bytes, type 0x{found.kind.hex()}"
        )
    if found.key_id.hex() != key_id:
        raise Damaged(f"verifier key {name}: expected key id {found.key_id.hex()}, found {key_id[:80]!r}")
    return found


def decode_base64(encoded: bytes, what: str) -> bytes:
    """Standard base64 in its one canonical form, so that no bit can be changed unseen. Raises Damaged."""
    try:
        decoded = b64decode(encoded, validate=True)
    except (Base64Error, ValueError):
        raise Damaged(f"{what}: expected base64, found {encoded[:40]!r}") from None
    if b64encode(decoded) != encoded:
        raise Damaged(f"{what}: expected canonical base64, found {encoded[-8:]!r} at its end")
    return decoded


def create_signing_key(directory: Path, name: str, passphrase: bytes | None) -> SigningKey:
    """Make a key: `signing.pem` (PKCS #8, mode 0600, encrypted when there is a passphrase) and `signing.vkey`.

    Raises Misuse when a key stands there already or the name is not allowed.
    """
    key = SigningKey(name, Ed25519PrivateKey.generate())
    store_private_key(directory / PRIVATE_FILE, key.pem(passphrase))
    write_atomic(directory / PUBLIC_FILE, key.verifier.vkey.encode() + b"\n")
    return key


def store_private_key(path: Path, pem: bytes) -> None:
    """Write a private key durably, with mode 0600. Raises Misuse when a file stands there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Misuse(
            f"{path} exists already", hint="What it signed could no longer be checked if it were replaced."
        ) from None
    try:
        write_all(descriptor, pem)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def load_signing_key(directory: Path, passphrase: bytes | None) -> SigningKey:
    """The key made by `create_signing_key`.

    Raises Misuse when there is none or the passphrase is wrong or missing, Damaged when the files do not fit together.
    """
    verifier = load_verifier(directory)
    path = directory / PRIVATE_FILE
    private_key = read_private_key(path, passphrase)
    if not isinstance(private_key, Ed25519PrivateKey):
        raise Damaged(f"{path}: expected an Ed25519 key, found {type(private_key).__name__}")
    key = SigningKey(verifier.name, private_key)
    if key.verifier.public_key != verifier.public_key:
        raise Damaged(f"{path} and {directory / PUBLIC_FILE}: expected the two halves of one key, found different keys")
    return key


def read_private_key(path: Path, passphrase: bytes | None, *, maker: str = "mainstay init") -> PrivateKeyTypes:
    """The private key in a PKCS #8 file; `maker` is the command that makes one.

    Raises Misuse when there is none or the passphrase is wrong or missing, Damaged when it is no such file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Misuse(f"no signing key at {path}", hint=f"`{maker}` makes one.") from None
    try:
        return load_pem_private_key(content, passphrase or None)
    except TypeError:  # says cryptography when a passphrase is missing, or given for a key that is not encrypted
        expected, found = ("none", "one") if passphrase else ("one", "none")
        raise Misuse(
            f"{path}: expected {expected} as passphrase, found {found}",
            hint=f"Set the passphrase in {PASSPHRASE_VARIABLE}, or unset it if the key is not encrypted.",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        if b"ENCRYPTED" in content:
            raise Misuse(f"{path}: wrong passphrase", hint=f"Set the right one in {PASSPHRASE_VARIABLE}.") from None
        raise Damaged(f"{path}: expected a PKCS #8 private key in PEM") from None


def load_verifier(directory: Path) -> Verifier:
    """The public half. Raises Misuse when there is none, Damaged when it is not a verifier key."""
    path = directory / PUBLIC_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Misuse(f"no verifier key at {path}", hint="`mainstay init` makes one.") from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Damaged(f"{path}: expected a verifier key, found bytes that are not UTF-8") from None
    return parse_vkey(text.removesuffix("\n"))


@dataclass(frozen=True, slots=True)
class _Signature:
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payloadType: str  # noqa: N815 - the name DSSE gives it
    signatures: list[_Signature]


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature covers.

    >>> pre_authentication("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, key: SigningKey) -> bytes:
    """A DSSE envelope, as JSON, with one signature."""
    signature = key.sign(pre_authentication(payload_type, payload))
    envelope = _Envelope(
        payload=b64encode(payload).decode(),
        payloadType=payload_type,
        signatures=[_Signature(keyid=key.verifier.key_id.hex(), sig=b64encode(signature).decode())],
    )
    return msgspec.json.encode(envelope)


def open_envelope(content: bytes, payload_type: str, verifier: Verifier) -> bytes:
    """The payload of an envelope signed by `verifier`.

    Raises Damaged when it is no DSSE envelope, is of another type, or carries no valid signature by this key.
    Signatures by other keys are ignored.
    """
    if len(content) > MAX_ENVELOPE_BYTES:
        raise Damaged(f"envelope: expected at most {MAX_ENVELOPE_BYTES} bytes, found {len(content)}")
    try:
        envelope = _decode_envelope(content)
    except NOT_READ as error:
        raise Damaged(f"envelope: expected DSSE JSON, found an error: {error}") from None
    if envelope.payloadType != payload_type:
        raise Damaged(f"envelope: expected type {payload_type}, found {envelope.payloadType[:200]}")
    payload = decode_base64(envelope.payload.encode(), "envelope payload")
    signed = pre_authentication(payload_type, payload)
    key_id = verifier.key_id.hex()
    for signature in envelope.signatures:
        if signature.keyid == key_id and verifier.verify(signed, decode_base64(signature.sig.encode(), "signature")):
            return payload
    raise Damaged(f"envelope: expected a signature by {verifier.name} ({key_id}), found none that is valid")
