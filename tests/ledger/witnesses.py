"""Witnesses for tests, behind real sockets, and the logs they look at."""

from __future__ import annotations

from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.samples import KEY, ORIGIN
from mainstay.ledger.cosignature import CosigningKey
from mainstay.ledger.merkle import consistency_proof, subtree_root, tree_root
from mainstay.ledger.note import Checkpoint, sign_checkpoint
from mainstay.ledger.witness import Witness, add_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.ledger.witness import Answer


def cosigner(name: str) -> CosigningKey:
    """The key of a witness, the same for the same name."""
    private = Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())
    return CosigningKey(f"witness.example.com/{name}", private)


@dataclass
class Tree:
    """A log of so many leaves, none of which exists: what witnesses see of it."""

    leaves: list[bytes]

    @classmethod
    def of(cls, count: int, name: str = "leaf") -> Tree:
        return cls([sha256(b"\0" + f"{name} {at}".encode()).digest() for at in range(count)])

    def node(self, level: int, index: int) -> bytes:
        return subtree_root(b"".join(self.leaves[index << level : (index + 1) << level]))

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, tree_root(size, self.node))

    def note(self, size: int) -> bytes:
        return sign_checkpoint(self.checkpoint(size), KEY)

    def proof(self, old_size: int, size: int) -> list[bytes]:
        return consistency_proof(old_size, size, self.node)

    def request(self, old_size: int, size: int, proof: list[bytes] | None = None) -> bytes:
        hashes = self.proof(old_size, size) if proof is None else proof
        return request(old_size, hashes, self.note(size))


def request(old_size: int, proof: list[bytes], note: bytes) -> bytes:
    """The body of a request of add-checkpoint."""
    return b"".join((b"old %d\n" % old_size, *(b64encode(each) + b"\n" for each in proof), b"\n", note))


def make_witness(directory: Path, name: str = "w1", *, clock: Callable[[], float] = lambda: 1_000.0) -> Witness:
    """A witness that knows the log of the samples."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "witness.vkey").write_text(cosigner(name).verifier.vkey + "\n")
    add_log(directory, KEY.verifier.vkey)
    return Witness(directory, cosigner(name), clock)


@dataclass
class Served:
    """A server of HTTP/1.1 on a port of its own."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(handle: Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]]) -> Iterator[Served]:
    """Answer each request with what `handle` makes of its method, path and body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one write for headers and body

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            served.requests.append(f"{self.command} {self.path}")
            status, headers, content = handle(self.command, self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names http.server asks for

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served = Served(f"http://127.0.0.1:{server.server_address[1]}")
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


class Notary:
    """An HTTP service that keeps what it is given once, as small as can be."""

    def __init__(self, *, method: str = "PUT", shows_newest: bool = True) -> None:
        self.kept: dict[str, bytes] = {}
        self._method = method
        self._shows_newest = shows_newest

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "GET":
            newest = list(self.kept.values())[-1:] if path == "/c" and self._shows_newest else []
            found = [self.kept[path]] if path in self.kept else newest
            stamp = {"last-modified": "Wed, 21 Oct 2026 07:28:00 GMT"}
            return (200, stamp, found[0]) if found else (404, {}, b"no such checkpoint")
        if method != self._method:
            return 405, {}, b""
        if method == "POST":
            path = "/c/" + body.split(b"\n")[1].decode()
        if path in self.kept:
            return 412, {}, b"it is there"
        self.kept[path] = body
        return 201, {}, b""


def serve_witness(witness: Witness) -> Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]]:
    """What `serve` needs to be this witness."""

    def handle(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        answer: Answer = (
            witness.add_checkpoint(body)
            if method == "POST"
            else witness.checkpoint(path.removesuffix("/checkpoint")[1:])
        )
        return answer.status, {"content-type": answer.content_type}, answer.body.encode()

    return handle
