from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.errors import Damaged
from mainstay.ledger.entry import leaf_hash
from mainstay.ledger.merkle import HASH_BYTES
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    FOLDERS,
    WIDTH,
    Edge,
    FileBatch,
    TileName,
    format_index,
    hashes_of,
    pack_body,
    pack_leaf,
    parse_name,
    read_hashes,
    read_tile,
    remove_partials,
    split_bodies,
    split_leaves,
    widths,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_paths_are_those_of_the_specification() -> None:
    assert format_index(1_234_067) == "x001/x234/067"
    assert TileName(hashes_of(0), 1_234_067).path == "tile/0/x001/x234/067"
    assert TileName(ENTRIES, 0, 12).path == "tile/entries/000.p/12"
    assert TileName(BODIES, 1_000).path == "bodies/x001/000"


@given(st.sampled_from(FOLDERS), st.integers(0, 1 << 56), st.integers(1, WIDTH))
def test_a_path_has_one_name_and_a_name_one_path(folder: str, number: int, width: int) -> None:
    name = TileName(folder, number, width)
    assert parse_name(name.path) == name


@given(st.text("tile/entries0123456789x.pbodis", max_size=30) | st.text(max_size=30))
def test_any_other_path_is_none(path: str) -> None:
    name = parse_name(path)
    assert name is None or name.path == path


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/012",
        "tile/8/000",
    ],
)
def test_paths_that_are_nearly_right_are_none(path: str) -> None:
    assert parse_name(path) is None


def test_partial_tiles_are_those_of_the_specifications_example() -> None:
    assert widths(70_000) == [112, 17, 1]
    assert widths(256) == [0, 1]
    assert widths(0) == []


@given(st.lists(st.binary(max_size=60), max_size=20), st.binary(max_size=5))
def test_bundles_are_read_as_they_were_written(contents: list[bytes], rest: bytes) -> None:
    assert split_leaves(b"".join(map(pack_leaf, contents)) + rest, len(contents)) == contents
    packed = b"".join(pack_body(bytes(16), content) for content in contents)
    bodies, length = split_bodies(packed + rest, len(contents))
    assert [bytes(body) for body in bodies] == [bytes(16) + content for content in contents]
    assert length == len(packed)


@given(st.binary(max_size=80), st.integers(0, 5))
def test_bytes_that_are_no_bundle_are_damaged_and_nothing_else(content: bytes, count: int) -> None:
    for split in (split_leaves, split_bodies):
        try:
            split(content, count)
        except Damaged:
            continue


def head(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, of leaves by their hashes."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    return sha256(b"\x01" + head(hashes[:k]) + head(hashes[k:])).digest()


@given(st.lists(st.integers(1, 700), min_size=1, max_size=8))
@settings(deadline=None, max_examples=30)
def test_the_edge_makes_the_head_and_every_full_tile_however_leaves_arrive(parts: list[int]) -> None:
    edge, leaves = Edge(), list[bytes]()
    tiles: dict[TileName, bytes] = {}
    count = 0
    for part in parts:
        hashes = [leaf_hash(b"%d" % place) for place in range(count, count + part)]
        count += part
        leaves += hashes
        at = 0
        while at < part:
            room = WIDTH - edge.size % WIDTH
            tiles |= dict(edge.append(b"".join(hashes[at : at + room])))
            at += room
        assert (edge.size, edge.root()) == (count, head(leaves))
    partial = edge.partial_tiles()
    assert [name.width for name, _ in partial] == [width for width in widths(count) if width]
    assert len([name for name in tiles if name.folder == hashes_of(0)]) == count // WIDTH
    assert all(len(content) == name.width * HASH_BYTES for name, content in [*tiles.items(), *partial])


def test_a_log_of_many_entries_has_the_tiles_the_specification_counts() -> None:
    edge = Edge()
    names = []
    for _ in range(273):
        names += [name for name, _ in edge.append(bytes(WIDTH * HASH_BYTES))]
    names += [name for name, _ in edge.append(bytes(112 * HASH_BYTES))]
    assert sum(name.folder == hashes_of(0) for name in names) == 273
    assert [name for name in names if name.folder != hashes_of(0)] == [TileName(hashes_of(1), 0)]
    assert [name.path for name, _ in edge.partial_tiles()] == ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]


def test_a_partial_tile_that_is_gone_is_read_from_its_full_one(tmp_path: Path) -> None:
    batch = FileBatch()
    full = bytes(range(256)) * HASH_BYTES
    batch.write(tmp_path / TileName(hashes_of(0), 0).path, full)
    batch.sync()
    assert read_tile(tmp_path, TileName(hashes_of(0), 0, 3)) == full
    assert read_hashes(tmp_path, 0, 0, 3) == full[: 3 * HASH_BYTES]
    with pytest.raises(Damaged, match="tile/0/001"):
        read_tile(tmp_path, TileName(hashes_of(0), 1, 3))


def test_a_file_written_again_ends_behind_what_was_written_last(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for content, offset in [(b"0123456789", 0), (b"xy", 3)]:
        batch = FileBatch()
        batch.write(path, content, offset=offset)
        batch.sync()
    assert path.read_bytes() == b"012xy"


def test_many_files_are_written_with_few_open_at_once(tmp_path: Path) -> None:
    batch = FileBatch()
    for place in range(FileBatch.MAX_OPEN * 3):
        batch.write(tmp_path / str(place), b"%d" % place)
    batch.sync()
    assert all((tmp_path / str(place)).read_bytes() == b"%d" % place for place in range(FileBatch.MAX_OPEN * 3))


def test_superseded_partial_tiles_are_removed_and_narrower_ones_kept(tmp_path: Path) -> None:
    batch = FileBatch()
    for width in (3, 9, 200):
        batch.write(tmp_path / TileName(ENTRIES, 4, width).path, b"")
    batch.sync()
    folder = tmp_path / "tile" / "entries" / "004.p"
    assert remove_partials(tmp_path, ENTRIES, 4, except_up_to=9)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "9"]
    assert remove_partials(tmp_path, ENTRIES, 4)
    assert not folder.exists()
    assert not remove_partials(tmp_path, ENTRIES, 4)
