"""The rules of c2sp.org/tlog-witness, one by one, as they are in the specification."""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN, die_at, fork, reap
from ledger.witnesses import Tree, cosigner, make_witness, request
from mainstay.errors import Damaged, Misuse
from mainstay.ledger.cosignature import time_of
from mainstay.ledger.merkle import EMPTY_ROOT
from mainstay.ledger.note import (
    Checkpoint,
    add_signatures,
    format_checkpoint,
    parse_signatures,
    sign_checkpoint,
    sign_note,
    split_note,
    verify_note,
)
from mainstay.ledger.witness import (
    MAX_PROOF_LINES,
    SIZE_TYPE,
    Witness,
    add_log,
    create_witness,
    load_witness_key,
    origin_hash,
)
from mainstay.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TREE = Tree.of(300)
FORK = Tree.of(300, "another leaf")
FOLDER = origin_hash(ORIGIN)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    made = make_witness(tmp_path / "w")
    yield made
    made.close()


def status(witness: Witness, body: bytes) -> int:
    return witness.add_checkpoint(body).status


def test_a_checkpoint_that_extends_the_last_is_cosigned(witness: Witness) -> None:
    for old_size, size in [(0, 100), (100, 130), (130, 256), (256, 300)]:
        answer = witness.add_checkpoint(TREE.request(old_size, size))
        assert answer.status == 200
        (signature,) = parse_signatures(answer.body)
        assert verify_note(add_signatures(TREE.note(size), [signature]), cosigner("w1").verifier)
        assert time_of(signature.signature) == 1_000


def test_the_same_checkpoint_is_cosigned_again(witness: Witness) -> None:
    assert status(witness, TREE.request(0, 100)) == 200
    assert status(witness, TREE.request(100, 100)) == 200
    assert status(witness, TREE.request(100, 130)) == 200


def test_an_unknown_origin_is_404(witness: Witness) -> None:
    other = SigningKey("log.example.com/other", Ed25519PrivateKey.generate())
    checkpoint = Checkpoint(other.name, 1, bytes(32))
    assert status(witness, request(0, [], sign_checkpoint(checkpoint, other))) == 404
    assert status(witness, request(0, [], sign_checkpoint(checkpoint, KEY))) == 404


def test_without_a_signature_by_a_trusted_key_it_is_403(witness: Witness) -> None:
    unknown = SigningKey(ORIGIN, Ed25519PrivateKey.generate())
    assert status(witness, request(0, [], sign_checkpoint(TREE.checkpoint(5), unknown))) == 403


def test_a_wrong_signature_of_a_trusted_key_is_403_even_beside_a_right_one(witness: Witness) -> None:
    wrong = split_note(sign_note("another text\n", KEY))[1]
    text = format_checkpoint(TREE.checkpoint(5))
    assert status(witness, request(0, [], f"{text}\n{wrong[0].line}".encode())) == 403
    beside = TREE.note(5) + wrong[0].line.encode()
    assert status(witness, request(0, [], beside)) == 403


def test_signatures_of_unknown_keys_are_ignored(witness: Witness) -> None:
    unknown = SigningKey("somebody.example.com", Ed25519PrivateKey.generate())
    wrong = split_note(sign_note("another text\n", unknown))[1]
    assert status(witness, request(0, [], TREE.note(5) + wrong[0].line.encode())) == 200


def test_an_old_size_above_the_checkpoints_is_400(witness: Witness) -> None:
    assert status(witness, TREE.request(0, 100)) == 200
    assert status(witness, request(101, [], TREE.note(100))) == 400
    assert status(witness, request(100, [], TREE.note(99))) == 400


def test_another_old_size_is_409_with_the_size_that_was_cosigned(witness: Witness) -> None:
    first = witness.add_checkpoint(TREE.request(7, 100))
    assert (first.status, first.body, first.content_type) == (409, "0\n", SIZE_TYPE)
    assert SIZE_TYPE == "text/x.tlog.size"
    assert status(witness, TREE.request(0, 100)) == 200
    for old_size in (0, 99, 101):
        answer = witness.add_checkpoint(TREE.request(old_size, 300))
        assert (answer.status, answer.body, answer.content_type) == (409, "100\n", SIZE_TYPE)


