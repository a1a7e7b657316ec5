from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ledger.samples import KEY, die_at, fork, reap
from ledger.witnesses import Notary, Tree, serve
from mainstay.errors import Failed, Misuse
from mainstay.ledger import anchors, anchors_git
from mainstay.ledger.anchors import FileAnchor, FileSource, HttpAnchor, UrlSource, file_path
from mainstay.ledger.anchors_git import GitAnchor, git_url
from mainstay.ledger.note import Checkpoint, sign_checkpoint
from mainstay.ledger.outbound import Unanswered
from mainstay.ledger.publishing import open_anchor

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.ledger.anchored import KeptNote, Source
    from mainstay.ledger.anchors import Anchor

TREE = Tree.of(600)
FORK = Tree.of(600, "another leaf")


def store(anchor: Anchor, size: int, tree: Tree = TREE) -> bool:
    return asyncio.run(anchor.store(tree.checkpoint(size), tree.note(size)))


def read(source: Source) -> list[KeptNote]:
    async def collect() -> list[KeptNote]:
        return [each async for each in source.notes()]

    return asyncio.run(collect())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)  # noqa: S607 - the caller's git
    return path


def git(repository: Path, *words: str) -> str:
    command = ["git", f"--git-dir={repository}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# What every kind of anchor does.


def check_anchor(make: Callable[[], Anchor]) -> None:
    """It keeps each checkpoint once, gives all of them back, and refuses another of the same size."""
    assert [store(make(), size) for size in (5, 255, 300, 300, 5)] == [True, True, True, False, False]
    assert {each.note for each in read(make())} == {TREE.note(size) for size in (5, 255, 300)}
    assert all(each.at is not None for each in read(make()))
    with pytest.raises(Failed, match="ANOTHER CHECKPOINT of that size") as refused:
        store(make(), 300, FORK)
    assert not isinstance(refused.value, Unanswered)
    assert {each.note for each in read(make())} == {TREE.note(size) for size in (5, 255, 300)}
    with pytest.raises(Failed, match=r"of log\.example\.com/lending"):
        asyncio.run(
            make().store(
                Checkpoint("another.example.com", 5, bytes(32)), sign_checkpoint(Checkpoint("x", 5, bytes(32)), KEY)
            )
        )


def test_a_directory_keeps_checkpoints(tmp_path: Path) -> None:
    kept = tmp_path / "worm"
    kept.mkdir()
    check_anchor(lambda: open_anchor(kept.as_uri(), tmp_path / "memory")[1])
    assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()) == ["005", "255", "300"]
    assert (kept / "005").stat().st_mode & 0o222 == 0


def test_a_git_repository_keeps_checkpoints(tmp_path: Path, repository: Path) -> None:
    check_anchor(lambda: open_anchor(f"git+{repository.as_uri()}", tmp_path / "memory")[1])
    commits = git(repository, "log", "--format=%an %ae: %s", "checkpoints").splitlines()
    assert commits[0] == "Mainstay ledger@mainstay.invalid: log.example.com/lending: 300 entries"
    assert len(commits) == 3
    assert git(repository, "fsck", "--strict") == ""


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("shows_newest", [True, False])
def test_an_http_service_keeps_checkpoints(tmp_path: Path, method: str, shows_newest: bool) -> None:
    with serve(Notary(method=method, shows_newest=shows_newest)) as served:
        check_anchor(lambda: open_anchor(f"{served.url}/c", tmp_path / "memory")[1])


def test_large_logs_have_short_directories(tmp_path: Path) -> None:
    checkpoint = Checkpoint("l.example.com", 1_234_067, bytes(32))
    asyncio.run(FileAnchor("a", tmp_path).store(checkpoint, sign_checkpoint(checkpoint, KEY)))
    assert (tmp_path / "x001" / "x234" / "067").is_file()


# Directories.


