"""Which records a table has already: digests of their keys and of what they say, in sorted runs.

A cache. It is derived from the table, knows up to which position of the door it holds, and is made again from the
table when it is behind, damaged, or about other columns. A digest is 16 bytes of the engine's hash under a secret
seed, so that nobody who sends records can make two of them meet.

Runs are files, sorted, joined when one is not twice as large as the next, so that there are few and each key is
rewritten a few times at most. They are mapped into memory, and what was looked at is given back at once: memory does
not grow with the table, and a look-up costs the logarithm of its size.
"""

from __future__ import annotations

import mmap
import os
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainstay.errors import NOT_READ
from mainstay.files import sync_directory, write_atomic
from mainstay.intake.types import ITEM, ROW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MANIFEST: Final = "keys.json"
_WORD: Final = np.dtype("<u8")
_REST: Final = 4  # words of an entry behind the first: second half of the key, both of the content, the order
_LOOKED_AT_ONCE: Final = 16_384  # each look touches pages of its own, which are given back after so many
_MERGED_AT_ONCE: Final = 524_288  # entries of each run
_OTHER: Final = 0x5DEECE66D  # makes a second seed of the first
_FILES_SUFFIXES: Final = (".first", ".rest")


class Digests(NamedTuple):
    """Of some rows. Each is a numpy array with a word for each row."""

    key: Any  # the first half of the key's digest, and the second
    key2: Any
    content: Any  # the same of what the row says
    content2: Any
    order: Any  # greater in a row that came later
    keyed: Any  # bool: whether the row has a key, that is one without nulls

    def only(self, rows: Any) -> Digests:
        """Those of some rows, by index or as a mask."""
        return Digests(*(each[rows] for each in self))


class Resolved(NamedTuple):
    """What is known of rows: numpy arrays of bool."""

    same: Any  # the record is known, and says the same
    changed: Any  # the record is known, and says something else


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    covers: int  # the position of the door
    about: str  # what the digests are of
    seed: int
    runs: list[int]  # numbers of their files, oldest first
    sizes: list[int]  # entries of each
    next: int = 1


