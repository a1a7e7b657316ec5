from __future__ import annotations

import json
import re
import shutil
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cyclopts import App

import tiny
from decision.waiting import PROPOSED, Desk
from mainstay.catalog.releases import publish
from mainstay.cli import proofs
from mainstay.cli.common import Common
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.cosignature import CosigningKey
from mainstay.ledger.entry import commitment, format_id
from mainstay.ledger.log import Log
from mainstay.ledger.note import add_signatures, split_note
from mainstay.ledger.proof import Body, format_proof, parse_proof
from mainstay.ledger.sealer import Sealer, is_sealing
from mainstay.ledger.state import WITNESSED_FILE
from mainstay.ledger.wal import frame_entry
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEN = 1_790_000_000  # POSIX seconds: when a witness cosigned
WITNESS = CosigningKey("witness.example.com/w1", Ed25519PrivateKey.from_private_bytes(sha256(b"w1").digest()))
STRANGER = CosigningKey("witness.example.com/w2", Ed25519PrivateKey.from_private_bytes(sha256(b"w2").digest()))
POLICY = f"witness north {WITNESS.verifier.vkey}\nquorum north\n"


class Shell:
    """Runs the commands in this process: in a workspace to prove, and in a directory of its own to check."""

    def __init__(self, desk: Desk, capture: pytest.CaptureFixture[str], away: Path) -> None:
        self.desk = desk
        self.key = desk.workspace.keys / "signing.vkey"
        self.away = away
        self._capture = capture
        self._app = App(name="ledger", result_action="return_value")
        self._app.command(proofs.prove)
        self._app.command(proofs.check_proof)
        self._app.command(proofs.checkpoint)

    def run(self, *words: str | Path) -> str:
        """In the workspace."""
        return self._run(*words, "--workspace", self.desk.workspace.root)[1]

    def check(self, file: Path, *words: str | Path, key: bool = True) -> tuple[int, str]:
        """Where there is no workspace."""
        named = ("--public-key", self.key) if key else ()
        return self._run("check-proof", file, *named, *words, "--workspace", self.away)

    def _run(self, *words: str | Path) -> tuple[int, str]:
        code = self._app(list(map(str, words)), exit_on_error=False)
        return code, self._capture.readouterr().out

    def prove(self, entry_id: str, *words: str) -> Path:
        file = self.away / f"{entry_id}.tlog-proof"
        self.run("prove", entry_id, "--output", file, *words)
        return file

    def cosign(self, *keys: CosigningKey) -> None:
        """Keep the checkpoint as it is now with the cosignatures of witnesses, as publishing it does."""
        ledger = self.desk.workspace.ledger
        note = Log(ledger).note()
        assert note is not None
        text = split_note(note)[0]
        (ledger / WITNESSED_FILE).write_bytes(add_signatures(note, [key.cosign(text, SEEN) for key in keys]))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    desk = Desk(tmp_path / "w")
    (tmp_path / "away").mkdir()
    yield Shell(desk, capsys, tmp_path / "away")
    desk.segment.abandon()


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def facts(text: str) -> dict[str, str]:
    return {line[:13].strip(): line[14:] for line in text.splitlines() if not line.startswith("not shown")}


def not_shown(text: str) -> list[str]:
    return [line[14:] for line in text.splitlines() if line.startswith("not shown")]


def test_a_proof_tells_somebody_without_the_workspace_what_was_decided(shell: Shell) -> None:
    decision = shell.desk.leave(key="UA-1")
    shell.desk.seal()
    file = shell.prove(decision)
    code, text = shell.check(file)
    assert code == 0
    said = facts(text)
    assert said["PROVEN"] == "entry 2 of 3 in tests.example.com/desk"
    assert re.fullmatch(r"tests\.example\.com/desk \([0-9a-f]{8}\)", said["signed by"])
    assert said["version"] == shell.desk.version
    wanted = {"kind": "decision", "id": decision, "capability": "tiny", "release": "1", "outcome": "review"}
    assert wanted.items() <= said.items()
    assert "UA-1" not in text
    assert "UA-1" not in file.read_text()
    assert not_shown(text) == [
        "that others were shown this log, and when: nobody else signed it",
        "what was asked and answered: the proof holds no body",
    ]


