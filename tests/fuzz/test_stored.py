"""What Mainstay itself wrote, and somebody or some disk has changed: read as what it was, or said to be damaged.

The write-ahead log, tiles, notes, states and the table of last good answers are held to this by their own tests.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from fuzz.mutations import FUZZ, HOSTILE, mutated, mutated_json
from mainstay.authority.keys import PAYLOAD_TYPE, SNAPSHOT, create_key, list_keys, load_key_ring
from mainstay.catalog.conversion import _reply
from mainstay.catalog.profile import fit_profile
from mainstay.catalog.releases import CURRENT, read_current
from mainstay.catalog.types import MANIFEST, RELEASE_PAYLOAD, Calibration, Manifest
from mainstay.catalog.versions import digest_of, load_manifest
from mainstay.cli.common import signing_key
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.entry import Entry, read_id, read_leaf
from mainstay.ledger.index_key import KeyDigests
from mainstay.ledger.index_rows import Chunk
from mainstay.ledger.review_entries import read_resolution, read_waiting
from mainstay.ledger.wal import HEADER_BYTES, MAGIC, Segment, SegmentReader, frame_entry
from mainstay.runtime.calibration import Calibrator
from mainstay.runtime.novelty import Novelty, Profile
from mainstay.runtime.types import Feature
from mainstay.server.metrics import Counts, load_counts, render, total
from mainstay.server.supervisor import STATE_FILE, running_state
from mainstay.signing import PRIVATE_FILE, PUBLIC_FILE, load_signing_key, load_verifier, open_envelope, sign_envelope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With one release and two keys."""
    made, _ = tiny.make_served(tmp_path_factory.mktemp("stored") / "w")
    create_key(made.access, signing_key(made), name="second", capabilities=["*"], verbs=["read"])
    return made


@pytest.fixture(scope="module")
def key(workspace: Workspace) -> SigningKey:
    return signing_key(workspace)


# What is signed: the signature holds, and the content is another than this release of Mainstay writes.


@FUZZ
@given(st.data())
def test_a_signed_release_of_another_form_is_damaged(
    tmp_path: Path, workspace: Workspace, key: SigningKey, data: st.DataObject
) -> None:
    signed = (workspace.releases / tiny.NAME / CURRENT).read_bytes()
    document = json.loads(open_envelope(signed, RELEASE_PAYLOAD, key.verifier))
    content = data.draw(mutated_json(document) | st.sampled_from(HOSTILE))
    (tmp_path / tiny.NAME).mkdir(exist_ok=True)
    (tmp_path / tiny.NAME / CURRENT).write_bytes(sign_envelope(RELEASE_PAYLOAD, content, key))
    with suppress(Damaged):
        assert read_current(tmp_path, tiny.NAME, key.verifier).capability == tiny.NAME


@FUZZ
@given(st.data())
def test_a_signed_snapshot_of_keys_of_another_form_is_damaged(
    tmp_path: Path, workspace: Workspace, key: SigningKey, data: st.DataObject
) -> None:
    document = json.loads(open_envelope((workspace.access / SNAPSHOT).read_bytes(), PAYLOAD_TYPE, key.verifier))
    content = data.draw(mutated_json(document) | st.sampled_from(HOSTILE))
    (tmp_path / SNAPSHOT).write_bytes(sign_envelope(PAYLOAD_TYPE, content, key))
    with suppress(Damaged):
        load_key_ring(tmp_path, key.verifier).identify("ms_00000000_" + "A" * 43)


# What is signed, changed after.


@FUZZ
@given(st.data())
def test_a_changed_envelope_is_damaged_or_says_the_same(workspace: Workspace, data: st.DataObject) -> None:
    verifier = load_verifier(workspace.keys)
    content = (workspace.access / SNAPSHOT).read_bytes()
    payload = open_envelope(content, PAYLOAD_TYPE, verifier)
    changed = data.draw(mutated(content) | mutated_json(json.loads(content)))
    with suppress(Damaged):
        assert open_envelope(changed, PAYLOAD_TYPE, verifier) == payload
    assert len(list_keys(workspace.access, verifier)) == 2


def test_an_envelope_nested_without_end_is_damaged(key: SigningKey) -> None:
    content = b'{"payload": "", "payloadType": "x", "signatures": [{"keyid": "", "sig": "", "x": ' + b"[" * 100_000
    with pytest.raises(Damaged, match="expected DSSE JSON"):
        open_envelope(content, "x", key.verifier)


