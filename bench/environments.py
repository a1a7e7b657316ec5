"""Other tools have virtual environments of their own, beside this repository's, from lists that are pinned by hash."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ENVIRONMENTS: Final = HERE.parent / ".bench"


def python_of(name: str) -> Path:
    """The interpreter of `.bench/NAME`, which is made anew when peers/NAME/requirements.txt has changed.

    Raises SystemExit without uv, and CalledProcessError when it does not succeed.
    """
    requirements = HERE / "peers" / name / "requirements.txt"
    home = ENVIRONMENTS / name
    python, stamp = home / "bin" / "python", home / "installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        uv = _uv()
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        exactly = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode"]
        subprocess.run([uv, "pip", "sync", *exactly, "--python", str(python), str(requirements)], check=True)
        stamp.write_text(wanted)
    return python


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise SystemExit("error: expected uv beside this Python or on PATH, found none; run make lint, it installs uv")
    return found