def test_with_its_body_it_tells_what_was_asked_and_answered(shell: Shell) -> None:
    decision = shell.desk.leave(key="UA-1")
    shell.desk.seal()
    file = shell.prove(decision, "--with-body")
    assert file.stat().st_mode & 0o777 == 0o600
    said = facts(shell.check(file)[1])
    assert (said["key"], said["input"]) == ("UA-1", '{"a":1.5}')
    assert json.loads(said["details"])["proposed"] == PROPOSED
    found = json.loads(shell.check(file, "--json")[1])
    assert (found["proven"], found["body"]["input"], found["entry"]["id"]) == (True, {"a": 1.5}, decision)
    assert found["not_shown"] == ["that others were shown this log, and when: nobody else signed it"]


def test_a_proof_goes_to_the_terminal_and_through_a_pipe(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    printed = shell.run("prove", decision)
    assert printed == shell.prove(decision).read_text()
    made = json.loads(shell.run("prove", decision, "--json"))
    assert (made["proof"], made["file"], made["sequence"], made["with_body"]) == (printed, None, 2, False)
    with write(tmp_path / "piped", printed).open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        assert shell.check(Path("-"))[0] == 0


def test_what_was_made_is_said_with_the_command_that_checks_it(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    file = shell.away / "a proof.tlog-proof"
    said = facts(shell.run("prove", decision, "--output", file))
    assert said["shows"] == "entry 2 of 3 in tests.example.com/desk"
    assert (said["holds"], said["cosigned"]) == ("the leaf alone, nothing of the body", "by nobody yet")
    assert said["check"] == f"mainstay ledger check-proof '{file}' --public-key {shell.key}"


def test_a_wrong_proof_is_said_to_be_one_and_ends_with_1(shell: Shell) -> None:
    decision, other = shell.desk.leave(), shell.desk.leave()
    shell.desk.seal()
    file, proof = shell.prove(decision), parse_proof(shell.prove(other).read_bytes())
    wrong = write(shell.away / "wrong", format_proof(parse_proof(file.read_bytes())._replace(extra=proof.extra)))
    code, text = shell.check(wrong)
    assert (code, text.startswith("NOT PROVEN    proof: expected the leaf ")) == (1, True)
    code, text = shell.check(wrong, "--json")
    assert (code, json.loads(text)["proven"]) == (1, False)
    code, text = shell.check(write(shell.away / "none", "hello\n"))
    assert (code, "expected c2sp.org/tlog-proof@v1 on its first line" in text) == (1, True)


def test_a_question_that_cannot_be_asked_is_misuse(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    file = shell.prove(decision)
    with pytest.raises(Misuse, match="expected the public key of the log, found no workspace"):
        shell.check(file, key=False)
    with pytest.raises(Misuse, match="expected the public key of a log, found"):
        shell.check(file, "--public-key", write(shell.away / "no.vkey", "no key\n"), key=False)
    with pytest.raises(Misuse, match=r"expected a trust policy, found 1 problem(.|\n)*quorum"):
        shell.check(file, "--policy", write(shell.away / "policy", "quorum nobody\n"))
    with pytest.raises(Misuse, match="expected a readable file"):
        shell.check(shell.away / "absent")
    bare = write(shell.away / "bare", format_proof(parse_proof(file.read_bytes())._replace(extra=b"")))
    with pytest.raises(Misuse, match="the proof carries no leaf"):
        shell.check(bare)
    with pytest.raises(Misuse, match="no entry 'nothing'"):
        shell.run("prove", "nothing")


def test_a_proof_without_a_leaf_is_checked_with_the_leaf_beside_it(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    proof = parse_proof(shell.prove(decision).read_bytes())
    bare = write(shell.away / "bare", format_proof(proof._replace(extra=b"")))
    leaf = write(shell.away / "leaf", Log(shell.desk.workspace.ledger).entry(2).leaf)
    assert facts(shell.check(bare, "--leaf", leaf)[1])["id"] == decision
    assert shell.check(bare, "--leaf", write(shell.away / "other", b"{}"))[0] == 1


def test_the_newest_cosigned_checkpoint_is_preferred_when_it_covers_the_entry(shell: Shell) -> None:
    first = shell.desk.leave()
    shell.desk.seal()
    shell.cosign(WITNESS)
    second = shell.desk.leave()
    shell.desk.seal()
    old, new = shell.prove(first), shell.prove(second)
    assert facts(shell.check(old)[1])["PROVEN"] == "entry 2 of 3 in tests.example.com/desk"
    assert facts(shell.check(new)[1])["PROVEN"] == "entry 3 of 4 in tests.example.com/desk"
    assert not_shown(shell.check(old)[1])[0].endswith("witness.example.com/w1 signed it too, which --policy verifies")
    policy = write(shell.away / "policy", POLICY)
    code, text = shell.check(old, "--policy", policy)
    assert (code, facts(text)["cosigned"]) == (0, "by north (witness.example.com/w1) at 2026-09-21T14:13:20Z")
    assert not_shown(text) == ["what was asked and answered: the proof holds no body"]
    [seen] = json.loads(shell.check(old, "--policy", policy, "--json")[1])["cosigned"]
    assert seen == {"witness": "north", "key": WITNESS.verifier.name, "at": "2026-09-21T14:13:20Z"}
    code, text = shell.check(new, "--policy", policy)
    assert (code, text) == (
        1,
        "NOT PROVEN    expected the quorum of the policy to have cosigned, found nobody; missing: north\n",
    )


def test_a_policy_that_names_the_log_stands_in_place_of_the_key(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    shell.cosign(WITNESS, STRANGER)
    file = shell.prove(decision)
    policy = write(shell.away / "policy", f"log {shell.key.read_text()}{POLICY}")
    assert shell.check(file, "--policy", policy, key=False)[0] == 0
    stranger = load_signing_key(Desk(shell.away / "w2").workspace.keys, None).verifier.vkey
    other = write(shell.away / "other", f"log {stranger}\n{POLICY}")
    for key in (True, False):
        code, text = shell.check(file, "--policy", other, key=key)
        assert (code, "expected a signature by tests.example.com/desk" in text) == (1, True)
    unasked = write(shell.away / "none", "quorum none\n")
    assert not_shown(shell.check(file, "--policy", unasked)[1])[0].endswith(
        "signed it too, and the policy names none of them"
    )


def test_a_false_cosignature_is_no_cosignature(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    shell.cosign(WITNESS)
    proof = parse_proof(shell.prove(decision).read_bytes())
    text, [own, witness] = split_note(proof.note)
    later = witness._replace(signature=(SEEN + 1).to_bytes(8, "big") + witness.signature[8:])
    note = add_signatures(f"{text}\n{own.line}".encode(), [later])
    file = write(shell.away / "false", format_proof(proof._replace(note=note)))
    code, said = shell.check(file, "--policy", write(shell.away / "policy", POLICY))
    assert (code, "the signature by witness.example.com/w1 is not over this text" in said) == (1, True)


def test_a_log_that_is_not_the_one_witnesses_cosigned_proves_nothing(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    ledger = shell.desk.workspace.ledger
    other = Desk(shell.away / "w2")
    for _ in range(4):
        other.leave()
    other.seal()
    note = Log(other.workspace.ledger).note()
    assert note is not None
    (ledger / WITNESSED_FILE).write_bytes(note)
    with pytest.raises(Damaged, match="expected a log of 6 entries, as its checkpoint says, found 3"):
        shell.run("prove", decision)


def test_an_entry_that_is_not_sealed_waits_for_the_sealer_or_says_to_start_one(shell: Shell) -> None:
    decision = shell.desk.leave()
    with pytest.raises(Failed, match="recorded and not sealed yet, and nothing seals this ledger now") as refused:
        shell.run("prove", decision)
    assert "mainstay control" in refused.value.hint
    ledger, key = shell.desk.workspace.ledger, load_signing_key(shell.desk.workspace.keys, None)
    assert not is_sealing(ledger)
    with Sealer(ledger, key, shell.desk.workspace.settings.log) as sealer:
        assert is_sealing(ledger)
        later = threading.Timer(0.3, sealer.seal_once)
        later.start()
        assert "index 2" in shell.run("prove", decision)
        later.join()
    assert not is_sealing(ledger)


def test_a_sealer_that_does_not_come_to_it_is_not_waited_for_for_ever(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = shell.desk.leave()
    monkeypatch.setattr(proofs, "MAX_WAIT_SECONDS", 0.2)
    key = load_signing_key(shell.desk.workspace.keys, None)
    with Sealer(shell.desk.workspace.ledger, key, shell.desk.workspace.settings.log):
        begun = time.monotonic()
        with pytest.raises(Failed, match="was not sealed in time"):
            shell.run("prove", decision)
        assert time.monotonic() - begun < 5


def test_a_body_is_given_only_to_those_who_may_see_it_and_a_leaf_to_all(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    workspace = shell.desk.workspace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "AUTHORITY", tiny.AUTHORITY.replace('[Mainstay::Action::"see", ', "["))
        version = tiny.store(workspace)
    key = load_signing_key(workspace.keys, None)
    publish(workspace, tiny.NAME, version, key=key, reason="a test", principal="os:test")
    with pytest.raises(Misuse, match="see"):
        shell.run("prove", decision, "--with-body")
    assert shell.run("prove", decision).startswith("c2sp.org/tlog-proof@v1\n")


def test_a_proof_replaces_a_proof_and_nothing_else(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    assert shell.prove(decision) == shell.prove(decision)
    other = write(shell.away / "notes.txt", "important")
    with pytest.raises(Misuse, match="exists and is no proof"):
        shell.run("prove", decision, "--output", other)
    assert other.read_text() == "important"
    with pytest.raises(Misuse, match="expected a file that can be written"):
        shell.run("prove", decision, "--output", other / "below")


def test_what_a_leaf_says_cannot_steer_the_terminal(shell: Shell) -> None:
    segment = shell.desk.segment
    body = Body(bytes(16), b'{"key":"\\u001b[31mred","input":"\xe2\x80\xaeright to left"}')
    entry_id = format_id(segment.name, 0, 1)
    leaf = json.dumps(
        {
            "kind": "decision",
            "id": entry_id,
            "at": "x\u0007",
            "cosigned": "by north",
            "body": commitment(*body),
            "[red]": "\u009b2J",
        }
    )
    segment.append([frame_entry(leaf.encode(), *body)], 1)
    shell.desk.seal()
    code, text = shell.check(shell.prove(entry_id, "--with-body"))
    assert code == 0
    assert all(line.isprintable() for line in text.splitlines())
    assert "\n  [red]       " in text
    assert "\n  cosigned " in text
    assert "\ncosigned " not in text


def test_a_body_that_makes_a_line_some_programs_do_not_read_is_told(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = shell.desk.segment
    entry_id, body = format_id(segment.name, 0, 1), Body(bytes(16), b'{"input":"%b"}' % (b"x" * 60_000))
    leaf = json.dumps({"kind": "decision", "id": entry_id, "at": "then", "body": commitment(*body)}).encode()
    segment.append([frame_entry(leaf, *body)], 1)
    shell.desk.seal()
    root = shell.desk.workspace.root
    proofs.prove(entry_id, with_body=True, output=shell.away / "long", common=Common(workspace=root))
    assert "longer than 64 KiB" in capsys.readouterr().err
    proofs.prove(entry_id, output=shell.away / "short", common=Common(workspace=root))
    assert capsys.readouterr().err == ""
    assert shell.check(shell.away / "long")[0] == 0


def receipt_of(shell: Shell, decision: str) -> dict[str, Any]:
    """The answer of a decision, as far as it is asked about here."""
    entry = Log(shell.desk.workspace.ledger).entry(2)
    leaf = json.loads(entry.leaf)
    return {
        "decision_id": decision,
        **{name: leaf[name] for name in ("capability", "version", "release", "stage", "outcome")},
        "output": None,
        "reasons": [{"code": code, "detail": "said"} for code in leaf["reasons"]],
        "receipt": {"leaf": entry.leaf_hash.hex(), "log": "tests.example.com/desk", "recorded_at": leaf["at"]},
    }


def test_an_answer_that_was_kept_is_held_against_the_proof(shell: Shell) -> None:
    decision = shell.desk.leave()
    shell.desk.seal()
    file, answer = shell.prove(decision), receipt_of(shell, decision)
    kept = write(shell.away / "answer.json", json.dumps(answer))
    code, text = shell.check(file, "--receipt", kept)
    assert (code, facts(text)["receipt"]) == (0, "the answer is of this entry")
    assert not_shown(text)[-1] == "the answer's output: there is nothing to hold it against"
    with_body = shell.prove(decision, "--with-body")
    told = write(shell.away / "told.json", json.dumps(answer | {"output": {"probability": 0.7}}))
    code, text = shell.check(with_body, "--receipt", told)
    assert (code, not_shown(text)[-1].startswith("the answer's output: what was recorded of it differs")) == (0, True)
    code, text = shell.check(file, "--receipt", write(kept, json.dumps(answer | {"outcome": "answered", "release": 2})))
    assert code == 1
    assert "release: the log says 1, the answer 2; outcome: the log says 'review', the answer 'answered'" in text
    with pytest.raises(Misuse, match="expected the JSON of an answer with its receipt"):
        shell.check(file, "--receipt", write(kept, "{}"))


def test_the_checkpoint_is_printed_and_kept(shell: Shell) -> None:
    with pytest.raises(Failed, match="nothing was ever sealed"):
        shell.run("checkpoint")
    shell.desk.seal()
    note = Log(shell.desk.workspace.ledger).note()
    assert note is not None
    assert shell.run("checkpoint") == note.decode()
    kept = shell.away / "kept" / "checkpoint"
    assert shell.run("checkpoint", "--output", kept) == f"{kept}: 2 entries of tests.example.com/desk\n"
    assert kept.read_bytes() == note
    shell.desk.leave()
    shell.desk.seal()
    found = json.loads(shell.run("checkpoint", "--output", kept, "--json"))
    assert (found["size"], found["checkpoint"]) == (3, kept.read_text())


def test_a_kept_checkpoint_that_the_log_does_not_extend_is_left_as_it_is(shell: Shell) -> None:
    shell.desk.leave()
    shell.desk.seal()
    workspace = shell.desk.workspace
    kept = shell.away / "checkpoint"
    shell.run("checkpoint", "--output", kept)
    before = kept.read_bytes()
    other = Desk(shell.away / "w2")  # the same log, written anew with the same key
    for name in ("signing.pem", "signing.vkey"):
        shutil.copy(workspace.keys / name, other.workspace.keys / name)
    again = Shell(other, shell._capture, shell.away)
    other.seal()
    with pytest.raises(Failed, match="has 3 entries and was left as it is: the log has only 2 now"):
        again.run("checkpoint", "--output", kept)
    other.leave()
    other.leave()
    other.seal()
    with pytest.raises(Failed, match="the log does not extend the 3 entries it had then"):
        again.run("checkpoint", "--output", kept)
    assert kept.read_bytes() == before
    with pytest.raises(Misuse, match="is no checkpoint of this log and was left as it is"):
        again.run("checkpoint", "--output", write(shell.away / "notes", "important"))
