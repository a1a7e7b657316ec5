"""Finding back to one state after the sealer ended anywhere: the files of the log, the state and the checkpoint agree.

The order of writing is tiles and bodies, then the state, then the checkpoint, then deletions. So a crash leaves files
beyond the state, which nobody refers to, or a checkpoint older than the state, which is signed again. A state older
than the checkpoint comes only from a restored backup or a removed file; what the checkpoint promises holds, and the
entries already in the log are found again in the segments by their ids, so that none is sealed twice.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mainstay.errors import Damaged
from mainstay.files import write_atomic
from mainstay.ledger.archives import archived_until
from mainstay.ledger.entry import read_id
from mainstay.ledger.merkle import EMPTY_ROOT, tree_root
from mainstay.ledger.note import Checkpoint, sign_checkpoint, verify_checkpoint
from mainstay.ledger.state import (
    CHECKPOINT_FILE,
    STATE_FILE,
    STATE_FORMAT,
    WAL_FOLDER,
    Progress,
    State,
    load_state,
    save_state,
)
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    MAX_LEVEL,
    WIDTH,
    WIDTH_BITS,
    TileName,
    hashes_of,
    node_in_tiles,
    read_hashes,
    read_tile,
    remove_partials,
    split_leaves,
)
from mainstay.ledger.wal import UNBORN_SUFFIX, SegmentReader, is_live, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.entry import EntryId
    from mainstay.signing import SigningKey

UNBORN_SECONDS = 60.0  # a segment is locked and named within milliseconds, or its writer has died


def now() -> str:
    """The present instant, RFC 3339, UTC, microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def recover(root: Path, key: SigningKey, origin: str) -> State:
    """The state of the log, once it and the checkpoint agree with each other and with the tiles.

    Raises Damaged, with nothing changed, when they cannot be made to.
    """
    checkpoint = _load_checkpoint(root, key, origin)
    state = load_state(root)
    if state is None and checkpoint is None:
        state = _begin(root)
    if checkpoint is not None and (state is None or state.size < checkpoint.size):
        state = _catch_up(root, state, checkpoint)
    assert state is not None
    _check(root, state, checkpoint)
    if checkpoint is None or checkpoint.size < state.size:
        publish(root, state, key, origin)
    return state


def publish(root: Path, state: State, key: SigningKey, origin: str) -> None:
    """Sign the state as the log's checkpoint."""
    checkpoint = Checkpoint(origin, state.size, bytes.fromhex(state.root))
    write_atomic(root / CHECKPOINT_FILE, sign_checkpoint(checkpoint, key))


def _load_checkpoint(root: Path, key: SigningKey, origin: str) -> Checkpoint | None:
    try:
        content = (root / CHECKPOINT_FILE).read_bytes()
    except FileNotFoundError:
        return None
    return verify_checkpoint(content, key.verifier, origin)


def _begin(root: Path) -> State:
    for folder in ("tile", BODIES):
        if (root / folder).exists():
            raise Damaged(
                f"{root / folder}: expected nothing where there is no checkpoint, found files",
                hint=f"Restore {CHECKPOINT_FILE} and {STATE_FILE} from a backup; the log cannot be continued without.",
            )
    state = State(STATE_FORMAT, 0, EMPTY_ROOT.hex(), 0, now(), {})
    save_state(root, state)
    return state


def _check(root: Path, state: State, checkpoint: Checkpoint | None) -> None:
    """The tiles must make the heads that the state and the checkpoint, not newer than it, say."""
    if checkpoint is None and state.size:
        raise Damaged(
            f"{CHECKPOINT_FILE}: expected one for a log of {state.size} entries, found none",
            hint="Restore it from a backup; without it nothing shows that this log was the one before.",
        )
    node = node_in_tiles(lambda level, index: read_hashes(root, level, index, state.size))
    heads = [(state.size, state.root, STATE_FILE)]
    if checkpoint is not None:
        heads.append((checkpoint.size, checkpoint.root.hex(), CHECKPOINT_FILE))
    for size, expected, file in heads:
        found = tree_root(size, node).hex()
        if found != expected:
            raise Damaged(
                f"{file}: expected the head {expected} over {size} entries, found {found} in the tiles",
                hint="Run `mainstay ledger verify` to see which file was changed, and restore it from a backup.",
            )


def _catch_up(root: Path, state: State | None, checkpoint: Checkpoint) -> State:
    """A state as new as the checkpoint, from an older one or none."""
    sealed = {(each.segment, each.counter) for each in _ids(root, state.size if state else 0, checkpoint.size)}
    known = state.segments if state else {}
    progress = {}
    for path in segments(root / WAL_FOLDER):
        before = known.get(path.stem, Progress(0, 0))
        reader = SegmentReader(path, before.offset)
        entries, offset = before.entries, before.offset
        for group in reader.groups():
            ids = [read_id(entry.leaf) for entry in group.entries]
            there = sum(each is not None and (each.segment, each.counter) in sealed for each in ids)
            if there == 0:
                break
            if there < len(ids):
                raise Damaged(
                    f"{path}: expected a group to be sealed whole, found {there} of {len(ids)} entries sealed"
                )
            entries, offset = entries + there, group.end
        progress[path.stem] = Progress(offset, entries)
    caught_up = State(
        STATE_FORMAT, checkpoint.size, checkpoint.root.hex(), state.swept if state else 0, now(), progress
    )
    _check(root, caught_up, checkpoint)
    save_state(root, caught_up)
    return caught_up


def _ids(root: Path, start: int, end: int) -> Iterator[EntryId]:
    # Entries leave with an archive only when no segment holds them any more, so that none can be sealed again.
    start = max(start, archived_until(root))
    for index in range(start // WIDTH, -(-end // WIDTH)):
        width = min(WIDTH, end - index * WIDTH)
        for leaf in split_leaves(read_tile(root, TileName(ENTRIES, index, width)), width):
            found = read_id(leaf)
            if found is not None:
                yield found


def remove_leftovers(root: Path, state: State) -> None:
    """Delete what a sealer that was killed left behind: temporary files, tiles beyond the state, superseded tiles."""
    for path in root.glob(".*.tmp"):
        path.unlink(missing_ok=True)  # some belong to others, who are done with them now
    _remove_unborn(root / WAL_FOLDER)
    folders = [(ENTRIES, 0), *((hashes_of(level), level) for level in range(MAX_LEVEL + 1))]
    for folder, level in folders:
        shift = WIDTH_BITS * (level + 1)
        edge = state.size >> shift
        for index in range(state.swept >> shift, edge):
            remove_partials(root, folder, index)
        keep = (state.size >> (WIDTH_BITS * level)) % WIDTH
        while _remove_tile(root, folder, edge, keep) or keep:
            edge, keep = edge + 1, 0
    bodies = -(-state.size // WIDTH)
    while _unlink(root / TileName(BODIES, bodies).path):
        bodies += 1


def _remove_tile(root: Path, folder: str, index: int, keep: int) -> bool:
    """Delete a full tile and its partial forms wider than `keep`; whether there were any."""
    partial = remove_partials(root, folder, index, except_up_to=keep)
    return _unlink(root / TileName(folder, index).path) or partial


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _remove_unborn(directory: Path) -> None:
    for path in directory.glob("*" + UNBORN_SUFFIX):
        with contextlib.suppress(FileNotFoundError):  # it was born just now
            if time.time() - path.stat().st_mtime > UNBORN_SECONDS and not is_live(path):
                path.unlink()
