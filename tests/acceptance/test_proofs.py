"""Proofs as people pass them on: made beside a running service, checked elsewhere, by us and by a reader of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tiny
from ledger.samples import KEY, seal, write_segment
from mainstay.ledger.log import Log
from mainstay.ledger.proof import Body, format_proof, pack_entry, parse_proof, prove_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "ledger.md"


def run(*words: str | Path, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mainstay.cli.main", *map(str, words)]
    given = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")} | environment
    return subprocess.run(
        command, cwd=cwd, env=given, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("proofs") / "w")
    with tiny.up(workspace, token) as up:
        yield up


def test_an_answer_is_proven_to_somebody_with_the_key_alone(served: tiny.Up, tmp_path: Path) -> None:
    root = served.workspace.root
    asked = run(
        *("decide", "tiny", "--input", "-", "--key", "UA-1", "--json"),
        cwd=root,
        stdin='{"a": 1, "b": 2}',
        MAINSTAY_API_KEY=served.token,
    )
    (tmp_path / "answer.json").write_text(asked.stdout)
    answer = json.loads(asked.stdout)
    file = tmp_path / "it.tlog-proof"
    made = run("ledger", "prove", answer["decision_id"], "--with-body", "--output", file, cwd=root)
    assert made.returncode == 0, made.stderr
    (tmp_path / "signing.vkey").write_bytes((served.workspace.keys / "signing.vkey").read_bytes())
    words = ("ledger", "check-proof", file.name, "--public-key", "signing.vkey", "--receipt", "answer.json")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = {line[:13].strip(): line[14:] for line in done.stdout.splitlines()}
    assert (said["id"], said["key"]) == (answer["decision_id"], "UA-1")
    assert json.loads(said["output"]) == answer["output"]
    assert said["receipt"] == "the answer is of this entry, its output is the recorded one"
    (tmp_path / "answer.json").write_text(json.dumps(answer | {"release": 9}))
    wrong = run(*words, cwd=tmp_path)
    assert (wrong.returncode, "release: the log says 1, the answer 9" in wrong.stdout) == (1, True)
    without = run("ledger", "check-proof", file.name, cwd=tmp_path)
    assert (without.returncode, "--public-key" in without.stderr) == (2, True)


def test_an_answer_given_this_moment_is_waited_for(served: tiny.Up) -> None:
    asked = run(
        *("decide", "tiny", "--input", "-", "--json"),
        cwd=served.workspace.root,
        stdin='{"a": 3, "b": 2}',
        MAINSTAY_API_KEY=served.token,
    )
    made = run("ledger", "prove", json.loads(asked.stdout)["decision_id"], cwd=served.workspace.root)
    assert (made.returncode, made.stdout.partition("\n")[0]) == (0, "c2sp.org/tlog-proof@v1"), made.stderr


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier that the reference prints, as a file."""
    [block] = re.findall(r"^```python\n(import base64.*?)^```$", REFERENCE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert "mainstay" not in block.lower()
    path = tmp_path_factory.mktemp("reader") / "reader.py"
    path.write_text(block)
    (path.parent / "log.vkey").write_text(KEY.verifier.vkey + "\n")
    return path


def read(reader: Path, content: bytes) -> tuple[int, str]:
    file = reader.with_name("it.tlog-proof")
    file.write_bytes(content)
    command = [sys.executable, "-I", *map(str, (reader, file, reader.with_name("log.vkey")))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def test_the_reader_in_the_reference_reads_our_proofs_and_no_false_ones(tmp_path: Path, reader: Path) -> None:
    entries = []
    for count in (1, 255, 345):
        entries += write_segment(tmp_path, count)
        seal(tmp_path)
    assert Log(tmp_path).size == 601
    for sequence, with_body in ((0, True), (255, False), (300, True), (600, False)):
        made = prove_entry(tmp_path, sequence, entries[sequence], KEY.verifier, with_body=with_body)
        lines = entries[sequence][:3:2] if with_body else entries[sequence][:1]
        assert read(reader, made.content) == (0, "".join(f"{line.decode()}\n" for line in lines))
    entry, other = entries[600], entries[3]
    proof = parse_proof(prove_entry(tmp_path, 600, entry, KEY.verifier).content)
    for false in (
        proof._replace(sequence=599),
        proof._replace(sequence=601),
        proof._replace(hashes=proof.hashes[::-1]),
        proof._replace(hashes=(*proof.hashes, proof.hashes[0])),
        proof._replace(extra=pack_entry(other.leaf, None)),
        proof._replace(extra=pack_entry(entry.leaf, Body(other.salt, other.body))),
        proof._replace(note=proof.note.replace(b"\n601\n", b"\n602\n")),
    ):
        assert read(reader, format_proof(false))[0] == 1
