"""Durable jobs: work of many steps that a killed process leaves where it was, and the next one finishes. By DBOS.

Only the process that runs jobs loads this module: DBOS costs a second and 60 MB. It works on the control database, in
tables of its own, under the lease of the control process: always as the same executor and the same application
version, so that whoever holds the lease takes up all that whoever held it before had begun.

A step is done at least once, so its effects carry a key that makes a second time harmless; what it returned is kept,
and it is not done again once that is written. Arguments and results are JSON: what stands in a database is data, and
nothing of it is run when it is read. DBOS reports to nobody: no traces, no metrics, no conductor; what it logs goes
where everything else does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, Self, TypeAlias, TypeVar

import msgspec
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.state.database import Database
    from mainstay.state.lease import Lease

P = ParamSpec("P")
R = TypeVar("R")

EXECUTOR: Final = "mainstay-control"
APPLICATION: Final = "mainstay"
APPLICATION_VERSION: Final = "1"  # raised when jobs that an older release began cannot be finished by this one
SCHEMA: Final = "dbos"  # of PostgreSQL; in SQLite its tables stand beside ours

_WAIT_SECONDS: Final = 10  # for steps that are under way when the process ends well

State: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
_STATES: Final[dict[str, State]] = {
    "ENQUEUED": "waiting",
    "DELAYED": "waiting",
    "PENDING": "running",
    "SUCCESS": "done",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands."""

    id: str
    state: State
    result: Any = None  # of one that is done
    problem: str = ""  # of one that failed


def job(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of a module a job: it calls steps, and given the same results of these does the same again."""
    made: Callable[P, R] = DBOS.workflow()(function)
    return made


def step(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of a module a step of jobs: it has the effects, and may be done more than once."""
    made: Callable[P, R] = DBOS.step()(function)
    return made


class Jobs:
    """The jobs of a workspace while this process runs them; one at a time in a process.

    Jobs and steps must have been made (their modules imported) before it is entered.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease

    def __enter__(self) -> Self:
        """Take up what was begun. Raises LeaseLost where another process runs them, Failed where they cannot be."""
        self._lease.renew()
        _route_logging()
        try:
            DBOS(config=_config(self._database))
            DBOS.launch()
        except Exception as error:  # noqa: BLE001 - whatever it was, what DBOS had begun is ended, and the reason told by its kind
            DBOS.destroy()
            raise Failed(f"durable jobs on {self._database}: {type(error).__name__}") from None
        return self

    def __exit__(self, *_: object) -> None:
        DBOS.destroy(workflow_completion_timeout_sec=_WAIT_SECONDS)

    def start(self, job_id: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin a job; nothing happens when one of this id was begun before, however that stands."""
        if not job_id:
            raise Misuse("a job has an id: expected one, found nothing")
        with SetWorkflowID(job_id):
            DBOS.start_workflow(function, *args, **kwargs)

    def find(self, job_id: str) -> Job | None:
        """How a job stands; None when none of this id was begun."""
        found = DBOS.get_workflow_status(job_id)
        if found is None:
            return None
        state = _STATES[found.status]
        problem = "" if state != "failed" else f"{found.status.lower()}: {found.error or 'it was begun too often'}"
        return Job(id=job_id, state=state, result=found.output if state == "done" else None, problem=problem)

    def cancel(self, job_id: str) -> None:
        """Have a job end before its next step."""
        DBOS.cancel_workflow(job_id)


def _config(database: Database) -> DBOSConfig:
    driver = "postgresql" if database.is_postgres else "sqlite"
    return DBOSConfig(
        name=APPLICATION,
        system_database_url=database.url.set(drivername=driver).render_as_string(hide_password=False),
        dbos_system_schema=SCHEMA,
        sys_db_pool_size=4,
        executor_id=EXECUTOR,
        application_version=APPLICATION_VERSION,
        serializer=DBOSPortableJSONSerializer(),
        enable_otlp=False,
        log_level="WARNING",
    )


def _route_logging() -> None:
    """Let what DBOS logs go on to the handlers of this process, in place of one that it would make itself."""
    found = logging.getLogger("dbos")
    if not found.handlers:
        found.addHandler(logging.NullHandler())