class KnownKeys:
    """The keys of one table. One process at a time works on a source, and so on these files."""

    def __init__(self, folder: Path, about: str) -> None:
        """`about` names the columns that digests are of; those of others are forgotten.

        Files that no finished step wrote are removed.
        """
        self._folder = folder
        self._about = f"{about} polars {pl.__version__}"
        self._pending: list[Any] = []
        self._runs: list[_Run] = []
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._manifest = self._read() or _Manifest(-1, self._about, secrets.randbits(63), [], [])
        self._sweep()

    @property
    def covers(self) -> int:
        """The position of the door up to which the table's rows are known; -1: none."""
        return self._manifest.covers

    def reset(self) -> None:
        """Forget everything: the table is not the one that was known."""
        self._pending, self._runs = [], []
        self._manifest = _Manifest(-1, self._about, secrets.randbits(63), [], [], self._manifest.next)
        self._write()
        self._sweep()

    def digests(self, rows: pl.DataFrame, key: Sequence[str], said: Sequence[str]) -> Digests:
        """The digests of rows of an intake table: of the columns `key`, and of those that make up what a row says."""
        seed = self._manifest.seed
        keys, contents = rows.select(key), rows.select(said)
        return Digests(
            keys.hash_rows(seed).to_numpy(),
            keys.hash_rows(seed ^ _OTHER).to_numpy(),
            contents.hash_rows(seed).to_numpy(),
            contents.hash_rows(seed ^ _OTHER).to_numpy(),
            rows.select(pl.col(ITEM).cast(pl.UInt64) * 2**32 + pl.col(ROW)).to_series().cast(pl.UInt64).to_numpy(),
            keys.select(pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy(),
        )

    def resolve(self, rows: Digests, *, newest: bool) -> Resolved:
        """What is known of rows in their order: from the table, from what was added, and from each other.

        With `newest` a row is held against the last one of its key, otherwise against the first one.
        """
        same, changed = np.zeros(len(rows.key), np.bool_), np.zeros(len(rows.key), np.bool_)
        keyed = np.flatnonzero(rows.keyed)
        if not len(keyed):
            return Resolved(same, changed)
        by_key = keyed[_by_key(rows.key[keyed], rows.key2[keyed], rows.order[keyed])]
        sorted_rows = rows.only(by_key)
        begins = np.ones(len(by_key), np.bool_)
        begins[1:] = (sorted_rows.key[1:] != sorted_rows.key[:-1]) | (sorted_rows.key2[1:] != sorted_rows.key2[:-1])
        groups = np.cumsum(begins) - 1
        firsts = np.flatnonzero(begins)
        known = self._look_up(sorted_rows.key[firsts], sorted_rows.key2[firsts])
        has = known[:, 2] != 0
        contents = np.stack([sorted_rows.content, sorted_rows.content2], axis=1)
        if newest:
            held_against = np.roll(contents, 1, axis=0)
            held_against[firsts] = known[:, :2]
        else:
            held_against = np.where(has[:, None], known[:, :2], contents[firsts])[groups]
        compared = ~begins | has[groups]
        equal = (contents == held_against).all(axis=1)
        same[by_key] = compared & equal
        changed[by_key] = compared & ~equal
        return Resolved(same, changed)

    def add(self, rows: Digests) -> None:
        """Know rows that are about to be in the table, until `commit` or `discard`."""
        rows = rows.only(rows.keyed)
        if len(rows.key):
            entries = np.stack([rows.key, rows.key2, rows.content, rows.content2, rows.order], axis=1)
            self._pending.append(_distinct(entries))

    def discard(self) -> None:
        """Forget what was added: it did not come into the table."""
        self._pending = []

    def commit(self, position: int) -> None:
        """Keep what was added: with it the table's rows are known up to a position. Durable when it returns."""
        if self._pending:
            self._append(_distinct(np.concatenate(self._pending)))
            self._pending = []
        while len(self._runs) > 1 and self._runs[-2].size <= 2 * self._runs[-1].size:
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(self._merged(older, newer))
        self._manifest.covers = position
        self._write()
        self._sweep()

    # Looking up

    def _look_up(self, keys: Any, keys2: Any) -> Any:
        """Of each key, which ascend, the content's two words and the order of its newest entry; 0 where none is."""
        found = np.zeros((len(keys), 3), _WORD)
        for entries in self._pending:
            _look_in(np.ascontiguousarray(entries[:, 0]), entries[:, 1:], keys, keys2, found)
        for run in self._runs:
            for begin in range(0, len(keys), _LOOKED_AT_ONCE):
                part = slice(begin, begin + _LOOKED_AT_ONCE)
                _look_in(run.first, run.rest, keys[part], keys2[part], found[part])
                run.give_back()
        return found

    # Files

    def _read(self) -> _Manifest | None:
        """What is there, or None where nothing is that can be used."""
        try:
            manifest = msgspec.json.decode((self._folder / _MANIFEST).read_bytes(), type=_Manifest)
            if manifest.about != self._about or len(manifest.runs) != len(manifest.sizes):
                return None
            self._runs = [
                _Run(self._folder, number, size) for number, size in zip(manifest.runs, manifest.sizes, strict=True)
            ]
        except (*NOT_READ, OSError, ValueError):
            self._runs = []
            return None
        return manifest

    def _write(self) -> None:
        self._manifest.runs = [run.number for run in self._runs]
        self._manifest.sizes = [run.size for run in self._runs]
        write_atomic(self._folder / _MANIFEST, msgspec.json.encode(self._manifest))

    def _sweep(self) -> None:
        kept = {f"{run.number:08}" for run in self._runs}
        for path in self._folder.iterdir():
            if path.suffix in _FILES_SUFFIXES and path.stem not in kept:
                path.unlink(missing_ok=True)

    def _append(self, entries: Any) -> None:
        self._runs.append(self._run(iter([entries])))

    def _merged(self, older: _Run, newer: _Run) -> _Run:
        return self._run(_merge(older, newer))

    def _run(self, parts: Iterator[Any]) -> _Run:
        """A new run of entries that ascend."""
        number, self._manifest.next = self._manifest.next, self._manifest.next + 1
        size = 0
        first, rest = (self._folder / f"{number:08}{suffix}" for suffix in _FILES_SUFFIXES)
        with first.open("wb") as of_first, rest.open("wb") as of_rest:
            for entries in parts:
                of_first.write(np.ascontiguousarray(entries[:, 0]).tobytes())
                of_rest.write(np.ascontiguousarray(entries[:, 1:]).tobytes())
                size += len(entries)
            for file in (of_first, of_rest):
                file.flush()
                os.fsync(file.fileno())
        sync_directory(self._folder)
        return _Run(self._folder, number, size)


class _Run:
    """Entries that ascend by key, each key once, in two files that are mapped into memory."""

    def __init__(self, folder: Path, number: int, size: int) -> None:
        """Raises OSError or ValueError when the files are not those of so many entries."""
        self.number = number
        self.size = size
        self._maps = [
            _mapped(folder / f"{number:08}{suffix}", size * words * _WORD.itemsize)
            for suffix, words in zip(_FILES_SUFFIXES, (1, _REST), strict=True)
        ]
        self.first = np.frombuffer(self._maps[0], _WORD)
        self.rest = np.frombuffer(self._maps[1], _WORD).reshape(size, _REST)

    def entries(self, begin: int, end: int) -> Any:
        """Some of the entries, in memory of their own."""
        taken = np.concatenate([self.first[begin:end, None], self.rest[begin:end]], axis=1)
        self.give_back()
        return taken

    def give_back(self) -> None:
        """Let the system have the memory of the pages that were looked at."""
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)