def test_a_directory_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="is it mounted"):
        store(FileAnchor("a", tmp_path / "absent"), 5)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(Failed, match="found none"):
        read(FileAnchor("a", tmp_path / "absent"))


def test_a_directory_that_takes_nothing_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "x001").write_text("in the way")
    with pytest.raises(Unanswered, match="x001"):
        asyncio.run(
            FileAnchor("a", tmp_path).store(Checkpoint("l", 1_000, bytes(32)), sign_checkpoint(TREE.checkpoint(5), KEY))
        )


def test_a_file_that_stands_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "005").write_text("what somebody else wrote")
    with pytest.raises(Failed, match="is no checkpoint"):
        store(FileAnchor("a", tmp_path), 5)
    assert (tmp_path / "005").read_text() == "what somebody else wrote"
    (tmp_path / "006").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failed):
        store(FileAnchor("a", tmp_path), 6)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_links_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert store(FileAnchor("a", tmp_path), 5)
    assert not store(FileAnchor("a", tmp_path), 5)
    assert [path.name for path in tmp_path.iterdir()] == ["005"]


def test_a_disk_that_does_not_answer_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "FILE_SECONDS", 0.1)
    anchor = FileAnchor("a", tmp_path)
    released = False

    def hang(*_: object) -> bool:
        while not released:
            time.sleep(0.01)
        return True

    monkeypatch.setattr(FileAnchor, "_store", hang)
    with pytest.raises(Unanswered, match="did not answer within"):
        store(anchor, 5)
    with pytest.raises(Unanswered, match="since the last attempt"):
        store(anchor, 5)
    released = True


def test_storing_in_a_directory_may_be_killed_anywhere(tmp_path: Path) -> None:
    for step in range(12):
        kept = tmp_path / str(step)
        kept.mkdir()

        def run(step: int = step, kept: Path = kept) -> None:
            die_at(step)
            FileAnchor("a", kept)._store(Checkpoint("l", 1_000, bytes(32)), b"a note")

        reap(fork(run))
        found = [path for path in kept.rglob("*") if path.is_file() and not path.name.startswith(".")]
        assert all(path.read_bytes() == b"a note" for path in found)
        if not found:
            FileAnchor("a", kept)._store(Checkpoint("l", 1_000, bytes(32)), b"a note")
            assert (kept / "x001" / "000").read_bytes() == b"a note"


def test_hidden_and_half_written_files_are_passed_over(tmp_path: Path) -> None:
    store(FileAnchor("a", tmp_path), 5)
    (tmp_path / ".006.77.tmp").write_bytes(b"half")
    assert [each.place for each in read(FileAnchor("a", tmp_path))] == [str(tmp_path / "005")]


def test_a_single_checkpoint_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(TREE.note(5))
    assert [each.note for each in read(FileSource(tmp_path / "kept"))] == [TREE.note(5)]
    with pytest.raises(Failed, match="found: No such file"):
        read(FileSource(tmp_path / "absent"))
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(Failed, match="at most"):
        read(FileSource(tmp_path / "large"))
    with serve(Notary()) as served:
        served_notary = UrlSource(f"{served.url}/c/5")
        with pytest.raises(Failed, match="answered 404"):
            read(served_notary)


# Git.


def test_what_somebody_else_stored_meanwhile_is_built_upon(tmp_path: Path, repository: Path) -> None:
    url = f"git+{repository.as_uri()}"
    one, other = GitAnchor(url, tmp_path / "one.git"), GitAnchor(url, tmp_path / "other.git")
    assert [store(one, 5), store(other, 6), store(one, 7), store(one, 6)] == [True, True, True, False]
    assert [each.place[-3:] for each in read(GitAnchor(url))] == ["005", "006", "007"]


