"""What every part of the demo needs: the example's folder, a workspace that may be replaced, a service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mainstay.errors import Failed, Misuse
from mainstay.server.supervisor import wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.cli.demo_story import Scene

MARKER = ".mainstay-demo"  # a directory that this demo made, and may therefore replace
READY_SECONDS = 60.0


def find_example() -> Path:
    """The flights example: beside the package when it is installed, in the checkout when it is not."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples" / "flights", package.parents[1] / "examples" / "flights"):
        if place.is_dir():
            return place
    raise Failed("the flights example is not part of this installation", hint="Clone the repository and run make demo.")


def empty_directory(directory: Path) -> None:
    """Make a directory, in place of what an earlier demo left there. Raises Misuse where somebody else's files are."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise Misuse(f"{directory} exists and was not made by this demo", hint="Name another with --directory.")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


@contextmanager
def serving(scene: Scene) -> Iterator[subprocess.Popen[bytes]]:
    """`mainstay up` with two workers, in a process of its own; drained at the end."""
    workspace = scene.workspace
    workspace.run.mkdir(parents=True, exist_ok=True)
    log = workspace.run / "up.log"
    command = [sys.executable, "-m", "mainstay.cli.main", "up", "--workspace", str(workspace.root)]
    command += ["--port", scene.url.rpartition(":")[2], "--workers", "2", "--with-parent"]
    with log.open("wb") as output:
        service = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        try:
            with scene.story.working("starting two workers"):
                wait_until_ready(scene.url, READY_SECONDS, alive=lambda: service.poll() is None)
        except Failed as error:
            raise Failed(f"{error.message}\n{log.read_text()[-2000:]}") from None
        scene.story.say(f"serving at {scene.url} with two workers")
        yield service
    finally:
        service.terminate()
        service.wait()
