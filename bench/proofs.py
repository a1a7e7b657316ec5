"""How long a proof takes to make and to check, in a log of ten million entries.

    python bench/proofs.py [--entries 10000000] [--samples 1000] [--directory DIR]

The log is built through `LogWriter`, which is the sealer without the write-ahead log: decisions with short leaves
(about 200 bytes) and bodies, in the order in which two workers are sealed in turn, and then indexed. That takes about
450 bytes of disk for each entry, given back at the end. Then proofs of random entries are made, each from the id as a
caller has it. Nothing is kept in the process from one to the next: each opens the index and the log anew. All are
measured twice: with the files out of the kernel's page cache, and then in it. Wall time counts whoever else wants the
disk and the cores; CPU time does not.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mainstay.ledger.entry import SALT_BYTES, Entry, commitment, format_id
from mainstay.ledger.find import find_entry
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.proof import prove_entry, verify_proof
from mainstay.ledger.sealer import BATCH_ENTRIES
from mainstay.ledger.state import Progress
from mainstay.ledger.writer import LogWriter
from mainstay.signing import create_signing_key, load_verifier

if TYPE_CHECKING:
    from mainstay.signing import SigningKey, Verifier

ORIGIN = "bench.example.com/log"
BEGUN_MS = 1_767_225_600_000
WORKERS = 2
PASS_ENTRIES = 2_048  # what a pass of the sealer takes of one worker before it comes to the next
SEGMENT_ENTRIES = 50_000  # records of the usual size that fill a segment
GOAL_MS = 5.0
STEPS = ("find", "prove", "both", "check")


def id_at(sequence: int) -> str:
    """The id of an entry of the log that `build` writes."""
    turn, within = divmod(sequence, PASS_ENTRIES)
    own = turn // WORKERS * PASS_ENTRIES + within
    number, counter = divmod(own, SEGMENT_ENTRIES)
    return format_id(f"{turn % WORKERS:x}{number:09x}", counter, BEGUN_MS + sequence // 50)


def entry_at(sequence: int) -> Entry:
    """An entry of that log."""
    salt, body = sequence.to_bytes(SALT_BYTES, "big"), b'{"key":null,"output":null}'
    leaf = (
        f'{{"kind":"decision","id":"{id_at(sequence)}","at":"2026-01-01T00:00:00.{sequence % 1_000_000:06d}Z",'
        f'"capability":"late-arrival","outcome":"answered","body":"{commitment(salt, body)}"}}'
    )
    return Entry(leaf.encode(), salt, body)


def build(ledger: Path, key: SigningKey, count: int) -> None:
    """A sealed and indexed log of `count` entries."""
    begun = time.perf_counter()
    ledger.mkdir(parents=True)
    writer = LogWriter(ledger, key, ORIGIN)
    for first in range(0, count, BATCH_ENTRIES):
        batch = [entry_at(sequence) for sequence in range(first, min(count, first + BATCH_ENTRIES))]
        writer.append(batch, {"0" * 10: Progress(first, first)})
    sealed = time.perf_counter()
    with Index(ledger) as index:
        index.catch_up(Log(ledger))
    indexed = time.perf_counter()
    print(f"{count:,} entries: written in {sealed - begun:.0f} s, indexed in {indexed - sealed:.0f} s", flush=True)


def drop_cached(directory: Path) -> int:
    """Ask the kernel to forget the content of every file; the bytes of all of them."""
    total = 0
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            total += os.fstat(descriptor).st_size
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    return total


class Clock:
    """Wall and CPU milliseconds between readings."""

    def __init__(self) -> None:
        self._at = self._read()

    def lap(self) -> tuple[float, float]:
        """Since the last reading."""
        before, self._at = self._at, self._read()
        return (self._at[0] - before[0]) * 1000, (self._at[1] - before[1]) * 1000

    @staticmethod
    def _read() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()


def measure(ledger: Path, verifier: Verifier, sequences: list[int]) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU milliseconds of each step for each entry."""
    times: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
    for sequence in sequences:
        entry_id, clock = id_at(sequence), Clock()
        found = find_entry(ledger, entry_id)
        located = clock.lap()
        assert found is not None
        assert found.sequence == sequence
        made = prove_entry(ledger, sequence, found.entry, verifier)
        proved = clock.lap()
        proven = verify_proof(made.content, verifier)
        checked = clock.lap()
        assert (proven.sequence, proven.leaf) == (sequence, entry_at(sequence).leaf)
        both = (located[0] + proved[0], located[1] + proved[1])
        for step, lap in zip(STEPS, (located, proved, both, checked), strict=True):
            times[step].append(lap)
    return times


def show(title: str, times: dict[str, list[tuple[float, float]]]) -> None:
    """Median, 99th percentile and maximum of each step."""
    for step, laps in times.items():
        wall, cpu = (sorted(values) for values in zip(*laps, strict=True))
        p99 = len(laps) * 99 // 100
        goal = f"under {GOAL_MS:g} ms" if step == "both" else ""
        row = (median(wall), wall[p99], wall[-1], median(cpu), cpu[p99])
        print(f"{title:14} {step:6} {''.join(f'{value:>9.2f}' for value in row)}  {goal}", flush=True)


def main() -> None:
    """Build the log, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the log is left, and measured again if it stands there"
    )
    options = parser.parse_args()
    if options.directory is not None:
        run(options.directory, options.entries, options.samples)
        return
    with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as directory:
        run(Path(directory), options.entries, options.samples)


def run(directory: Path, entries: int, samples: int) -> None:
    """Measure the log in `directory`, which is built unless it is there."""
    ledger, keys = directory / "ledger", directory / "keys"
    if not (directory / "built").exists():
        build(ledger, create_signing_key(keys, ORIGIN, None), entries)
        (directory / "built").write_text(str(entries))
    verifier = load_verifier(keys)
    sequences = random.Random(6962).choices(range(Log(ledger).size), k=samples)
    print(f"{drop_cached(ledger) / 1e9:.1f} GB on disk; {samples:,} random entries, milliseconds\n")
    print(f"{'files':14} {'step':6} {'median':>9}{'p99':>9}{'max':>9}{'CPU':>9}{'CPU p99':>9}  goal")
    for title in ("not in memory", "in memory"):
        show(title, measure(ledger, verifier, sequences))


if __name__ == "__main__":
    main()
