"""Cosignatures of checkpoints (c2sp.org/tlog-cosignature): a witness says when it saw a log as consistent.

A cosignature is a signature line of the checkpoint's note. Behind the key id it holds a time, u64 big-endian, POSIX
seconds, and a signature: Ed25519 (signature type 0x04) over

    cosignature/v1
    time <seconds>
    <the text of the note>

or ML-DSA-44 (FIPS 204, signature type 0x06) over a structure of the same facts and the cosigner's name, which leaves
the extension lines of the checkpoint out.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mainstay.errors import Damaged, Misuse
from mainstay.ledger.note import NoteSignature, NoteVerifier, parse_checkpoint
from mainstay.signing import ED25519, PUBLIC_KEY_BYTES, Verifier, Vkey, is_key_name, split_vkey

COSIGNED_ED25519: Final = b"\x04"
COSIGNED_ML_DSA_44: Final = b"\x06"
ML_DSA_44_KEY_BYTES = 1312
MAX_TIME = (1 << 63) - 1  # seconds
TIME_BYTES = 8

_SIGNATURE_BYTES = {COSIGNED_ED25519: 64, COSIGNED_ML_DSA_44: 2420}
_COSIGNER_KEYS = {COSIGNED_ED25519: PUBLIC_KEY_BYTES, COSIGNED_ML_DSA_44: ML_DSA_44_KEY_BYTES}
_LOG_KEYS = {ED25519: PUBLIC_KEY_BYTES, **_COSIGNER_KEYS}
_LABEL = b"subtree/v1\n\0"
_MAX_NAME_BYTES = 255

CosignerPrivateKey: TypeAlias = Ed25519PrivateKey | MLDSA44PrivateKey


class Cosigner:
    """The public key of a cosigner and the name it goes by."""

    def __init__(self, vkey: Vkey) -> None:
        """Raises Misuse when the cryptography at hand cannot check its signatures."""
        self._vkey = vkey
        self._key: Ed25519PublicKey | MLDSA44PublicKey
        try:
            if vkey.kind == COSIGNED_ED25519:
                self._key = Ed25519PublicKey.from_public_bytes(vkey.public_key)
            else:
                self._key = MLDSA44PublicKey.from_public_bytes(vkey.public_key)
        except UnsupportedAlgorithm as error:
            raise Misuse(f"the key of {vkey.name} cannot be used: {error}", hint="Use a newer OpenSSL.") from None

    @property
    def name(self) -> str:
        return self._vkey.name

    @property
    def key_id(self) -> bytes:
        return self._vkey.key_id

    @property
    def public_key(self) -> bytes:
        return self._vkey.public_key

    @property
    def vkey(self) -> str:
        """The C2SP verifier key text."""
        return str(self._vkey)

    def verify(self, content: bytes, signature: bytes) -> bool:
        """Whether `signature`, a time and what was signed at it, is this key's over the text of a checkpoint."""
        if len(signature) != TIME_BYTES + _SIGNATURE_BYTES[self._vkey.kind] or time_of(signature) > MAX_TIME:
            return False
        try:
            message = signed_message(self._vkey, content, time_of(signature))
            self._key.verify(signature[TIME_BYTES:], message)
        except (InvalidSignature, Damaged):
            return False
        return True


class CosigningKey:
    """The private key of a cosigner and the name it goes by."""

    def __init__(self, name: str, private_key: CosignerPrivateKey) -> None:
        """Raises Misuse when the name is not allowed."""
        if not is_key_name(name) or len(name.encode()) > _MAX_NAME_BYTES:
            raise Misuse(
                f"key name {name[:80]!r}: expected no spaces, no plus, at most {_MAX_NAME_BYTES} bytes",
                hint="A URL without a scheme is a good name, such as witness.example.com/w1.",
            )
        kind = COSIGNED_ED25519 if isinstance(private_key, Ed25519PrivateKey) else COSIGNED_ML_DSA_44
        self._key = private_key
        self._vkey = Vkey(name, kind, private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.verifier = Cosigner(self._vkey)

    def cosign(self, text: str, time: int) -> NoteSignature:
        """The cosignature of a checkpoint, given as the text of its note, at `time`, POSIX seconds.

        Whoever calls this must have seen that the log is consistent with every checkpoint cosigned before.
        Raises Damaged when the origin is too long for an ML-DSA-44 cosignature.
        """
        if not 0 < time <= MAX_TIME:
            raise ValueError(f"expected a time in POSIX seconds, found {time}")
        signature = self._key.sign(signed_message(self._vkey, text.encode(), time))
        return NoteSignature(self._vkey.name, self._vkey.key_id, time.to_bytes(TIME_BYTES, "big") + signature)

    def pem(self, passphrase: bytes | None) -> bytes:
        """PKCS #8, encrypted when there is a passphrase."""
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def parse_cosigner(text: str) -> Cosigner:
    """Read the C2SP verifier key of a cosigner, of signature type 0x04 or 0x06.

    Raises Damaged when it is not one, Misuse when the cryptography at hand cannot check its signatures.
    """
    return Cosigner(split_vkey(text, _COSIGNER_KEYS))


def parse_log_key(text: str) -> NoteVerifier:
    """Read the C2SP verifier key of a log: Ed25519 (0x01), or that of a cosigner, which a log may sign with, too.

    Raises as `parse_cosigner` does.
    """
    found = split_vkey(text, _LOG_KEYS)
    return Verifier(found.name, found.public_key) if found.kind == ED25519 else Cosigner(found)


def time_of(signature: bytes) -> int:
    """The time a cosignature states, POSIX seconds; 0 says that it states none. Nothing is verified."""
    return int.from_bytes(signature[:TIME_BYTES], "big")


def signed_message(key: Vkey, content: bytes, time: int) -> bytes:
    """What a cosignature by `key` over the text of a checkpoint is over. Raises Damaged when it is no text of one."""
    if key.kind == COSIGNED_ED25519:
        return b"cosignature/v1\ntime %d\n%b" % (time, content)
    checkpoint = parse_checkpoint(content.decode("utf-8", "replace"))
    name, origin = key.name.encode(), checkpoint.origin.encode()
    if len(name) > _MAX_NAME_BYTES or len(origin) > _MAX_NAME_BYTES:
        raise Damaged(f"ML-DSA-44 cosignature: expected a name and an origin of at most {_MAX_NAME_BYTES} bytes")
    return b"".join(
        (
            _LABEL,
            bytes([len(name)]),
            name,
            time.to_bytes(8, "big"),
            bytes([len(origin)]),
            origin,
            bytes(8),  # the first leaf of the tree that is signed: all of it
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )
