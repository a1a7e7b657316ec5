"""A git repository as an anchor: a commit and a file for each checkpoint, on the branch `checkpoints`.

Everything goes through the git command, without a shell, a work tree or hooks, within a time. A commit is built on
what the remote branch holds and is never forced upon it: whoever rewrites that branch stops the anchor, loudly. Read
back is every file that any commit of the branch ever held, from a fresh copy.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from mainstay.errors import Failed, Misuse
from mainstay.ledger.anchored import KeptNote
from mainstay.ledger.anchors import same_checkpoint
from mainstay.ledger.note import MAX_NOTE_BYTES
from mainstay.ledger.outbound import Unanswered
from mainstay.ledger.tiles import format_index

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from mainstay.ledger.note import Checkpoint

PREFIX = "git+"
BRANCH = "checkpoints"
GIT_SECONDS = 60.0  # for one git command while storing
READ_SECONDS = 600.0  # for the whole of reading back
MAX_SAID_BYTES = 1_000  # of what git says of a failure

_TRACKED = f"refs/remotes/anchor/{BRANCH}"
_NEXT = "refs/mainstay/next"
_PROTOCOLS = ("file", "ssh", "https", "http")
_KEPT_VARIABLES = frozenset({"GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"})
_FIXED = (  # whatever the account's own configuration says
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "push.gpgSign=false"),
    *("-c", "push.followTags=false"),
    *("-c", "gc.autoDetach=false"),
    *("-c", "maintenance.autoDetach=false"),
)
_ADDED = re.compile(rb":\d{6} \d{6} [0-9a-f]+ ([0-9a-f]{40,64}) [AM]\t((?:x\d{3}/)*\d{3})")
_COMMITTED = re.compile(rb"@(\d{1,12})")


class _Done(NamedTuple):
    """A git command that has ended."""

    code: int
    output: bytes
    said: str


def git_url(source: str) -> str:
    """The URL for git in `git+<url>`. Raises Misuse when it is none, of another protocol, or holds a password."""
    url = source.removeprefix(PREFIX)
    parts = urlsplit(url)
    if not source.startswith(PREFIX) or parts.scheme not in _PROTOCOLS or not parts.path.strip("/"):
        raise Misuse(
            f"expected git+file, git+ssh, git+https or git+http and a path, found {source[:200]!r}",
            hint="Such as git+ssh://git@example.com/checkpoints.git or git+file:///srv/checkpoints.git.",
        )
    if parts.password is not None:  # not repeated
        raise Misuse("expected a git URL without a password", hint="Let git keep it: see its credential helpers.")
    if not url.isprintable():
        raise Misuse(f"expected a git URL of printable characters, found {source[:200]!a}")
    return url


class GitAnchor:
    """A branch of a remote repository."""

    outside = True

    def __init__(self, name: str, cache: Path | None = None) -> None:
        """`cache` is where a bare copy is kept for storing. Raises Misuse when `name` is no `git+<url>`."""
        self.name = name
        self._url = git_url(name)
        self._cache = cache

    async def store(self, checkpoint: Checkpoint, note: bytes) -> bool:
        if self._cache is None:
            raise ValueError("a git anchor without a cache can only be read")
        git = _Repository(self._cache)
        await git.prepare()
        await git.fetch(self._url)
        tip = await git.tip()
        path = format_index(checkpoint.size)
        if tip is not None:
            kept = await git.file(tip, path)
            if kept is not None:
                same_checkpoint(kept, checkpoint, f"{self.name}: {path}")
                return False
        await git.commit(tip, path, checkpoint, note)
        await git.push(self._url)
        return True

    async def notes(self) -> AsyncIterator[KeptNote]:
        with tempfile.TemporaryDirectory(prefix="mainstay-anchor-") as directory:
            git = _Repository(Path(directory) / "copy.git")
            await git.prepare()
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await git.fetch(self._url, seconds=READ_SECONDS)
                    tip = await git.tip()
                    if tip is None:
                        return
                    async for kept in git.history(tip, self.name):
                        yield kept
            except TimeoutError:
                raise Unanswered(f"could not be read within {READ_SECONDS:g} s") from None


class _Repository:
    """A bare repository of our own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def prepare(self) -> None:
        """Make it, unless it is there whole: a process may have been killed making it."""
        if (self._path / "refs").is_dir() and (await self._run("rev-parse", "--git-dir")).code == 0:
            return
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(parents=True)
        await self._expect("init", "--quiet", "--bare", "--template=", str(self._path))

    async def fetch(self, url: str, *, seconds: float = GIT_SECONDS) -> None:
        """Take over what the remote branch holds; nothing when there is no such branch yet."""
        refs = f"refs/heads/{BRANCH}*:refs/remotes/anchor/{BRANCH}*"  # a pattern may match nothing, a name may not
        options = ("--no-progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        done = await self._run("fetch", *options, url, refs, seconds=seconds)
        if done.code and "non-fast-forward" in done.said:
            raise Failed(
                f"the branch {BRANCH} WAS REWRITTEN: it does not hold what was stored there before ({done.said})",
                hint=f"Find out who did. To begin anew, delete {self._path}.",
            )
        if done.code:
            raise Unanswered(f"git fetch: {done.said}")

    async def tip(self) -> str | None:
        """The last commit of the branch as it was fetched; None when there is no branch."""
        done = await self._run("rev-parse", "--quiet", "--verify", f"{_TRACKED}^{{commit}}")
        return done.output.decode().strip() if done.code == 0 else None

    async def file(self, commit: str, path: str) -> bytes | None:
        """A file of a commit; None when it has none of that name."""
        listed = await self._expect("ls-tree", "-z", commit, "--", path)
        if not listed:
            return None
        digest = listed.split(b"\t")[0].split(b" ")[2].decode()
        size = int(await self._expect("cat-file", "-s", digest))
        if size > MAX_NOTE_BYTES:
            raise Failed(f"{path}: expected a checkpoint of at most {MAX_NOTE_BYTES:,} bytes, found {size:,}")
        return await self._expect("cat-file", "-p", digest)

    async def commit(self, parent: str | None, path: str, checkpoint: Checkpoint, note: bytes) -> None:
        """Make the commit that adds one file."""
        message = f"{checkpoint.origin}: {checkpoint.size} entries\n".encode()
        lines = [
            f"commit {_NEXT}\ncommitter Mainstay <ledger@mainstay.invalid> {int(time.time())} +0000\n".encode(),
            b"data %d\n%b\n" % (len(message), message),
            b"" if parent is None else f"from {parent}\n".encode(),
            f"M 100644 inline {path}\n".encode(),
            b"data %d\n%b\ndone\n" % (len(note), note),
        ]
        await self._expect("fast-import", "--quiet", "--force", "--done", stdin=b"".join(lines))

    async def push(self, url: str) -> None:
        """Put the commit on the remote branch, unless somebody else has put one there meanwhile."""
        done = await self._run("push", "--quiet", "--no-verify", url, f"{_NEXT}:refs/heads/{BRANCH}")
        if done.code:
            raise Unanswered(f"git push: {done.said}")
        await self._expect("update-ref", _TRACKED, _NEXT)  # from now on the branch must hold this one, too

    async def history(self, tip: str, name: str) -> AsyncIterator[KeptNote]:
        """Every version of every checkpoint's file, the oldest first, with the time of its commit."""
        options = ("--reverse", "--format=@%ct", "--raw", "--no-abbrev", "--no-renames", "--no-color", "--root", "-m")
        at: datetime | None = None
        async with _Running(self._command("log", *options, tip)) as log, self._blobs() as blobs:
            async for line in _lines(log):
                committed, added = _COMMITTED.fullmatch(line), _ADDED.fullmatch(line)
                if committed:
                    at = datetime.fromtimestamp(int(committed[1]), UTC)
                elif added:
                    yield KeptNote(f"{name}: {added[2].decode()}", await _blob(blobs, added[1]), at)
            if await log.wait():
                raise Failed(f"git log ended with {log.returncode}: the copy of {name} is not whole")

    def _blobs(self) -> _Running:
        return _Running(self._command("cat-file", "--batch"), stdin=asyncio.subprocess.PIPE)

    def _command(self, *arguments: str) -> list[str]:
        return ["git", f"--git-dir={self._path}", *_FIXED, *arguments]

    async def _expect(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = await self._run(*arguments, stdin=stdin)
        if done.code:
            raise Unanswered(f"git {arguments[0]}: {done.said or f'ended with {done.code}'}")
        return done.output

    async def _run(self, *arguments: str, stdin: bytes = b"", seconds: float = GIT_SECONDS) -> _Done:
        command = self._command(*arguments)
        async with _Running(command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE) as process:
            try:
                async with asyncio.timeout(seconds):
                    output, errors = await process.communicate(stdin)
            except TimeoutError:
                raise Unanswered(f"git {arguments[0]} did not end within {seconds:g} s") from None
        said = " ".join(errors[:MAX_SAID_BYTES].decode("utf-8", "replace").split())
        shown = "".join(each if each.isprintable() else " " for each in said)
        return _Done(process.returncode or 0, output, shown)


class _Running:
    """A git process and all it starts, killed together at the end if they have not ended."""

    def __init__(
        self, command: list[str], *, stdin: int = asyncio.subprocess.DEVNULL, stderr: int | None = None
    ) -> None:
        self._command = command
        self._stdin = stdin
        self._stderr = asyncio.subprocess.DEVNULL if stderr is None else stderr

    async def __aenter__(self) -> Process:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=self._stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(),
                start_new_session=True,  # without a terminal nothing can ask for a password
            )
        except FileNotFoundError:
            raise Failed("git is not installed here", hint="Install git, or use another kind of anchor.") from None
        return self._process

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()


def _environment() -> dict[str, str]:
    """What git is told: nothing of a repository that this process may run in, and to ask nobody for anything."""
    kept = {name: value for name, value in os.environ.items() if name[:4] != "GIT_" or name in _KEPT_VARIABLES}
    return kept | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_ALLOW_PROTOCOL": ":".join(_PROTOCOLS),
    }


async def _lines(process: Process) -> AsyncIterator[bytes]:
    if process.stdout is None:
        raise ValueError("expected a process whose output is piped")
    try:
        while line := await process.stdout.readline():
            yield line.rstrip(b"\n")
    except ValueError as error:  # says asyncio of a line of more than 64 kB
        raise Failed(f"git log: {error}") from None


async def _blob(process: Process, digest: bytes) -> bytes:
    """One object, from `git cat-file --batch`."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("expected a process whose input and output are piped")
    process.stdin.write(digest + b"\n")
    await process.stdin.drain()
    header = (await process.stdout.readline()).split()
    if len(header) != 3 or header[1] != b"blob":
        raise Failed(f"git cat-file: expected the blob {digest.decode()}, found {header!r}")
    size = int(header[2])
    if size > MAX_NOTE_BYTES:
        raise Failed(f"git cat-file: expected at most {MAX_NOTE_BYTES:,} bytes, found {size:,}")
    try:
        return (await process.stdout.readexactly(size + 1))[:-1]
    except EOFError:
        raise Failed(f"git cat-file: expected {size} bytes, found the end") from None
