from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from ledger.samples import KEY, ORIGIN, seal, write_segment
from ledger.witnesses import Notary, Tree, cosigner, make_witness, serve, serve_witness
from mainstay.errors import Damaged, InvalidDocument, Misuse
from mainstay.files import write_atomic
from mainstay.ledger import outbound
from mainstay.ledger.anchor_memory import SETTINGS, Place, Remembered, recall, remember
from mainstay.ledger.log import Log
from mainstay.ledger.note import split_note
from mainstay.ledger.publishing import Publisher, keep_published, read_policy, standing
from mainstay.ledger.trust_policy import parse_policy
from mainstay.workspace import Settings, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.witness import Witness


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "FIRST_WAIT_SECONDS", 0.001)


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[dict[str, Witness]]:
    made = {name: make_witness(tmp_path / name, name, clock=time.time) for name in ("north", "south")}
    yield made
    for witness in made.values():
        witness.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """With 300 entries, and nobody to give their checkpoint to."""
    root = tmp_path / "workspace"
    found = Workspace(root, Settings(log=ORIGIN))
    write_segment(found.ledger, 300)
    seal(found.ledger)
    return found


def with_settings(workspace: Workspace, **settings: object) -> Workspace:
    return Workspace(workspace.root, msgspec.structs.replace(workspace.settings, **settings))


def with_policy(workspace: Workspace, urls: dict[str, str], quorum: str = "all") -> Workspace:
    """The workspace with these witnesses."""
    lines = [f"log {KEY.verifier.vkey}"]
    lines += [f"witness {name} {cosigner(name).verifier.vkey} {url}" for name, url in urls.items()]
    lines += [f"group g {quorum} {' '.join(urls)}", "quorum g", ""]
    (workspace.root / "witnesses.policy").write_text("\n".join(lines))
    return with_settings(workspace, witnesses="witnesses.policy")


def publish(workspace: Workspace) -> dict[str, str]:
    """What each witness and anchor did."""
    return {each.place.name: each.result for each in Publisher(workspace, KEY.verifier).publish()}


def grow(workspace: Workspace, count: int = 50) -> None:
    write_segment(workspace.ledger, count)
    seal(workspace.ledger)


def witnessed(workspace: Workspace) -> tuple[int, list[str]]:
    """The size of the checkpoint that is kept as witnessed, and who signed it."""
    text, signatures = split_note((workspace.ledger / "witnessed").read_bytes())
    return int(text.split("\n")[1]), [each.name.removeprefix("witness.example.com/") for each in signatures]


def test_a_checkpoint_goes_to_every_witness_and_anchor_with_the_cosignatures(
    workspace: Workspace, tmp_path: Path, witnesses: dict[str, Witness]
) -> None:
    (tmp_path / "worm").mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "c.git")], check=True)  # noqa: S607 - the caller's
    with (
        serve(serve_witness(witnesses["north"])) as north,
        serve(serve_witness(witnesses["south"])) as south,
        serve(notary := Notary()) as served,
    ):
        urls = [(tmp_path / "worm").as_uri(), f"git+{(tmp_path / 'c.git').as_uri()}", f"{served.url}/c"]
        workspace = with_policy(workspace, {"north": north.url, "south": south.url})
        workspace = with_settings(workspace, anchors=tuple(urls))
        for size in (300, 350):
            assert publish(workspace) == dict.fromkeys(("north", "south", *urls), "stored")
            assert witnessed(workspace) == (size, [ORIGIN, "north", "south"])
            note = (workspace.ledger / "witnessed").read_bytes()
            assert (tmp_path / "worm" / str(size)).read_bytes() == note
            assert notary.kept[f"/c/{size}"] == note
            assert all(found.size == size for _, found in standing(workspace, KEY.verifier))
            grow(workspace)


def test_asking_again_by_hand_renews_cosignatures_and_replaces_nothing(
    workspace: Workspace, tmp_path: Path, witnesses: dict[str, Witness]
) -> None:
    (tmp_path / "worm").mkdir()
    with serve(serve_witness(witnesses["north"])) as north:
        workspace = with_policy(workspace, {"north": north.url})
        workspace = with_settings(workspace, anchors=((tmp_path / "worm").as_uri(),))
        publish(workspace)
        kept = (tmp_path / "worm" / "300").read_bytes()
        assert list(publish(workspace).values()) == ["stored", "there already"]
        assert (tmp_path / "worm" / "300").read_bytes() == kept
        (tmp_path / "worm" / "300").unlink()
        assert list(publish(workspace).values()) == ["stored", "stored"]