@FUZZ
@given(st.data())
def test_changed_key_files_are_told_and_never_used(tmp_path: Path, workspace: Workspace, data: st.DataObject) -> None:
    key = load_signing_key(workspace.keys, None)
    for name in (PRIVATE_FILE, PUBLIC_FILE):
        content = (workspace.keys / name).read_bytes()
        (tmp_path / name).write_bytes(data.draw(mutated(content) | st.just(content)))
    with suppress(Misuse, Damaged):
        assert load_signing_key(tmp_path, None).verifier.public_key == key.verifier.public_key


# Versions.


@FUZZ
@given(st.data())
def test_a_manifest_of_another_form_is_damaged_even_where_its_digest_holds(
    tmp_path: Path, workspace: Workspace, data: st.DataObject
) -> None:
    (stored,) = workspace.versions.glob(f"*/{MANIFEST}")
    content = data.draw(mutated_json(json.loads(stored.read_bytes())))
    digest = digest_of(content)
    folder = tmp_path / digest.removeprefix("sha256:")
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(content)
    with suppress(Damaged):
        assert isinstance(load_manifest(tmp_path, digest), Manifest)


CALIBRATION = {
    "method": "isotonic",
    "stated": [0.2, 0.5, 0.9],
    "calibrated": [0.1, 0.5, 0.5],
    "rows": 99,
    "error_before": 0.1,
    "error_after": 0.05,
}


@FUZZ
@given(mutated_json(CALIBRATION, *({**CALIBRATION, "stated": wrong} for wrong in ([], [0.5], [0.9, 0.5, 0.2]))))
def test_a_calibration_is_read_only_where_it_can_be_applied(content: bytes) -> None:
    try:
        calibration = msgspec.json.decode(content, type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    calibrated = Calibrator(calibration)([0.0, None, 0.3, 1.0, math.nan])
    assert [each is None for each in calibrated] == [False, True, False, False, True]


FEATURES = (
    Feature("a", "number", nullable=True),
    Feature("b", "number", nullable=True),
    Feature("c", "string", nullable=True),
)
FIELDS = ("a", "b", "c")
ROWS: list[tuple[Any, ...]] = [
    (float(place % 17), float(place % 5) if place % 7 else None, "xyz"[place % 3]) for place in range(200)
]
PROFILE = fit_profile(ROWS, FIELDS, FEATURES)


@FUZZ
@given(mutated(PROFILE, (b"\x00" * 8, b"\xff" * 8, b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 2_000)))
def test_a_changed_profile_is_damaged_or_gives_p_values(content: bytes) -> None:
    try:
        novelty = Novelty.load(content, FIELDS)
    except Damaged:
        return
    check_p_values(novelty)


def check_p_values(novelty: Novelty) -> None:
    rows = [*ROWS[:5], (1e300, None, None), (-1e300, 0.0, "never seen")]
    with np.errstate(all="ignore"):
        assert all(0 <= each <= 1 for each in novelty.p_values(rows))
        assert all(novelty.explain(row) for row in rows)


@pytest.mark.parametrize("wrong", [-1, 3, 10**9, 2**62, -(2**62)])
def test_a_place_that_is_none_in_a_profile_is_never_looked_up(wrong: int) -> None:
    made = msgspec.msgpack.decode(PROFILE, type=Profile)
    for name, array in made.arrays.items():
        if array.dtype == "<i8" and array.data:
            changed = msgspec.structs.replace(array, data=struct.pack("<q", wrong) + array.data[8:])
            profile = msgspec.structs.replace(made, arrays={**made.arrays, name: changed})
            check_p_values(Novelty.load(msgspec.msgpack.encode(profile), FIELDS))


@FUZZ
@given(mutated_json({"type": "no form", "reason": "r", "more": {}}) | st.sampled_from(HOSTILE) | st.binary(max_size=40))
def test_what_a_conversion_answers_is_a_reply_or_it_failed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "reply.json").write_bytes(content)
    with suppress(Failed):
        _reply(tmp_path / "reply.json", 0, b"")


# The ledger.

