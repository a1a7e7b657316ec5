"""The child that trains: `python -m mainstay.retraining.train_child DIRECTORY`.

Only `mainstay.retraining.training` starts it. It reads `request.json` there, calls the function with the frozen rows
and the copy of the folder beside it, and writes `reply.json`.
"""

from __future__ import annotations

import os
import random
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mainstay.catalog.conversion import Refusal
from mainstay.retraining.training import FOLDER, REPLY, REQUEST, ROWS, Done, TrainRequest
from mainstay.runtime.child import RefusedModel, describe, import_function
from mainstay.runtime.confinement import confine, die_with

MAX_FILE_BYTES = 2 << 30


def main() -> None:
    """Train as the request in the directory named on the command line asks."""
    directory = Path(sys.argv[1])
    request = msgspec.json.decode((directory / REQUEST).read_bytes(), type=TrainRequest)
    die_with(request.parent)
    _limit(request)
    sys.dont_write_bytecode = True
    confine(directory / FOLDER, directory)
    random.seed(request.seed)
    np.random.seed(request.seed)  # noqa: NPY002 - the folder's code may use the one that libraries share
    (directory / REPLY).write_bytes(msgspec.json.encode(_train(directory, request)))


def _limit(request: TrainRequest) -> None:
    for kind, bound in (
        (resource.RLIMIT_AS, request.memory_bytes),
        (resource.RLIMIT_CPU, request.cpu_seconds),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (bound, bound))


def _train(directory: Path, request: TrainRequest) -> Done | Refusal:
    folder = directory / FOLDER
    os.chdir(folder)  # as whoever wrote the code ran it
    try:
        function: Any = import_function(str(folder), request.call)
        function(rows=directory / ROWS, folder=folder, seed=request.seed)
    except RefusedModel as refused:
        return Refusal(message=f"retraining.train: {refused.message}", hint=refused.hint)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the folder's code raises is told to its owner
        return Refusal(message=f"training raised {describe(error, str(folder))}")
    return Done()


if __name__ == "__main__":
    main()
