"""A process that gives the retraining pass its turns: `python -m retraining.steering_process WORKSPACE`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from threading import Event

from mainstay.cli.common import signing_key
from mainstay.retraining.passing import RetrainingPass
from mainstay.state.database import open_database
from mainstay.state.passes import run_passes
from mainstay.workspace import open_workspace

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    workspace = open_workspace(Path(sys.argv[1]))
    with open_database(workspace) as database:
        run_passes(database, 2.0, [RetrainingPass(workspace, signing_key(workspace))], Event())
