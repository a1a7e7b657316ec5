from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mainstay.batch.upkeep import keep_scheduled
from mainstay.catalog.releases import capabilities_with_releases
from mainstay.cli.common import API_KEY_VARIABLE, DEFAULT, Common, err, out, signing_key
from mainstay.cli.settings_record import record_settings
from mainstay.decision.retention import DeclaredRetention
from mainstay.intake.upkeep import keep_taken_in
from mainstay.lake.upkeep import keep_exported
from mainstay.ledger.upkeep import keep_sealed
from mainstay.monitoring.upkeep import keep_monitored
from mainstay.processes import end_with_parent, set_up_logging, stop_at_signals
from mainstay.rollout.upkeep import keep_steered
from mainstay.server.supervisor import Supervisor
from mainstay.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("mainstay.control")

Port = Annotated[int | None, Parameter(help="Instead of the workspace's setting.")]
Workers = Annotated[int | None, Parameter(help="Processes that serve, instead of the workspace's setting.")]

WithParent = Annotated[bool, Parameter(negative="", show=False)]  # end when the process that started this one does


def up(
    *,
    port: Port = None,
    workers: Workers = None,
    with_parent: WithParent = False,
    common: Common = DEFAULT,
) -> None:
    """Run all of it: the workers that serve decisions and the process that seals the ledger. Ctrl-C drains and ends.

    Example: mainstay up --workers 4
    """
    if with_parent:
        end_with_parent()
    workspace = adjusted(common.open(), port, workers)
    _run(workspace, Supervisor(workspace, control=control_command(workspace.root)))


def serve(*, port: Port = None, workers: Workers = None, common: Common = DEFAULT) -> None:
    """Run the data plane alone: decisions are served and recorded, and sealed when a control process runs.

    Example: mainstay serve
    """
    workspace = adjusted(common.open(), port, workers)
    _run(workspace, Supervisor(workspace))


def control(
    *,
    with_parent: WithParent = False,
    common: Common = DEFAULT,
) -> None:
    """Run the control plane alone: new records are sealed into the log, and indexed.

    Example: mainstay control
    """
    workspace = common.open()
    set_up_logging("control")
    if with_parent:
        end_with_parent()
    stop = stop_at_signals()
    key = signing_key(workspace)
    try:
        record_settings(workspace, "found by mainstay control when it began")
    except OSError as error:
        logger.error("settings not recorded, as the next start will: %s", error)  # noqa: TRY400 - the errno says all
    keep_exported(workspace, stop)
    keep_taken_in(workspace, stop)
    keep_scheduled(workspace, stop)
    keep_monitored(workspace, stop)
    keep_steered(workspace, stop)
    keep_sealed(workspace, key, stop, retention=DeclaredRetention(workspace, key.verifier))


def control_command(root: Path) -> list[str]:
    """How a supervisor starts the control process."""
    return [sys.executable, "-m", "mainstay.cli.main", "control", "--with-parent", "--workspace", str(root)]


def adjusted(workspace: Workspace, port: int | None, workers: int | None) -> Workspace:
    """The workspace with what the command line says instead of its settings; raises Misuse when out of bounds."""
    said = {name: value for name, value in (("port", port), ("workers", workers)) if value is not None}
    return workspace.with_settings(said, lambda name: f"--{name}")


def _run(workspace: Workspace, supervisor: Supervisor) -> None:
    set_up_logging("mainstay")

    def say(url: str) -> None:
        names = capabilities_with_releases(workspace.releases)
        out.print(f"ready at {url}, {workspace.settings.workers} workers")
        for name in names:
            out.print(f"  POST {url}/v1/capabilities/{name}/decisions")
        if not names:
            err.print("nothing is in production yet: mainstay register DIR, then mainstay promote NAME")
        err.print(f'Calls carry a key: -H "Authorization: Bearer ${API_KEY_VARIABLE}". Ctrl-C drains and ends.')

    supervisor.run(on_ready=say)
