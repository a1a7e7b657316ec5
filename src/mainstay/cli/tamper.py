"""Changes one byte of a copy of a ledger, to show that it is found."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def flip_one_byte(copy: Path, *, seed: int) -> str:
    """Flip one bit in the entries or bodies of a copied ledger; says where."""
    random = Random(seed)  # noqa: S311 - a place to choose, not a secret
    candidates = sorted(
        path
        for folder in ("tile/entries", "bodies")
        for path in (copy / folder).rglob("*")
        if path.is_file() and path.stat().st_size
    )
    chosen = random.choice(candidates)
    content = bytearray(chosen.read_bytes())
    at = random.randrange(len(content))
    content[at] ^= 1 << random.randrange(8)
    chosen.chmod(0o640)
    chosen.write_bytes(content)
    return f"byte {at} of {chosen.relative_to(copy)} changed"
