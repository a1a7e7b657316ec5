"""What no committed text may hold: paths of a machine, addresses of registries, notes to oneself."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Put together from pieces, so that this file passes its own rule.
_FOLDERS: Final = ("work", "root", "home", "Users")
_HOSTS: Final = ("pypi" + ".org", "files.python" + "hosted.org", "registry." + "npmjs.org")
_NOTES: Final = ("TO" + "DO", "FIX" + "ME", "X" + "XX")

_FORBIDDEN: Final = (
    ("a path of a machine", re.compile(rf"(?<![\w.~/-])/(?:{'|'.join(_FOLDERS)})/")),
    ("a registry's address", re.compile("|".join(map(re.escape, _HOSTS)), re.IGNORECASE)),
    # Quoted, it is the word itself: what an unanswered question in a drafted folder begins with.
    ("a note to oneself", re.compile(rf"(?<![`'\"])\b(?:{'|'.join(_NOTES)})\b")),
)


def forbidden_texts(files: Iterable[Path], root: Path) -> Iterator[str]:
    """Each line of the text files that holds what none may hold. Files that are not UTF-8 text are passed over."""
    for path in files:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for what, pattern in _FORBIDDEN:
                if match := pattern.search(line):
                    yield f"{path.relative_to(root)}:{number}: {match[0]!r} is {what}; it has no place here"


def committed_files(root: Path) -> list[Path]:
    """What git has, or would take: known files and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - the caller's git
        cwd=root,
        capture_output=True,
        timeout=30,
        check=True,
    )
    paths = {root / name for name in listed.stdout.decode().split("\0") if name}
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())