LEAF: dict[str, Any] = {
    "kind": "decision",
    "id": "01a1fd0b-2765-75f3-8e97-5c270000003f",
    "at": "2026-01-02T00:00:00.000000Z",
    "capability": "tiny",
    "version": "sha256:" + "0" * 64,
    "release": 1,
    "outcome": "review",
    "reasons": ["low_confidence"],
    "policy": "sha256:" + "0" * 64,
    "principal": "p",
    "body": "0" * 64,
}
BODY: dict[str, Any] = {
    "principal": "p",
    "key": "k",
    "input": {},
    "output": None,
    "details": {"reasons": [{"code": "low_confidence", "detail": "d"}], "proposed": {"yes": True}},
}
RESOLVED = {**LEAF, "kind": "change", "action": "review.resolved", "subject": LEAF["id"]}
RESOLUTION = {"reason": "r", "details": {"verdict": "accepted", "output": {"yes": True}, "revises": None}}


@FUZZ
@given(mutated_json(LEAF, RESOLVED) | st.sampled_from(HOSTILE), mutated_json(BODY, RESOLUTION))
def test_a_changed_entry_is_read_or_is_none(leaf: bytes, body: bytes) -> None:
    entry = Entry(leaf, b"", body)
    found = read_leaf(leaf)
    assert found is not None or read_id(leaf) is None or leaf.startswith(b'{"kind":"')
    read_waiting(entry)
    read_resolution(entry)
    Chunk(KeyDigests(bytes(32))).add(0, entry)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, list[Entry]]:
    """The name, the bytes and the entries of a segment of four groups."""
    made = Segment(tmp_path_factory.mktemp("wal"))
    entries = [Entry(b"leaf%d" % number, b"s" * 16, b"body" * number) for number in range(12)]
    for at in range(0, 12, 3):
        made.append([frame_entry(*entry) for entry in entries[at : at + 3]], 3)
    made.close()
    return made.name, made.path.read_bytes(), entries


@FUZZ
@given(st.data())
def test_of_a_changed_segment_only_whole_groups_are_read(
    tmp_path: Path, segment: tuple[str, bytes, list[Entry]], data: st.DataObject
) -> None:
    name, content, entries = segment
    tokens = (b"MSG1", content[HEADER_BYTES : HEADER_BYTES + 90], MAGIC, b"\x00" * 30, b"\xff" * 30)
    path = tmp_path / f"{name}.wal"
    path.write_bytes(data.draw(mutated(content, tokens)))
    reader = SegmentReader(path)
    read = [entry for group in reader.groups() for entry in group.entries]
    assert read == entries[: len(read)]
    assert len(read) % 3 == 0
    assert reader.offset <= path.stat().st_size


# What processes tell each other.


@FUZZ
@given(st.data())
def test_counts_of_another_form_are_forgotten_and_counting_goes_on(tmp_path: Path, data: st.DataObject) -> None:
    counts = Counts()
    counts.count("tiny", "production", "answered", "", 0.01)
    counts.count_shadow("tiny", "compared", 1, 0.01)
    document = json.loads(msgspec.json.encode(counts))
    path = tmp_path / "metrics-0.json"
    wrong = {**document, "latency": {"tiny\tproduction": {"buckets": [1, 2]}}}
    path.write_bytes(data.draw(mutated_json(document, wrong)))
    loaded = load_counts(path)
    loaded.count("tiny", "production", "answered", "", 0.01)
    loaded.count("tiny", "production", "answered", "", 1e9)
    render(total([loaded, counts]), in_flight=0).decode()


@pytest.fixture
def held(workspace: Workspace) -> Iterator[None]:
    """As if a supervisor were running."""
    workspace.run.mkdir(exist_ok=True)
    descriptor = os.open(workspace.run / "up.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


STATE = {"url": "http://127.0.0.1:1", "supervisor": 1, "processes": {"worker-0": 2}, "deaths": {"worker-0": 0}}


@FUZZ
@given(mutated_json(STATE) | st.sampled_from(HOSTILE) | st.binary(max_size=20))
def test_the_state_of_a_supervisor_is_read_or_damaged(workspace: Workspace, held: None, content: bytes) -> None:
    (workspace.run / STATE_FILE).write_bytes(content)
    with suppress(Damaged):
        state = running_state(workspace)
        assert state is not None
        assert isinstance(state["url"], str)
