"""Signatures as OpenSSF's own library makes them, checked by ours."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import model_signing
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mainstay.catalog.trust import PublicKey, check_may_open, read_public_key, verify_signature
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"a model"


def make_keys(folder: Path, name: str = "key", curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """A private and a public key, in PEM."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def sign(model: Path, private: Path) -> Path:
    """Sign a file or folder; where its signature stands."""
    signature = model.with_name(model.name + ".sig")
    config: Any = model_signing.signing.Config  # its constructor has no types
    config().use_elliptic_key_signer(private_key=private).sign(model, signature)
    return signature


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.joblib"
    path.write_bytes(CONTENT)
    return path


def verify(content: bytes, signature: bytes, *public: Path) -> PublicKey:
    return verify_signature("m.joblib", content, signature, [read_public_key(path) for path in public])


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_signature_of_the_file_is_verified(tmp_path: Path, model: Path, curve: ec.EllipticCurve) -> None:
    private, public = make_keys(tmp_path, curve=curve)
    _, other = make_keys(tmp_path, "other")
    signature = sign(model, private).read_bytes()
    found = verify(CONTENT, signature, other, public)
    assert found == read_public_key(public)
    assert found.digest.startswith("sha256:")


def test_another_file_is_not_what_was_signed(tmp_path: Path, model: Path) -> None:
    private, public = make_keys(tmp_path)
    with pytest.raises(Failed, match="is not what was signed"):
        verify(CONTENT + b".", sign(model, private).read_bytes(), public)


def test_another_key_did_not_sign_it(tmp_path: Path, model: Path) -> None:
    private, _ = make_keys(tmp_path)
    _, other = make_keys(tmp_path, "other")
    with pytest.raises(Failed, match="none of the 1 keys given made this signature"):
        verify(CONTENT, sign(model, private).read_bytes(), other)


def test_a_statement_that_was_changed_is_not_signed(tmp_path: Path, model: Path) -> None:
    private, public = make_keys(tmp_path)
    bundle = json.loads(sign(model, private).read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0]["digest"] = "0" * 64
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    with pytest.raises(Failed, match="made this signature"):
        verify(CONTENT, json.dumps(bundle).encode(), public)


def test_the_signature_of_a_folder_is_not_that_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "m.joblib").write_bytes(CONTENT)
    private, public = make_keys(tmp_path)
    with pytest.raises(Misuse, match="expected the signature of one file, found that of a folder"):
        verify(CONTENT, sign(folder, private).read_bytes(), public)


@pytest.mark.parametrize("change", ["", "{}", "media type", "payload", "no signature"])
def test_what_is_no_signature_is_told_from_one_that_does_not_hold(tmp_path: Path, model: Path, change: str) -> None:
    private, public = make_keys(tmp_path)
    bundle: dict[str, Any] = json.loads(sign(model, private).read_bytes())
    if change == "media type":
        bundle["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.1+json"
    elif change == "payload":
        bundle["dsseEnvelope"]["payload"] = "not base64"
    elif change == "no signature":
        bundle["dsseEnvelope"]["signatures"] = []
    content = change.encode() if change in ("", "{}") else json.dumps(bundle).encode()
    with pytest.raises((Misuse, Failed)) as caught:
        verify(CONTENT, content, public)
    assert isinstance(caught.value, Failed) == (change == "no signature")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.pub").write_bytes(content)
    with pytest.raises(Misuse, match="expected a public key in PEM"):
        read_public_key(tmp_path / "key.pub")
    with pytest.raises(Misuse, match="No such file"):
        read_public_key(tmp_path / "absent.pub")


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    (tmp_path / "key.pub").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(Misuse, match="found another kind of key"):
        read_public_key(tmp_path / "key.pub")
    _, unusual = make_keys(tmp_path, "unusual", ec.SECP256K1())
    with pytest.raises(Misuse, match="found another kind of key"):
        read_public_key(unusual)


@pytest.mark.parametrize("file", ["m.joblib", "m.PKL", "model/m.pickle"])
def test_a_pickle_needs_a_reason_or_a_signature(file: str) -> None:
    with pytest.raises(Misuse, match="is a pickle") as caught:
        check_may_open(file, reason=None, signed=False)
    assert "--signed-by KEY.pem" in str(caught.value)
    check_may_open(file, reason="ours", signed=False)
    check_may_open(file, reason=None, signed=True)


@pytest.mark.parametrize("file", ["m.onnx", "m.skops", "m.json", "m.ubj", "m.txt"])
def test_data_needs_none(file: str) -> None:
    check_may_open(file, reason=None, signed=False)