def _mapped(path: Path, size: int) -> mmap.mmap:
    with path.open("rb") as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise ValueError(f"{path}: expected {size} bytes, found {found}")
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)


def _look_in(first: Any, rest: Any, keys: Any, keys2: Any, found: Any) -> None:
    """Put into `found` what a run says of keys, where it is newer than what stands there."""
    at = np.searchsorted(first, keys)
    looking = np.flatnonzero(at < len(first))
    while len(looking):
        places = at[looking]
        looking = looking[first[places] == keys[looking]]
        entries = rest[at[looking]]
        right = (entries[:, 0] == keys2[looking]) & (entries[:, 3] >= found[looking, 2])
        found[looking[right]] = entries[right, 1:]
        at[looking] += 1  # the first half of another key may be the same
        looking = looking[at[looking] < len(first)]


def _distinct(entries: Any) -> Any:
    """The entries by key, of each key the newest one."""
    entries = entries[_by_key(entries[:, 0], entries[:, 1], entries[:, 4])]
    last = np.ones(len(entries), np.bool_)
    last[:-1] = (entries[1:, 0] != entries[:-1, 0]) | (entries[1:, 1] != entries[:-1, 1])
    return entries if last.all() else entries[last]


def _by_key(first: Any, second: Any, order: Any) -> Any:
    """The indices that sort by both words of a key, and then by order.

    The first words of two keys hardly ever meet. So they alone are sorted, which is quick where runs of them ascend.
    """
    indices = np.argsort(first, kind="stable")
    ascending = first[indices]
    meets = ascending[1:] == ascending[:-1]
    if meets.any():
        places = np.flatnonzero(np.append(meets, False) | np.append(False, meets))
        among = indices[places]
        indices[places] = among[np.lexsort((order[among], second[among], first[among]))]
    return indices


def _merge(older: _Run, newer: _Run) -> Iterator[Any]:
    """The entries of both, in parts that fit into memory."""
    at = {older: 0, newer: 0}
    while any(at[run] < run.size for run in at):
        # Up to the smallest of the keys at which a next part would end: below it neither run has more.
        ends = [int(run.first[at[run] + _MERGED_AT_ONCE]) for run in at if at[run] + _MERGED_AT_ONCE < run.size]
        bound = min(ends, default=None)
        parts: list[Any] = []
        for run, begin in at.items():
            end = run.size if bound is None else int(np.searchsorted(run.first, np.uint64(bound), side="right"))
            parts.append(run.entries(begin, end))
            at[run] = end
        yield _distinct(np.concatenate(parts))
