"""Counting what is new: decisions and labels of a capability into its windows, each exactly once.

The table `windows/CAPABILITY` knows how far in the ledger it has come, and what of that still waits for bins.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from mainstay.catalog.declared import load_declared
from mainstay.errors import MainstayError
from mainstay.lake.decision_rows import DAY
from mainstay.monitoring.estimation_counts import count_scores
from mainstay.monitoring.event_time import decisions_in_time, outcomes_in_time
from mainstay.monitoring.evidence import Evidence, columns_of, parse
from mainstay.monitoring.label_counts import count_business, count_labels
from mainstay.monitoring.labelled import join, read_labelled
from mainstay.monitoring.layouts import MOST_FIRST_ROWS, Layouts, as_segment, make_layout, watched_of
from mainstay.monitoring.reference_rows import fit_version, known_of, read_rows, run_version
from mainstay.monitoring.selective_counts import count_ended, count_truths, with_proposals
from mainstay.monitoring.windows import PREFIX, SCHEMA, count_columns, count_service, flat, frame_of, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.capability.keeping import Monitoring
    from mainstay.capability.load import Declared
    from mainstay.catalog.reference import ReferenceRows
    from mainstay.catalog.types import Digest
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.monitoring.evidence import Batch
    from mainstay.monitoring.layouts import Layout
    from mainstay.monitoring.reference_rows import Ran
    from mainstay.monitoring.windows import Row
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.monitoring")

WRITER: Final = "monitor"
FIRST_TIMES_MIN_ROWS: Final = 4  # answers of a version, in `min_rows`, that its reference is made of at least
_WAITING: Final = "waiting"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Folded(NamedTuple):
    """What one pass counted."""

    position: int  # of the ledger, behind the last row that was looked at
    decisions: int
    outcomes: int
    commits: int


class _Waiting(NamedTuple):
    """Decisions of a version that has no bins yet."""

    first: int  # position of the first of them
    rows: int
    answered: int
    since_micros: int  # the time of the first of them, since 1970

    def is_enough(self, declared: Monitoring, newest: datetime) -> bool:
        """Whether bins can be made of them: they are many, and of a whole window, or more than are needed."""
        step = timedelta(hours=declared.step_hours)
        since = _EPOCH + timedelta(microseconds=self.since_micros)
        covered = (newest - _EPOCH) // step - (since - _EPOCH) // step + 1
        many = FIRST_TIMES_MIN_ROWS * declared.min_rows
        return self.rows >= MOST_FIRST_ROWS or (
            self.answered >= many and covered * step >= timedelta(hours=declared.window_hours)
        )


class Folder:
    """Counts the rows of one capability. An object is for one thread; two at work at once do no harm."""

    def __init__(self, workspace: Workspace, lake: Lake, capability: str) -> None:
        self._workspace = workspace
        self._lake = lake
        self._capability = capability
        self._layouts = Layouts(lake, capability)
        self._declared: dict[Digest, Declared | None] = {}

    def layout(self, version: Digest) -> Layout | None:
        """The layout of a version; None while it has made too few decisions. Raises Failed as the storage does."""
        return self._layouts.find(version)

    def table(self) -> Table | None:
        """The windows; None while nothing was counted."""
        return self._lake.find(PREFIX + self._capability)

    def fold(self, stop: Callable[[], bool] = lambda: False) -> Folded:
        """Count all that is new, or until `stop` says so. Raises Failed when the storage does not answer."""
        evidence = Evidence(self._lake, self._capability)
        table = self.table()
        position = (None if table is None else table.position(WRITER)) or 0
        done = Folded(position, 0, 0, 0)
        for batch in evidence.batches(position):
            table = table or self._lake.create(PREFIX + self._capability, SCHEMA, partition_by=[DAY])
            made = self._commit(table, evidence, batch)
            done = Folded(
                batch.last,
                done.decisions + batch.decisions.height,
                done.outcomes + batch.outcomes.height,
                done.commits + made,
            )
            del batch  # before the next one is read
            if stop():
                break
        return done

    def _commit(self, table: Table, evidence: Evidence, batch: Batch) -> bool:
        reached = table.refresh().position(WRITER)
        if reached is not None and reached >= batch.last:
            return False
        if reached is not None and reached > batch.first:  # another pass came between, with other batches
            batch = batch.after(reached)
        cursor = table.cursor(WRITER) or {}
        waiting = {version: _Waiting(*held) for version, held in cursor.get(_WAITING, {}).items()}
        found: list[pl.DataFrame] = []
        for version, decisions in _by_version(batch.decisions):
            declared = self._declared_by(version)
            if declared is not None:
                timed = decisions_in_time(decisions, declared.capability.monitoring)
                found += self._count(evidence, batch, declared, timed, waiting)
        found += self._count_labels(evidence, batch)
        done = table.append(
            found,
            writer=WRITER,
            position=batch.last,
            metadata={_WAITING: waiting},
            previous=-1 if reached is None else reached,
        )
        return done.made

    def _count(
        self,
        evidence: Evidence,
        batch: Batch,
        declared: Declared,
        decisions: pl.DataFrame,
        waiting: dict[str, _Waiting],
    ) -> list[pl.DataFrame]:
        """The counts of the decisions of a version; those that wait for its bins are noted in `waiting`."""
        monitoring, version = declared.capability.monitoring, decisions["version"][0]
        hours = monitoring.step_hours
        rows = count_service(decisions, hours)
        rows += count_business(monitoring.business, decisions, hours, 1, labelled=False)
        layout, own = self._layouts.find(version), readable(decisions)
        found = [frame_of(rows)]
        if own.height:
            read = flat(own, watched_of(declared))
            found.append(count_ended(monitoring.labels, own, read, hours))
            if layout is not None and version not in waiting:
                return found + _counted(read, layout, monitoring)
        elif layout is not None and version not in waiting:
            return found
        first_micros = int(decisions["at"].dt.epoch("us")[0])
        held = waiting.get(version, _Waiting(int(decisions["sequence"][0]), 0, 0, first_micros))
        answered = own.filter(pl.col("outcome") == "answered").height
        held = held._replace(rows=held.rows + own.height, answered=held.answered + answered)
        if layout is None and not held.is_enough(monitoring, decisions["at"].max()):  # type: ignore[arg-type]  # an instant
            waiting[version] = held
            return found
        waiting.pop(version, None)
        everything = readable(
            decisions_in_time(evidence.decisions(held.first, batch.last, version, 1 << 62), monitoring)
        )
        if not everything.height:
            return found
        flattened = flat(everything, watched_of(declared))
        layout = layout or self._make_layout(version, declared, _first(flattened, monitoring))
        return [*found, *_counted(flattened, layout, monitoring)]

    def _make_layout(self, version: Digest, declared: Declared, first: pl.DataFrame) -> Layout:
        watched = watched_of(declared)
        known = estimator = None
        try:
            rows = read_rows(self._workspace, version, declared)
        except (MainstayError, OSError) as error:
            logger.warning("reference rows of version %s not read, its first decisions count: %s", version, error)
            rows = None
        if rows is not None:
            ran = self._run(version, declared, rows)
            known = known_of(declared, rows, ran)
            if ran is not None and ran.results is not None:
                estimator = fit_version(declared, watched, rows, ran.results, first.height)
        layout = make_layout(version, watched, first, known, estimator)
        return self._layouts.keep(layout, datetime.now(UTC))

    def _run(self, version: Digest, declared: Declared, rows: ReferenceRows) -> Ran | None:
        """What the version gives for its reference rows; None, and said in the log, where it cannot be compiled."""
        try:
            return run_version(self._workspace, version, declared, rows)
        except (MainstayError, OSError, ValueError, RuntimeError) as error:  # as for the data plane: a runtime's own
            logger.warning("version %s not compiled, its first decisions count for outputs: %s", version, error)
            return None

    def _count_labels(self, evidence: Evidence, batch: Batch) -> list[pl.DataFrame]:
        """What became true of decisions: new labels count, and those that they correct are taken back."""
        if not batch.outcomes.height:
            return []
        # Of what was decided just now the rows are at hand.
        near = batch.decisions.join(batch.outcomes, left_on="id", right_on="decision_id", how="semi")
        others = batch.outcomes.join(near, left_on="decision_id", right_on="id", how="anti")
        decisions = _together(near, evidence.decisions_of(others, batch.last))
        if not decisions.height:
            return []
        before = evidence.outcomes_of(decisions, batch.first)
        by_key = before.filter(pl.col("decision_id").is_null())
        if by_key.height:  # whose they are is only known among all decisions with these keys
            decisions = _together(decisions, evidence.decisions_of(by_key, batch.last))
        found: list[pl.DataFrame] = []
        for version, own in _by_version(decisions):
            declared = self._declared_by(version)
            if declared is not None:
                timed = decisions_in_time(own, declared.capability.monitoring)
                found += self._count_labels_of(declared, timed, before, pl.concat([before, batch.outcomes]))
        return found

    def _count_labels_of(
        self, declared: Declared, decisions: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame
    ) -> list[pl.DataFrame]:
        monitoring = declared.capability.monitoring
        layout = self._layouts.find(decisions["version"][0])
        segments = {} if layout is None else layout.segments
        if monitoring.labels is None and not monitoring.business:
            return []
        new = self._labelled(declared, decisions, after, segments)
        by_key = before.filter(pl.col("decision_id").is_null())
        if before.height and (
            decisions.join(before, left_on="id", right_on="decision_id", how="semi").height
            or decisions.join(by_key, on="key", how="semi").height
        ):
            old = self._labelled(declared, decisions, before, segments)
        else:
            old = new.with_columns(
                pl.lit(None, pl.String).alias("outcome_json"), pl.lit(None, new["truth"].dtype).alias("truth")
            )
        changed = new["outcome_json"].ne_missing(old["outcome_json"])
        rows: list[Row] = []
        found: list[pl.DataFrame] = []
        for frame, sign in ((old.filter(changed), -1), (new.filter(changed), 1)):
            if monitoring.labels is not None:
                rows += count_labels(monitoring.labels, frame, segments, monitoring.step_hours, sign)
                found.append(count_truths(monitoring.labels, frame, monitoring.step_hours, sign))
            told = frame["outcome_json"].is_not_null()
            joined = decisions.filter(changed).with_columns(frame["outcome_json"]).filter(told)
            rows += count_business(monitoring.business, joined, monitoring.step_hours, sign, labelled=True)
        return [frame_of(rows), *found]

    def _labelled(
        self, declared: Declared, decisions: pl.DataFrame, outcomes: pl.DataFrame, segments: dict[str, tuple[str, ...]]
    ) -> pl.DataFrame:
        """Decisions with what became of them, and the values of their segment fields as texts."""
        labels = declared.capability.monitoring.labels
        if labels is None:
            return join(decisions, outcomes)[0]
        monitoring = declared.capability.monitoring
        frame = read_labelled(labels, with_proposals(decisions), outcomes_in_time(outcomes, monitoring)).frame
        if not segments:
            return frame
        kinds = columns_of(declared.input)
        read = parse(decisions["input"], pl.Schema({field: kinds[field] for field in segments}))
        return frame.with_columns(as_segment(read[field]).alias(f"segment.{field}") for field in segments)

    def _declared_by(self, version: Any) -> Declared | None:
        """What a version declares; None, and said in the log, where it cannot be read or is of no capability here."""
        if version not in self._declared:
            try:
                self._declared[version] = load_declared(self._workspace, version)
            except (MainstayError, OSError, TypeError) as error:
                logger.warning("not watched: version %s: %s", version, error)
                self._declared[version] = None
        return self._declared[version]


def _by_version(decisions: pl.DataFrame) -> Iterator[tuple[Any, pl.DataFrame]]:
    """The decisions of each version that say when they were made; of one version alone they are not copied."""
    known = decisions.drop_nulls("at")
    if known["version"].n_unique() == 1:
        yield known["version"][0], known
        return
    for (version,), own in known.group_by("version", maintain_order=True):
        yield version, own


def _together(decisions: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    """Both, each decision once, in their order. Both are so in themselves."""
    new = more.join(decisions, on="sequence", how="anti")
    return pl.concat([decisions, new]).sort("sequence") if new.height else decisions


def _first(rows: pl.DataFrame, declared: Monitoring) -> pl.DataFrame:
    """The first decisions of a version that its reference is made of: those of its first window, or some more."""
    ordered = rows.sort("at", maintain_order=True)
    until = ordered["at"][0] + timedelta(hours=declared.window_hours)
    within = ordered.filter(pl.col("at") < until).height
    return ordered.head(min(MOST_FIRST_ROWS, max(within, FIRST_TIMES_MIN_ROWS * declared.min_rows)))


def _counted(rows: pl.DataFrame, layout: Layout, declared: Monitoring) -> list[pl.DataFrame]:
    """The counts of columns, and of scores where quality is estimated. `rows` is `flat`."""
    hours = declared.step_hours
    return [count_columns(rows, layout, hours), count_scores(rows, layout, declared.labels, hours)]