def test_the_empty_tree_must_have_the_head_of_the_empty_tree(witness: Witness) -> None:
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert status(witness, request(0, [], sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), KEY))) == 422
    assert status(witness, request(0, [], sign_checkpoint(empty, KEY))) == 200
    assert status(witness, request(0, [], sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), KEY))) == 422
    assert status(witness, TREE.request(0, 100)) == 200


def test_a_proof_from_the_empty_tree_must_be_empty(witness: Witness) -> None:
    assert status(witness, TREE.request(0, 100, [bytes(32)])) == 422
    assert status(witness, TREE.request(0, 100)) == 200


def test_a_proof_that_does_not_verify_is_422_and_changes_nothing(witness: Witness) -> None:
    assert status(witness, TREE.request(0, 100)) == 200
    proof = TREE.proof(100, 300)
    for wrong in ([], proof[:-1], [*proof, bytes(32)], proof[::-1], FORK.proof(100, 300)):
        assert status(witness, TREE.request(100, 300, wrong)) == 422
    assert status(witness, FORK.request(100, 300)) == 422
    assert status(witness, TREE.request(100, 300)) == 200


def test_the_same_size_with_another_head_is_422(witness: Witness) -> None:
    assert status(witness, TREE.request(0, 100)) == 200
    assert status(witness, FORK.request(100, 100)) == 422
    assert status(witness, TREE.request(100, 100, [bytes(32)])) == 422
    assert status(witness, TREE.request(100, 100)) == 200


HASH = b64encode(bytes(32))
NOTE = TREE.note(100)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 0\n\n",
        b"old 0\n" + NOTE,
        b"\n\n" + NOTE,
        b"old\n\n" + NOTE,
        b"old -1\n\n" + NOTE,
        b"old 00\n\n" + NOTE,
        b"old 01\n\n" + NOTE,
        b"old 1e1\n\n" + NOTE,
        b"old  0\n\n" + NOTE,
        b"old\t0\n\n" + NOTE,
        b"old 0 \n\n" + NOTE,
        b"old 0\r\n\r\n" + NOTE,
        b"OLD 0\n\n" + NOTE,
        b"old " + b"9" * 20 + b"\n\n" + NOTE,
        "old \N{ARABIC-INDIC DIGIT ONE}\n\n".encode() + NOTE,
        b"old 0\n" + HASH[:-1] + b"\n\n" + NOTE,
        b"old 0\n" + b64encode(bytes(31)) + b"\n\n" + NOTE,
        b"old 0\n" + b64encode(bytes(33)) + b"\n\n" + NOTE,
        b"old 0\n " + HASH + b"\n\n" + NOTE,
        b"old 0\n" + HASH[:-2] + b"B=\n\n" + NOTE,
        b"old 0\n" + (HASH + b"\n") * (MAX_PROOF_LINES + 1) + b"\n" + NOTE,
        b"old 0\n\nno note",
        b"old 0\n\n" + NOTE[:-1],
        b"old 0\n\n" + sign_note("no checkpoint\n", KEY),
        b"old 0\n\n" + sign_note(f"{ORIGIN}\n01\n{HASH.decode()}\n", KEY),
    ],
)
def test_a_request_that_is_none_is_400(witness: Witness, body: bytes) -> None:
    assert status(witness, body) == 400


def test_sixty_three_lines_of_proof_are_read(witness: Witness) -> None:
    assert status(witness, b"old 0\n" + (HASH + b"\n") * MAX_PROOF_LINES + b"\n" + NOTE) == 422


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_request_are_400_or_404_and_nothing_else(content: bytes) -> None:
    unborn = object.__new__(Witness)  # it would have to look for nothing
    for body in (content, b"old 0\n" + content, b"old 0\n\n" + content):
        assert unborn.add_checkpoint(body).status == 400