def test_a_race_to_the_repository_is_one_to_try_again_after(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"git+{repository.as_uri()}"
    real = anchors_git._Repository.commit

    async def slow(self: anchors_git._Repository, *arguments: object) -> None:
        await real(self, *arguments)  # type: ignore[arg-type]  # as they came
        if "one" in str(self._path):
            await GitAnchor(url, tmp_path / "other.git").store(TREE.checkpoint(6), TREE.note(6))

    monkeypatch.setattr(anchors_git._Repository, "commit", slow)
    with pytest.raises(Unanswered, match="git push"):
        store(GitAnchor(url, tmp_path / "one.git"), 5)
    monkeypatch.undo()
    assert store(GitAnchor(url, tmp_path / "one.git"), 5)


def test_a_branch_that_was_rewritten_is_told(tmp_path: Path, repository: Path) -> None:
    url = f"git+{repository.as_uri()}"
    anchor = GitAnchor(url, tmp_path / "memory.git")
    store(anchor, 5)
    store(anchor, 6)
    git(repository, "update-ref", "refs/heads/checkpoints", "checkpoints~1")
    store(GitAnchor(url, tmp_path / "other.git"), 7)
    with pytest.raises(Failed, match="WAS REWRITTEN") as refused:
        store(anchor, 8)
    assert not isinstance(refused.value, Unanswered)


def test_a_branch_that_was_deleted_is_put_back(tmp_path: Path, repository: Path) -> None:
    url = f"git+{repository.as_uri()}"
    anchor = GitAnchor(url, tmp_path / "memory.git")
    store(anchor, 5)
    git(repository, "update-ref", "-d", "refs/heads/checkpoints")
    assert read(GitAnchor(url)) == []
    store(anchor, 6)
    assert [each.note for each in read(GitAnchor(url))] == [TREE.note(5), TREE.note(6)]


def test_a_checkpoint_that_a_later_commit_deleted_or_changed_is_still_read(tmp_path: Path, repository: Path) -> None:
    url = f"git+{repository.as_uri()}"
    store(GitAnchor(url, tmp_path / "memory.git"), 5)
    work = tmp_path / "work"
    git(repository, "worktree", "add", "--quiet", str(work), "checkpoints")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]

    def commit() -> None:
        for words in (["add", "--all"], [*identity, "commit", "--quiet", "-m", "x"]):
            subprocess.run(["git", "-C", str(work), *words], check=True)  # noqa: S607 - the caller's git

    (work / "005").write_bytes(b"changed")
    (work / "README").write_bytes(b"not a checkpoint's name")
    commit()
    (work / "005").unlink()
    commit()
    assert [each.note for each in read(GitAnchor(url))] == [TREE.note(5), b"changed"]
    (work / "005").write_bytes(b"changed")
    commit()
    with pytest.raises(Failed, match="no checkpoint"):
        store(GitAnchor(url, tmp_path / "memory.git"), 5)


def test_hooks_and_the_environment_of_another_repository_do_nothing(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "reference-transaction", "post-commit", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\npwd >> {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f"[core]\n\thooksPath = {hooks}\n[push]\n\tgpgSign = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere"))
    anchor = GitAnchor(f"git+{repository.as_uri()}", tmp_path / "memory.git")
    assert store(anchor, 5)
    ran = (tmp_path / "ran").read_text().splitlines()
    assert set(ran) == {str(repository)}, "those of the remote repository are its owner's"


def test_a_repository_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="git fetch"):
        store(GitAnchor(f"git+{(tmp_path / 'absent.git').as_uri()}", tmp_path / "memory.git"), 5)


def test_a_copy_that_a_killed_process_left_half_is_made_anew(tmp_path: Path, repository: Path) -> None:
    memory = tmp_path / "memory.git"
    (memory / "refs").mkdir(parents=True)
    assert store(GitAnchor(f"git+{repository.as_uri()}", memory), 5)


