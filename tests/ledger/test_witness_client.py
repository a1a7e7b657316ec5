from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ledger.samples import KEY, ORIGIN, seal, write_segment
from ledger.witnesses import Tree, cosigner, make_witness, serve, serve_witness
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger import outbound
from mainstay.ledger.log import Log
from mainstay.ledger.note import add_signatures, format_checkpoint, sign_checkpoint, verify_note
from mainstay.ledger.outbound import MAX_ANSWER_BYTES, Outbound, Unanswered, check_url, persistently
from mainstay.ledger.witness import SIZE_TYPE
from mainstay.ledger.witness_client import MAX_AHEAD_SECONDS, WitnessClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.ledger.note import NoteSignature

WITNESS = cosigner("w1")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A log of 300 entries."""
    write_segment(tmp_path / "ledger", 300)
    seal(tmp_path / "ledger")
    return tmp_path / "ledger"


def cosign(ledger: Path, url: str, known_size: int = 0, *, answer_seconds: float = 5.0) -> list[NoteSignature]:
    """Ask for a cosignature of the log as it is."""
    log = Log(ledger)
    note = log.note()
    assert note is not None

    async def ask() -> list[NoteSignature]:
        async with Outbound(url, answer_seconds=answer_seconds) as http:
            return await WitnessClient(http, WITNESS.verifier).cosign(log, note, known_size)

    return asyncio.run(ask())


def test_a_witness_cosigns_a_log_as_it_grows(ledger: Path, tmp_path: Path) -> None:
    witness = make_witness(tmp_path / "w")
    with serve(serve_witness(witness)) as served:
        for known_size, count in [(0, 0), (300, 1), (301, 250), (551, 600)]:
            if count:
                write_segment(ledger, count)
                seal(ledger)
            (signature,) = cosign(ledger, served.url, known_size)
            assert verify_note(add_signatures(Log(ledger).note() or b"", [signature]), WITNESS.verifier)
        assert served.requests == ["POST /add-checkpoint"] * 4
    witness.close()


def test_a_client_that_knows_nothing_or_wrong_learns_the_size_from_the_witness(ledger: Path, tmp_path: Path) -> None:
    witness = make_witness(tmp_path / "w")
    with serve(serve_witness(witness)) as served:
        cosign(ledger, served.url)
        write_segment(ledger, 100)
        seal(ledger)
        for known_size in (0, 17, 400, 10**9):
            served.requests.clear()
            cosign(ledger, served.url + "/", known_size)
            assert len(served.requests) <= 2
    witness.close()


def test_a_witness_that_knows_a_larger_log_says_that_this_one_lost_entries(ledger: Path, tmp_path: Path) -> None:
    witness = make_witness(tmp_path / "w")
    other = tmp_path / "other"
    write_segment(other, 500)
    seal(other)
    with serve(serve_witness(witness)) as served:
        cosign(other, served.url)
        with pytest.raises(Failed, match="has cosigned 500 entries of this log, which has 300 here"):
            cosign(ledger, served.url)
    witness.close()


def test_a_witness_that_knows_another_history_says_so(ledger: Path, tmp_path: Path) -> None:
    witness = make_witness(tmp_path / "w")
    witness.add_checkpoint(Tree.of(200).request(0, 200))
    with serve(serve_witness(witness)) as served, pytest.raises(Failed, match="ANOTHER HISTORY"):
        cosign(ledger, served.url)
    witness.close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (404, {}, b"unknown", "does not know this log"),
        (403, {}, b"no", "does not accept the log's signature"),
        (400, {}, b"what", "does not understand"),
        (302, {"location": "/elsewhere"}, b"", "answered 302"),
        (418, {}, b"\x1b[31mtea\x1b[0m", r"it refuses \( ?\[31mtea"),
        (200, {}, b"", "expected lines of cosignatures"),
        (200, {}, b"no signature\n", "expected lines of cosignatures"),
        (200, {}, b"\xff\n", "expected lines of cosignatures"),
        (
            200,
            {},
            cosigner("w2").cosign("text\n", 5).line.encode(),
            r"expected a cosignature by witness.example.com/w1",
        ),
        (200, {}, WITNESS.cosign("another text\n", 5).line.encode(), "not over this checkpoint"),
        (409, {"content-type": SIZE_TYPE}, b"300", "expected a number of entries"),
        (409, {"content-type": SIZE_TYPE}, b"0300\n", "expected a number of entries"),
        (409, {"content-type": SIZE_TYPE}, b"many\n", "expected a number of entries"),
        (409, {"content-type": "text/plain"}, b"300\n", "expected a number of entries"),
        (409, {"content-type": SIZE_TYPE}, b"0\n", "with the size it was given"),
        (200, {}, b"x" * (MAX_ANSWER_BYTES + 1), "at most"),
    ],
)
def test_what_a_witness_must_not_answer_is_told_plainly(
    ledger: Path, status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    with serve(lambda *_: (status, headers, body)) as served, pytest.raises(Failed, match=said) as failed:
        cosign(ledger, served.url)
    assert not isinstance(failed.value, Unanswered)


@pytest.mark.parametrize("ahead_seconds", [MAX_AHEAD_SECONDS + 60, 10**9])
def test_a_cosignature_from_the_future_is_refused(ledger: Path, ahead_seconds: int) -> None:
    text = format_checkpoint(Log(ledger).checkpoint() or Tree.of(1).checkpoint(1))
    line = WITNESS.cosign(text, int(time.time()) + ahead_seconds).line.encode()
    with serve(lambda *_: (200, {}, line)) as served, pytest.raises(Failed, match="mend the clocks"):
        cosign(ledger, served.url)


def test_cosignatures_of_unknown_keys_are_ignored(ledger: Path) -> None:
    text = format_checkpoint(Log(ledger).checkpoint() or Tree.of(1).checkpoint(1))
    lines = "".join(each.line for each in (cosigner("w2").cosign("other\n", 5), WITNESS.cosign(text, 7)))
    with serve(lambda *_: (200, {}, lines.encode())) as served:
        assert [each.name for each in cosign(ledger, served.url)] == [WITNESS.verifier.name]


def test_a_witness_that_always_names_another_size_is_left(ledger: Path) -> None:
    sizes = iter(range(1, 100))
    with (
        serve(lambda *_: (409, {"content-type": SIZE_TYPE}, b"%d\n" % next(sizes))) as served,
        pytest.raises(Unanswered, match="someone else submits too"),
    ):
        cosign(ledger, served.url)
    assert len(served.requests) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_bad_moment_is_one_to_ask_again_after(ledger: Path, status: int) -> None:
    with serve(lambda *_: (status, {}, b"later")) as served, pytest.raises(Unanswered, match=f"{status}: later"):
        cosign(ledger, served.url)


def test_nobody_there_is_a_moment_to_ask_again_after(ledger: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Unanswered, match="no answer"):
            cosign(ledger, f"http://127.0.0.1:{unused.getsockname()[1]}")


@contextmanager
def drip(first: bytes, piece: bytes) -> Iterator[str]:
    """A server that answers with `first` and then a piece every 20 ms for ever, as long as somebody listens."""
    stop = threading.Event()

    def run(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            try:
                connection.sendall(first)
                while not stop.wait(0.02):
                    connection.sendall(piece)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run, args=(server,))
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_an_answer_that_drips_is_given_up(ledger: Path, first: bytes, piece: bytes) -> None:
    with drip(first, piece) as url:
        began = time.monotonic()
        with pytest.raises(Unanswered, match=r"within 0\.5 s|no answer"):
            cosign(ledger, url, answer_seconds=0.5)
        assert time.monotonic() - began < 3


def test_trying_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "FIRST_WAIT_SECONDS", 0.001)
    calls: list[int] = []

    def attempt_that(succeeds_at: int) -> Callable[[], object]:
        async def attempt() -> str:
            calls.append(1)
            if len(calls) < succeeds_at:
                raise Unanswered("not now")
            return "done"

        return attempt

    assert asyncio.run(persistently(attempt_that(3))) == "done"  # type: ignore[arg-type]  # it is awaitable
    calls.clear()
    with pytest.raises(Unanswered):
        asyncio.run(persistently(attempt_that(99)))  # type: ignore[arg-type]  # it is awaitable
    assert len(calls) == outbound.ATTEMPTS


@pytest.mark.parametrize(
    "url",
    ["", "witness.example.com", "ftp://w.example.com", "http://", "https://w.example.com?x", "http://w.example.com#x"],
)
def test_what_is_no_address_of_a_witness_is_refused(url: str) -> None:
    with pytest.raises(Misuse, match="expected a URL such as"):
        check_url(url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(Misuse, match="netrc") as refused:
        check_url("https://user:secret@w.example.com")
    assert "secret" not in str(refused.value)


def test_passwords_come_from_the_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.write_text("machine 127.0.0.1 login ledger password secret\n")
    netrc.chmod(0o600)

    async def ask(url: str) -> int:
        async with Outbound(url) as http:
            return (await http.ask("GET")).status

    with serve(lambda *_: (200, {}, b"")) as served:
        assert asyncio.run(ask(served.url)) == 200
    netrc.write_text("nonsense")
    with pytest.raises(Misuse, match="netrc"):
        asyncio.run(ask("http://127.0.0.1:9"))


def test_the_checkpoint_a_witness_shows_is_one_that_it_cosigned(ledger: Path, tmp_path: Path) -> None:
    async def latest(url: str) -> bytes | None:
        async with Outbound(url) as http:
            return await WitnessClient(http, WITNESS.verifier).latest(ORIGIN)

    witness = make_witness(tmp_path / "w")
    with serve(serve_witness(witness)) as served:
        assert asyncio.run(latest(served.url)) is None
        cosign(ledger, served.url)
        assert verify_note(asyncio.run(latest(served.url)) or b"", WITNESS.verifier)
    witness.close()
    with serve(lambda *_: (200, {}, sign_checkpoint(Tree.of(5).checkpoint(5), KEY))) as served, pytest.raises(Damaged):
        asyncio.run(latest(served.url))
    with serve(lambda *_: (410, {}, b"gone")) as served, pytest.raises(Failed, match="410: gone"):
        asyncio.run(latest(served.url))