def test_only_a_checkpoint_with_the_quorum_is_kept_as_witnessed(
    workspace: Workspace, witnesses: dict[str, Witness]
) -> None:
    with serve(serve_witness(witnesses["north"])) as north:
        with serve(serve_witness(witnesses["south"])) as south:
            workspace = with_policy(workspace, {"north": north.url, "south": south.url})
            publish(workspace)
            grow(workspace)
        assert publish(workspace) == {"north": "stored", "south": "failed"}
        assert witnessed(workspace) == (300, [ORIGIN, "north", "south"])
        workspace = with_policy(workspace, {"north": north.url, "south": south.url}, quorum="any")
        publish(workspace)
        assert witnessed(workspace) == (350, [ORIGIN, "north"])


def test_a_witness_that_comes_back_adds_to_what_is_witnessed(
    workspace: Workspace, witnesses: dict[str, Witness]
) -> None:
    with serve(serve_witness(witnesses["north"])) as north:
        workspace = with_policy(workspace, {"north": north.url, "south": "http://127.0.0.1:9"}, quorum="any")
        publish(workspace)
        with serve(serve_witness(witnesses["south"])) as south:
            workspace = with_policy(workspace, {"north": north.url, "south": south.url}, quorum="any")
            run_rounds(workspace, lambda: len(witnessed(workspace)[1]) == 3)
            assert north.requests == ["POST /add-checkpoint"], "north has cosigned this checkpoint before"


