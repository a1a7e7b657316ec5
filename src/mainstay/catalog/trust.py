"""Why a model's file may be opened: somebody said so and why, or a key that somebody trusts signed it.

Signatures are those of OpenSSF Model Signing 1.0: a detached Sigstore bundle (v0.3) beside the file, holding a DSSE
envelope around an in-toto statement that names the file's SHA-256, signed by an elliptic curve key (ECDSA; P-256 with
SHA-256, P-384 with SHA-384, P-521 with SHA-512). `model_signing sign key FILE --signature FILE.sig --private_key KEY`
makes one. What is verified is the content that was read, so nothing can change between the check and its use.

DSSE: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
Model Signing: https://github.com/sigstore/model-transparency/blob/main/docs/model_signing_format.md
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Struct, field, json

from mainstay.catalog.conversion import PICKLE_SUFFIXES
from mainstay.catalog.versions import digest_of, read_bounded
from mainstay.errors import NOT_READ, Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIGNATURE_SUFFIX: Final = ".sig"
MAX_SIGNATURE_BYTES: Final = 1 << 20
MAX_KEY_BYTES: Final = 64 << 10
MAX_REASON_CHARACTERS: Final = 10_000

_PAYLOAD: Final = b"application/vnd.in-toto+json"
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


class PublicKey(NamedTuple):
    """A key whose signatures are trusted."""

    digest: str  # SHA-256 of its SubjectPublicKeyInfo in DER: "sha256:" and 64 hex digits
    key: ec.EllipticCurvePublicKey
    hash: hashes.HashAlgorithm


class _Signature(Struct, frozen=True):
    sig: bytes


class _Envelope(Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: list[_Signature]


class _Bundle(Struct, frozen=True, rename="camel"):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    dsse_envelope: _Envelope


class _Subject(Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Serialization(Struct, frozen=True):
    method: Literal["files"]


class _Resource(Struct, frozen=True):
    name: str
    algorithm: Literal["sha256"]
    digest: str


class _Predicate(Struct, frozen=True):
    serialization: _Serialization
    resources: list[_Resource]


class _Statement(Struct, frozen=True):
    type: Literal["https://in-toto.io/Statement/v1"] = field(name="_type")
    predicate_type: Literal["https://model_signing/signature/v1.0"] = field(name="predicateType")
    subject: list[_Subject]
    predicate: _Predicate


def runs_code(file: str) -> bool:
    """Whether opening a model's file of this name can run whatever its author wrote into it."""
    return PurePosixPath(file).suffix.lower() in PICKLE_SUFFIXES


def check_reason(reason: str | None) -> str | None:
    """Why a file is trusted, in the words of whoever says so; None where nothing is said.

    Raises Misuse when it is too long to keep.
    """
    said = (reason or "").strip()
    if len(said) > MAX_REASON_CHARACTERS:
        raise Misuse(f"--trust-pickle: expected at most {MAX_REASON_CHARACTERS:,} characters, found {len(said):,}")
    return said or None


def check_may_open(file: str, *, reason: str | None, signed: bool) -> None:
    """Raises Misuse when opening the file can run code and there is neither a reason nor a signature to trust it."""
    if runs_code(file) and reason is None and not signed:
        raise Misuse(
            f"{file} is a pickle: whoever wrote it can run any code in whoever opens it",
            hint="Save it with skops instead: skops.io.dump(model, 'model.skops'). If you know who made this file and "
            "trust them, say why: --trust-pickle REASON. The reason is kept in the version. If they signed it "
            f"({file}{SIGNATURE_SUFFIX}) and you have their public key: --signed-by KEY.pem.",
        )


def read_public_key(path: Path) -> PublicKey:
    """An elliptic curve public key in PEM. Raises Misuse when the file holds no such key."""
    expected = "expected a public key in PEM on one of the curves P-256, P-384 and P-521"
    try:
        key: Any = load_pem_public_key(read_bounded(path, MAX_KEY_BYTES))
    except OSError as error:
        raise Misuse(f"{path}: {expected}, found: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Misuse(f"{path}: {expected}, found: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise Misuse(f"{path}: {expected}, found another kind of key")
    digest = digest_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return PublicKey(digest, key, _HASHES[key.curve.name])


def verify_signature(file: str, content: bytes, signature: bytes, keys: Sequence[PublicKey]) -> PublicKey:
    """The one of `keys` that signed `content`; `file` is how errors call it.

    Raises Misuse when `signature` is no signature of the form above, Failed when none of the keys made it or it is of
    other content.
    """
    beside = f"{file}{SIGNATURE_SUFFIX}"
    try:
        envelope = json.decode(signature, type=_Bundle).dsse_envelope
    except NOT_READ as error:
        raise Misuse(f"{beside}: expected a Sigstore bundle (v0.3) with a DSSE envelope: {error}", hint=_MAKE) from None
    signed_by = next((key for key in keys if _is_signed(envelope, key)), None)
    if signed_by is None:
        raise Failed(
            f"{beside}: none of the {len(keys)} keys given made this signature",
            hint="Ask whoever signed the model for their public key, by a way that does not come with the model.",
        )
    try:
        statement = json.decode(envelope.payload, type=_Statement)
    except NOT_READ as error:
        raise Misuse(f"{beside}: expected a statement of Model Signing 1.0: {error}", hint=_MAKE) from None
    digest = _digest_of_one_file(statement)
    if digest is None:
        raise Misuse(f"{beside}: expected the signature of one file, found that of a folder", hint=_MAKE)
    found = sha256(content).hexdigest()
    if found != digest:
        raise Failed(
            f"{file} is not what was signed: expected content of sha256:{digest}, found sha256:{found}",
            hint="Fetch the model again from whoever signed it; do not open this one.",
        )
    return signed_by


_MAKE: Final = "Sign the file by itself: model_signing sign key FILE --signature FILE.sig --private_key KEY"


def _is_signed(envelope: _Envelope, key: PublicKey) -> bool:
    """Whether the key made any of the envelope's signatures."""
    encoded = b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD), _PAYLOAD, len(envelope.payload), envelope.payload)
    for each in envelope.signatures:
        try:
            key.key.verify(each.sig, encoded, ec.ECDSA(key.hash))
        except InvalidSignature:
            continue
        return True
    return False


def _digest_of_one_file(statement: _Statement) -> str | None:
    """The SHA-256 of the one file that is signed, in hex; None when it is not one file."""
    resources = statement.predicate.resources
    if len(resources) != 1 or resources[0].name != "." or len(statement.subject) != 1:
        return None
    digest = resources[0].digest
    try:
        root = sha256(bytes.fromhex(digest)).hexdigest()  # the subject's digest is over those of all resources
    except ValueError:
        return None
    return digest if statement.subject[0].digest.get("sha256") == root else None
