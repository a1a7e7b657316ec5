"""The witness protocol, written from the specifications alone: nothing of Mainstay is imported here.

c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature and tlog-witness; RFC 6962 section 2.1 for the tree and its
proofs, by their recursive definitions; HTTP/1.1 over a socket.
"""

from __future__ import annotations

import base64
import hashlib
import socket
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def consistency(m: int, leaves: list[bytes]) -> list[bytes]:
    """PROOF of RFC 6962, 2.1.2."""
    return [] if m in {0, len(leaves)} else sub_proof(m, leaves, whole=True)


def sub_proof(m: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if whole else [tree_hash(leaves)]
    k = split(n)
    if m <= k:
        return [*sub_proof(m, leaves[:k], whole=whole), tree_hash(leaves[k:])]
    return [*sub_proof(m - k, leaves[k:], whole=False), tree_hash(leaves[:k])]


@dataclass
class Log:
    """A log with a key, and as many leaves as are asked for."""

    origin: str
    name: str = "leaf"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.origin.encode() + b"\n\x01" + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        material = b64(b"\x01" + self.public)
        return f"{self.origin}+{self.key_id.hex()}+{material}"

    def leaves(self, size: int) -> list[bytes]:
        return [f"{self.name} {at}".encode() for at in range(size)]

    def text(self, size: int, root: bytes | None = None) -> str:
        return f"{self.origin}\n{size}\n{b64(tree_hash(self.leaves(size)) if root is None else root)}\n"

    def sign(self, text: str) -> bytes:
        return f"{text}\n\N{EM DASH} {self.origin} {b64(self.key_id + self.key.sign(text.encode()))}\n".encode()

    def body(self, old: int, size: int) -> bytes:
        """A request of add-checkpoint."""
        proof = consistency(old, self.leaves(size))
        return f"old {old}\n{''.join(b64(each) + chr(10) for each in proof)}\n".encode() + self.sign(self.text(size))


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """HTTP/1.1 over one socket, kept open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._rest = b""

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, path: str, body: bytes = b"", *, length: int | None = None) -> None:
        size = len(body) if length is None else length
        head = f"{method} {path} HTTP/1.1\r\nhost: witness\r\ncontent-length: {size}\r\n\r\n"
        self._socket.sendall(head.encode() + body)

    def receive(self) -> Reply:
        """The next answer; raises ConnectionError when there is none."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        length = int(headers["content-length"])
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Reply(int(status.split(" ")[1]), headers, body)

    def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        self.send(method, path, body)
        return self.receive()

    def _more(self) -> None:
        received = self._socket.recv(65_536)
        if not received:
            raise ConnectionError("the witness closed the connection")
        self._rest += received


def cosigned_at(answer: bytes, vkey: str, text: str) -> int:
    """The time of the one cosignature in an answer, verified; fails when it is not a valid one by this key."""
    name, key_id, material = vkey.split("+", 2)
    line = answer.decode()
    assert line.startswith(f"\N{EM DASH} {name} ")
    assert line.endswith("\n")
    assert line.count("\n") == 1
    raw = base64.b64decode(line.rstrip("\n").split(" ")[2], validate=True)
    kind, public = base64.b64decode(material)[:1], base64.b64decode(material)[1:]
    assert raw[:4].hex() == key_id == hashlib.sha256(name.encode() + b"\n" + kind + public).hexdigest()[:8]
    stamp, signature = raw[4:12], raw[12:]
    time = int.from_bytes(stamp, "big")
    if kind == b"\x04":
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    else:
        assert kind == b"\x06"
        origin, size, root = text.split("\n")[:3]
        message = b"subtree/v1\n\x00" + bytes([len(name.encode())]) + name.encode() + stamp
        message += bytes([len(origin.encode())]) + origin.encode() + bytes(8) + int(size).to_bytes(8, "big")
        MLDSA44PublicKey.from_public_bytes(public).verify(signature, message + base64.b64decode(root))
    return time