def test_the_checkpoint_is_served_with_both_signatures_and_no_other(witness: Witness) -> None:
    assert witness.checkpoint(FOLDER).status == 404
    unknown = split_note(
        sign_checkpoint(TREE.checkpoint(100), SigningKey("x.example.com", Ed25519PrivateKey.generate()))
    )
    note = add_signatures(TREE.note(100), unknown[1])
    answer = witness.add_checkpoint(request(0, [], note))
    served = witness.checkpoint(FOLDER)
    assert served.status == 200
    text, signatures = split_note(served.body.encode())
    assert text == format_checkpoint(TREE.checkpoint(100))
    assert [each.line for each in signatures][1] == answer.body
    assert [each.name for each in signatures] == [ORIGIN, "witness.example.com/w1"]
    for wrong in ("", "..", FOLDER.upper(), "0" * 64, f"{FOLDER}/.."):
        assert witness.checkpoint(wrong).status == 404


def test_extension_lines_are_cosigned_as_they_are(witness: Witness) -> None:
    checkpoint = Checkpoint(ORIGIN, 100, TREE.checkpoint(100).root, ("an extension",))
    note = sign_checkpoint(checkpoint, KEY)
    answer = witness.add_checkpoint(request(0, [], note))
    assert verify_note(add_signatures(note, parse_signatures(answer.body)), cosigner("w1").verifier).count("\n") == 4


def test_what_was_cosigned_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    first = make_witness(tmp_path / "w")
    assert status(first, TREE.request(0, 100)) == 200
    first.close()
    second = make_witness(tmp_path / "w")
    assert status(second, TREE.request(0, 130)) == 409
    assert status(second, FORK.request(100, 130)) == 422
    assert status(second, TREE.request(100, 130)) == 200
    second.close()


def test_a_clock_that_was_set_back_makes_no_newer_tree_older(tmp_path: Path) -> None:
    now = 5_000.0
    witness = make_witness(tmp_path / "w", clock=lambda: now)
    times = []
    for old_size, size, now in [(0, 10, 5_000.0), (10, 20, 3_000.0), (20, 30, 6_000.0)]:  # noqa: B007 - the clock's
        (signature,) = parse_signatures(witness.add_checkpoint(TREE.request(old_size, size)).body)
        times.append(time_of(signature.signature))
    assert times == [5_000, 5_000, 6_000]
    witness.close()


def test_a_witness_is_served_by_one_process_only(tmp_path: Path, witness: Witness) -> None:
    with pytest.raises(Misuse, match="served already"):
        make_witness(tmp_path / "w")


def test_of_requests_at_once_those_that_come_late_are_told_the_size(witness: Witness) -> None:
    barrier = threading.Barrier(8)

    def submit(size: int) -> tuple[int, int]:
        barrier.wait()
        return status(witness, TREE.request(0, size)), size

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(submit, range(10, 18)))
    (won,) = [size for code, size in results if code == 200]
    assert sorted(code for code, _ in results) == [200] + [409] * 7
    assert witness.add_checkpoint(TREE.request(0, 300)).body == f"{won}\n"


def test_a_checkpoint_that_was_changed_on_the_disk_stops_the_witness(tmp_path: Path, witness: Witness) -> None:
    assert status(witness, TREE.request(0, 100)) == 200
    path = tmp_path / "w" / "logs" / FOLDER / "checkpoint"
    good = path.read_bytes()
    for changed in (good.replace(b"100\n", b"010\n"), good[:-9], b"", TREE.note(50)):
        path.write_bytes(changed)
        with pytest.raises(Damaged):
            witness.add_checkpoint(TREE.request(50, 130))
    path.write_bytes(good)
    assert status(witness, TREE.request(100, 130)) == 200


def test_a_disk_that_takes_nothing_stops_the_witness(tmp_path: Path, witness: Witness) -> None:
    folder = tmp_path / "w" / "logs" / FOLDER
    (folder / "checkpoint").mkdir()
    with pytest.raises(OSError, match="directory"):
        witness.add_checkpoint(TREE.request(0, 100))
    (folder / "checkpoint").rmdir()
    assert status(witness, TREE.request(0, 100)) == 200