def test_a_git_that_does_not_end_is_killed_with_all_it_started(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    monkeypatch.setattr(anchors_git, "GIT_SECONDS", 0.3)
    monkeypatch.setattr(anchors_git._Repository._run, "__kwdefaults__", {"stdin": b"", "seconds": 0.3})
    began = time.monotonic()
    with pytest.raises(Unanswered, match="did not end within"):
        store(GitAnchor(f"git+{repository.as_uri()}", tmp_path / "memory.git"), 5)
    assert time.monotonic() - began < 5
    while _is_running((tmp_path / "pid").read_text().strip()):  # the kernel ends it in a moment
        assert time.monotonic() - began < 20
        time.sleep(0.01)


def _is_running(process: str) -> bool:
    try:
        return (Path("/proc") / process / "stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_without_git_it_is_told(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="git is not installed"):
        store(GitAnchor(f"git+{repository.as_uri()}", tmp_path / "memory.git"), 5)


# HTTP.


@pytest.mark.parametrize(
    ("status", "temporary"), [(400, False), (401, False), (403, False), (302, False), (500, True), (429, True)]
)
def test_a_service_that_does_not_take_a_checkpoint_is_told(tmp_path: Path, status: int, temporary: bool) -> None:
    with serve(lambda *_: (status, {}, b"why")) as served, pytest.raises(Failed, match=f"{status}: why") as failed:
        store(HttpAnchor(served.url, tmp_path / "sizes"), 5)
    assert isinstance(failed.value, Unanswered) is temporary


def test_a_service_that_takes_a_checkpoint_and_has_none_is_told(tmp_path: Path) -> None:
    with serve(lambda method, *_: (404 if method == "GET" else 200, {}, b"")) as served:
        with pytest.raises(Failed, match="gives none back"):
            store(HttpAnchor(served.url, tmp_path / "sizes"), 5)
        assert not (tmp_path / "sizes").exists()


def test_a_checkpoint_that_a_service_lost_is_told(tmp_path: Path) -> None:
    notary = Notary(shows_newest=False)
    with serve(notary) as served:
        anchor = HttpAnchor(f"{served.url}/c", tmp_path / "sizes")
        store(anchor, 5)
        store(anchor, 6)
        del notary.kept["/c/5"]
        with pytest.raises(Failed, match="is not given back"):
            read(anchor)


def test_half_a_line_of_a_killed_process_is_no_size(tmp_path: Path) -> None:
    with serve(Notary()) as served:
        anchor = HttpAnchor(f"{served.url}/c", tmp_path / "sizes")
        store(anchor, 5)
        with (tmp_path / "sizes").open("ab") as sizes:
            sizes.write(b"60")
        store(anchor, 600)
        store(anchor, 600)
        assert (tmp_path / "sizes").read_bytes() == b"5\n600\n"
        assert len(read(anchor)) == 3


def test_of_very_many_checkpoints_some_are_read_over_http() -> None:
    assert anchors._spread(list(range(7, 0, -1))) == [7, 6, 5, 4, 3, 2, 1]
    spread = anchors._spread(list(range(100_000, 0, -1)))
    assert (len(spread), spread[0], spread[-1]) == (1_000, 100_000, 100)
    assert anchors._spread([]) == []


# Addresses.


@pytest.mark.parametrize(
    "url",
    [
        "/mnt/worm",
        "ssh://git@example.com/c.git",
        "s3://bucket",
        "file://elsewhere/mnt",
        "file:relative",
        "file:///mnt?x",
        "git+ext::sh -c x",
        "git+--upload-pack=x",
        "git+file://",
        "git+ssh://git@example.com",
        "git+http://u:secret@example.com/c.git",
        "http://",
        "https://u:secret@example.com",
        "",
    ],
)
def test_what_is_no_address_of_an_anchor_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misuse, match="expected") as refused:
        open_anchor(url, tmp_path)
    assert "secret" not in str(refused.value)


def test_addresses_are_read_as_they_are_written() -> None:
    assert file_path("file:///mnt/a%20b") == Path("/mnt/a b")
    assert git_url("git+ssh://git@example.com/c.git") == "ssh://git@example.com/c.git"