def test_a_failure_is_remembered_until_it_is_over(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mainstay.anchors")
    workspace = with_settings(workspace, anchors=((tmp_path / "worm").as_uri(),))
    place = Place("file", (tmp_path / "worm").as_uri())
    for _ in range(3):
        assert publish(workspace) == {place.name: "failed"}
    found = recall(workspace.anchors, place)
    assert found.failing_since is not None
    assert found.error is not None
    assert "is it mounted" in found.error
    (tmp_path / "worm").mkdir()
    assert publish(workspace) == {place.name: "stored"}
    after = recall(workspace.anchors, place)
    assert (after.size, after.failing_since, after.error) == (300, None, None)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["not anchored", "anchoring again"]


def test_one_that_fails_keeps_the_checkpoint_from_no_other(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "worm").mkdir()
    good = (tmp_path / "worm").as_uri()
    with serve(lambda *_: (500, {}, b"")) as bad:
        workspace = with_policy(workspace, {"north": bad.url, "south": "http://127.0.0.1:9"})
        workspace = with_settings(workspace, anchors=(f"{bad.url}/c", (tmp_path / "absent").as_uri(), good))
        results = publish(workspace)
    assert results.pop(good) == "stored"
    assert set(results.values()) == {"failed"}


def test_a_fork_is_told_by_witness_and_anchor(
    workspace: Workspace, tmp_path: Path, witnesses: dict[str, Witness]
) -> None:
    (tmp_path / "worm").mkdir()
    (tmp_path / "worm" / "300").write_bytes(Tree.of(300).note(300))
    witnesses["north"].add_checkpoint(Tree.of(300).request(0, 300))
    with serve(serve_witness(witnesses["north"])) as north:
        workspace = with_policy(workspace, {"north": north.url})
        workspace = with_settings(workspace, anchors=((tmp_path / "worm").as_uri(),))
        errors = [each.error or "" for each in Publisher(workspace, KEY.verifier).publish()]
    assert "ANOTHER HISTORY" in errors[0]
    assert "ANOTHER CHECKPOINT" in errors[1]


def test_a_log_that_lost_entries_is_told_and_not_anchored(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "worm").mkdir()
    workspace = with_settings(workspace, anchors=((tmp_path / "worm").as_uri(),))
    publish(workspace)
    shutil.rmtree(workspace.ledger)
    grow(workspace, 20)
    (outcome,) = Publisher(workspace, KEY.verifier).publish()
    assert outcome.error == "was given 300 entries, here are 20: THIS LOG HAS LOST ENTRIES"
    assert [path.name for path in (tmp_path / "worm").iterdir()] == ["300"]


def test_a_checkpoint_of_another_log_is_not_published(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "worm").mkdir()
    workspace = with_settings(workspace, anchors=((tmp_path / "worm").as_uri(),), log="another.example.com")
    with pytest.raises(Damaged, match="expected the log another"):
        publish(workspace)
    assert list((tmp_path / "worm").iterdir()) == []


def test_where_nothing_was_sealed_nothing_is_published(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, Settings(log=ORIGIN, anchors=(tmp_path.as_uri(),)))
    assert publish(workspace) == {}
    seal(workspace.ledger)
    assert Log(workspace.ledger).note() is not None
    assert publish(workspace) == {}


def test_what_is_remembered_may_be_lost_or_changed(workspace: Workspace, witnesses: dict[str, Witness]) -> None:
    with serve(serve_witness(witnesses["north"])) as north:
        workspace = with_policy(workspace, {"north": north.url})
        publish(workspace)
        place = Place("witness", "north")
        path = workspace.anchors / f"{place.file_name}.json"
        for content in (b"", b"{", b'{"size": "many"}', b'{"size": 17}', b'{"size": 99999}', b'{"size": -1}'):
            grow(workspace)
            path.write_bytes(content)
            assert publish(workspace) == {"north": "stored"}
        shutil.rmtree(workspace.anchors)
        assert publish(workspace) == {"north": "stored"}


def test_a_policy_that_is_wrong_is_told(workspace: Workspace) -> None:
    workspace = with_settings(workspace, witnesses="witnesses.policy")
    with pytest.raises(Misuse, match="expected the trust policy"):
        read_policy(workspace, KEY.verifier)
    path = workspace.root / "witnesses.policy"
    path.write_text("quorum\n")
    with pytest.raises(InvalidDocument, match=r"witnesses\.policy:1"):
        read_policy(workspace, KEY.verifier)
    path.write_text(f"log {cosigner('another').verifier.vkey}\nquorum none\n")
    with pytest.raises(Misuse, match="expected the log"):
        read_policy(workspace, KEY.verifier)
    assert [place for place, _ in standing(workspace, KEY.verifier)] == [SETTINGS]
    path.write_text("quorum none\n")
    assert read_policy(workspace, KEY.verifier) == parse_policy(b"quorum none\n")


def run_rounds(workspace: Workspace, until: object, seconds: float = 10.0) -> None:
    """Publish in the background, as the control process does, until something holds."""
    stop = threading.Event()
    thread = keep_published(with_settings(workspace, anchor_interval_seconds=0.1), KEY.verifier, stop)
    assert thread is not None
    deadline = time.monotonic() + seconds
    try:
        while not until() and time.monotonic() < deadline:  # type: ignore[operator]  # it is a function
            time.sleep(0.02)
        assert until()  # type: ignore[operator]  # it is a function
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_new_checkpoints_are_published_in_the_background(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "worm").mkdir()
    workspace = with_settings(workspace, anchors=((tmp_path / "worm").as_uri(),))

    def has(size: int) -> bool:
        if (tmp_path / "worm" / "300").exists() and Log(workspace.ledger).size == 300:
            grow(workspace)
        return (tmp_path / "worm" / str(size)).exists()

    run_rounds(workspace, lambda: has(350))


def test_settings_that_are_wrong_are_remembered_and_followed_when_mended(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "worm").mkdir()
    workspace = with_settings(workspace, witnesses="witnesses.policy", anchors=((tmp_path / "worm").as_uri(),))

    def mended() -> bool:
        if recall(workspace.anchors, SETTINGS).failing_since is not None:
            write_atomic(workspace.root / "witnesses.policy", b"quorum none\n")
        return (tmp_path / "worm" / "300").exists() and recall(workspace.anchors, SETTINGS) == Remembered()

    run_rounds(workspace, mended)
    assert len([record for record in caplog.records if "not anchored: kind=settings" in record.message]) == 1


def test_a_round_that_hangs_ends_when_it_is_asked_to(workspace: Workspace) -> None:
    with serve(lambda *_: (time.sleep(3), (200, {}, b""))[1]) as slow:  # type: ignore[func-returns-value]  # it waits
        workspace = with_settings(workspace, anchors=(f"{slow.url}/c",))
        stop = threading.Event()
        thread = keep_published(workspace, KEY.verifier, stop)
        assert thread is not None
        while not slow.requests:
            time.sleep(0.01)
        began = time.monotonic()
        stop.set()
        thread.join(5)
        assert time.monotonic() - began < 1.5


def test_with_nobody_to_publish_to_there_is_no_thread(workspace: Workspace) -> None:
    assert keep_published(workspace, KEY.verifier, threading.Event()) is None


def test_remembering_is_by_name_and_kind(tmp_path: Path) -> None:
    names = [Place("witness", "a"), Place("file", "a"), Place("witness", "b"), Place("witness", "\udcff")]
    for at, place in enumerate(names):
        remember(tmp_path, place, Remembered(size=at))
    assert [recall(tmp_path, place).size for place in names] == [0, 1, 2, 3]
    assert SETTINGS.file_name.startswith("settings-")