def test_a_witness_killed_in_front_of_any_change_to_the_disk_has_cosigned_what_it_remembers(tmp_path: Path) -> None:
    """Its answer leaves only when the checkpoint is durable; killed before that, either may be on the disk."""
    remembered = []
    for step in range(20):
        directory = tmp_path / str(step)
        witness = make_witness(directory)
        assert status(witness, TREE.request(0, 100)) == 200
        witness.close()
        reading, writing = os.pipe()

        def run(step: int = step, directory: Path = directory, writing: int = writing) -> None:
            witness = make_witness(directory)
            die_at(step)
            os.write(writing, witness.add_checkpoint(TREE.request(100, 130)).body.encode())

        ended = reap(fork(run))
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read().decode()
        witness = make_witness(directory)
        (size,) = [int(line) for line in witness.add_checkpoint(TREE.request(7, 300)).body.splitlines()]
        assert size == 130 if answer else size in {100, 130}
        assert status(witness, FORK.request(size, 300)) == 422
        assert status(witness, TREE.request(size, 300)) == 200
        witness.close()
        remembered.append((size, bool(answer)))
        if ended:
            break
    assert {(100, False), (130, False), (130, True)} <= set(remembered), remembered


def test_a_log_may_have_several_keys_and_another_origin_than_its_keys_name(tmp_path: Path, witness: Witness) -> None:
    second = SigningKey("keys.example.com/2", Ed25519PrivateKey.generate())
    assert status(witness, request(0, [], sign_checkpoint(TREE.checkpoint(5), second))) == 403
    assert add_log(tmp_path / "w", second.verifier.vkey, ORIGIN) == (ORIGIN, True)
    assert add_log(tmp_path / "w", second.verifier.vkey, ORIGIN) == (ORIGIN, False)
    assert status(witness, request(0, [], sign_checkpoint(TREE.checkpoint(5), second))) == 200
    assert status(witness, TREE.request(5, 10)) == 200


def test_a_log_may_sign_as_cosigners_do(tmp_path: Path, witness: Witness) -> None:
    log = cosigner("log")
    add_log(tmp_path / "w", log.verifier.vkey)
    text = format_checkpoint(Checkpoint(log.verifier.name, 5, TREE.checkpoint(5).root))
    assert status(witness, request(0, [], f"{text}\n{log.cosign(text, 5).line}".encode())) == 200


@pytest.mark.parametrize("algorithm", ["ed25519", "ml-dsa-44"])
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_the_key_of_a_witness_is_loaded_as_it_was_made(
    tmp_path: Path, algorithm: str, passphrase: bytes | None
) -> None:
    made = create_witness(
        tmp_path / "w", "w.example.com", "ed25519" if algorithm == "ed25519" else "ml-dsa-44", passphrase
    )
    loaded = load_witness_key(tmp_path / "w", passphrase)
    text = format_checkpoint(TREE.checkpoint(5))
    assert loaded.verifier.vkey == made.verifier.vkey == (tmp_path / "w" / "witness.vkey").read_text().strip()
    assert made.verifier.verify(text.encode(), loaded.cosign(text, 5).signature)
    with pytest.raises(Misuse, match="exists already"):
        create_witness(tmp_path / "w", "w.example.com", "ed25519", passphrase)
    with pytest.raises(Misuse, match="passphrase"):
        load_witness_key(tmp_path / "w", b"battery staple" if passphrase else b"one too many")


def test_a_key_that_nobody_was_told_of_is_made_anew(tmp_path: Path) -> None:
    create_witness(tmp_path, "w.example.com", "ed25519", None)
    (tmp_path / "witness.vkey").unlink()  # killed before it was written
    made = create_witness(tmp_path, "w.example.com", "ed25519", None)
    assert load_witness_key(tmp_path, None).verifier.vkey == made.verifier.vkey


def test_what_is_no_witness_or_no_log_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no witness"):
        load_witness_key(tmp_path, None)
    with pytest.raises(Misuse, match="no witness"):
        add_log(tmp_path, KEY.verifier.vkey)
    create_witness(tmp_path, "w.example.com", "ed25519", None)
    with pytest.raises(Damaged, match="verifier key"):
        add_log(tmp_path, "nonsense")
    for origin in ("", "two\nlines", "x" * 256):
        with pytest.raises(Misuse, match="origin"):
            add_log(tmp_path, KEY.verifier.vkey, origin)
    other = create_witness(tmp_path / "other", "w.example.com", "ed25519", None)
    (tmp_path / "witness.vkey").write_text(other.verifier.vkey + "\n")
    with pytest.raises(Damaged, match="different ones"):
        load_witness_key(tmp_path, None)
