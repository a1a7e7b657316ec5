"""Models that others made: ONNX files, and the signatures beside model files."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from catalog.test_trust import CONTENT, make_keys, sign
from fuzz.mutations import FUZZ, HOSTILE, mutated, mutated_json
from mainstay.catalog.graph import CLASSES_PROPERTY, understand_classes
from mainstay.catalog.trust import read_public_key, verify_signature
from mainstay.errors import Failed, MainstayError, Misuse
from mainstay.runtime.types import ModelOutput

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.catalog.trust import PublicKey

GRAPHS = 2_000
LEAST_OPENED = 10  # of them; else what is tried is nothing but rubbish

# In a process of its own: what this looks for is a crash of the library that reads the file, or memory without bound.
READ_GRAPHS = """
import random, resource, sys
import numpy as np
from mainstay.catalog.graph import Graph, understand_classes, understand_outputs
from mainstay.errors import MainstayError
from mainstay.runtime.types import Feature

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
valid, count = sys.stdin.buffer.read(), int(sys.argv[1])
features = (Feature("a", "number", nullable=False), Feature("b", "number", nullable=True))
rows = [(0.5, 0.25), (1.0, -4.0), (1e300, None)]
opened = 0
for seed in range(count):
    draw = random.Random(seed)
    content = bytearray(valid)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(content))
        match draw.randrange(5):
            case 0: content[at] ^= 1 << draw.randrange(8)
            case 1: content[at] = draw.choice((0, 1, 127, 128, 255))
            case 2: del content[at : at + draw.randint(1, 20)]
            case 3: content[at:at] = content[draw.randrange(len(content)) :][: draw.randint(1, 200)]
            case _: content[at:at] = draw.randbytes(draw.randint(1, 9))
    print(seed, flush=True)
    try:
        graph = Graph(bytes(content))
        opened += 1
        with np.errstate(all="ignore"):
            tensors = graph.run(graph.inputs(features), ("a", "b"), graph.output_names, rows)
        understand_classes(understand_outputs(tensors, len(rows)), tensors, graph.metadata)
    except MainstayError:
        pass
print("opened", opened)
"""


def test_a_changed_graph_is_refused_or_runs() -> None:
    command = [sys.executable, "-c", READ_GRAPHS, str(GRAPHS)]
    ended = subprocess.run(command, input=tiny.probability_graph(), capture_output=True, timeout=60, check=False)
    last = ended.stdout.decode().split()[-2:]
    assert ended.returncode == 0, (last, ended.stderr.decode()[-2_000:])
    assert last[0] == "opened"
    assert b"EP Error" not in ended.stdout, "ONNX Runtime tries again, and prints so"
    assert int(last[1]) > LEAST_OPENED


@FUZZ
@given(mutated_json(["a", "b"], [True, False], [1, 2]) | st.sampled_from(HOSTILE))
def test_class_names_of_a_graph_are_read_or_refused(content: bytes) -> None:
    outputs = (ModelOutput(name="p", role="probabilities"),)
    metadata = {CLASSES_PROPERTY: content.decode("utf-8", "replace")}
    with suppress(Misuse):
        assert len(understand_classes(outputs, {"p": np.zeros((3, 2))}, metadata)) == 2


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, PublicKey]:
    """A signature of CONTENT, and the key that made it."""
    folder: Path = tmp_path_factory.mktemp("signed")
    private, public = make_keys(folder)
    (folder / "m.joblib").write_bytes(CONTENT)
    return sign(folder / "m.joblib", private).read_bytes(), read_public_key(public)


@FUZZ
@given(st.data())
def test_a_changed_signature_is_refused_or_by_the_same_key(
    signed: tuple[bytes, PublicKey], data: st.DataObject
) -> None:
    signature, key = signed
    changed = data.draw(mutated_json(json.loads(signature)) | mutated(signature))
    with suppress(Misuse, Failed):
        assert verify_signature("m.joblib", CONTENT, changed, [key]) == key
    with pytest.raises(MainstayError):
        verify_signature("m.joblib", CONTENT + b"x", changed, [key])


@FUZZ
@given(st.data())
def test_a_changed_public_key_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    _, public = make_keys(tmp_path)
    public.write_bytes(data.draw(mutated(public.read_bytes(), (b"-----BEGIN", b"\x00", b"=", b"\n\n", b"PRIVATE"))))
    with suppress(Misuse):
        read_public_key(public)
