"""What the tables say of a version on trial, folded as it comes: every row is read once, in bounded batches.

What is folded is plain data that goes into the control database together with the place in the ledger that it has
come to: whoever is killed folds the rows behind that place again, and no other. What a process only remembers (which
decisions still wait for a label, which for their shadow) it makes anew from the tables when it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import polars as pl
from msgspec import Struct

from mainstay.lake.decision_rows import DECISIONS, SCHEMAS
from mainstay.monitoring.event_time import decisions_in_time, outcomes_in_time
from mainstay.monitoring.evidence import BATCH_POSITIONS, Evidence, Reach, parse
from mainstay.monitoring.labelled import read_labelled
from mainstay.monitoring.layouts import watched_of
from mainstay.rollout import judging
from mainstay.rollout.counting import (
    ARM,
    STEP,
    Agreement,
    Keys,
    Yardstick,
    compare,
    count_arms,
    count_keys,
    count_segments,
    judged,
    loss_sums,
    with_segments,
    yardstick,
)
from mainstay.rollout.judging import Judge  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.rollout.judging_types import Arm
from mainstay.rollout.judging_types import Evidence as Arrived
from mainstay.rollout.losses import loss_of, losses
from mainstay.rollout.sequential_differences import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Release
    from mainstay.lake.lake import Lake
    from mainstay.monitoring.evidence import Batch
    from mainstay.rollout.types import Rollout

MOST_SAMPLED: Final = 20_000  # decisions of the version in force, for the yardstick
MOST_WAITING: Final = 1_000_000  # decisions that are remembered until their label comes, the newest
MOST_RECENT: Final = 100_000  # decisions that are remembered until their shadow comes, the newest

_NO_DECISIONS: Final = pl.DataFrame(schema=SCHEMAS[DECISIONS])
_WAITING: Final = ["sequence", "id", "key", "at", "version", "stage", "outcome"]


class Folded(Struct, frozen=True, kw_only=True):
    """All that was folded of one rollout."""

    begun: int  # the place in the ledger where it was begun; rows before are not folded
    reached: int  # and how far it has come
    base: int  # the release in force when the trial began
    agreement: Agreement = Agreement()
    judge: Judge | None = None  # from the canary on
    known: Yardstick = Yardstick()
    keys: Keys = Keys()


_decode = msgspec.json.Decoder(Folded).decode
encode = msgspec.json.Encoder().encode


def decode(content: bytes) -> Folded | None:
    """What was folded; None for nothing."""
    return _decode(content) if content else None


class _Waiting(NamedTuple):
    """What only a process remembers."""

    for_label: pl.DataFrame
    for_shadow: pl.DataFrame


class Folder:
    """Folds the rows of one rollout. An object is for one thread, and remembers between passes."""

    def __init__(self, lake: Lake, rollout: Rollout, champion: Declared) -> None:
        """`champion` is the folder of the version in force: what it declares is what the trial is judged by."""
        self._lake = lake
        self._capability = rollout.capability
        self._version, self._champion = rollout.version, rollout.champion
        self._declared = champion
        self._watched = watched_of(champion)
        self._loss = loss_of(champion)
        self._waiting: _Waiting | None = None
        self._reach = Reach(lake)
        self._seen: tuple[int, int] | None = None  # what was reached when nothing was left, and up to where that was

    def begin(self, rollout: Rollout) -> Folded:
        """What is known when a trial begins: where in the ledger, and the yardstick of the version in force."""
        tables = Evidence(self._lake, self._capability)
        self._waiting = _Waiting(pl.DataFrame(), pl.DataFrame())
        return Folded(begun=tables.until, reached=tables.until, base=rollout.base)

    def begin_canary(self, folded: Folded, rollout: Rollout) -> Folded:
        """The same with a judge, when the canary begins."""
        stage = self._declared.capability.rollout.canary
        steps = tuple(sorted({rollout.percent, *(each for each in stage.steps if each > rollout.percent)}))
        known = yardstick(self._sample(folded.reached), self._watched)
        guards = stage.guards
        if known.slow_seconds is None:  # there is nothing to compare by, and so nothing that could be shown
            guards = msgspec.structs.replace(guards, latency=None)
        judge = judging.begin(
            msgspec.structs.replace(stage, steps=steps, guards=guards),
            quality=None if self._loss is None else self._loss.kind,
            losses=(0.0, 1.0) if self._loss is None else (self._loss.low, self._loss.high),
            output_fields=[column.name.partition(".")[2] for column in known.columns],
            segments=known.names,
        )
        return msgspec.structs.replace(folded, judge=judge, known=known)

    def fold(self, folded: Folded, releases: Sequence[Release], stop: Callable[[], bool]) -> Folded:
        """Fold what is new, a batch after the other, until there is no more or `stop` says so.

        Where nothing of the capability is new, what was folded is returned as it is; where nothing at all was exported
        since the last time, no table of the capability is opened.
        """
        steps = _steps(folded, releases, self._version)
        if self._waiting is None:
            self._remember(folded, steps)
        if self._seen == (folded.reached, self._reach.look()):
            return folded
        self._seen = None
        tables = Evidence(self._lake, self._capability)
        for batch in tables.batches(folded.reached):
            folded = self._with(folded, batch, steps)
            if stop():
                return folded
        self._seen = folded.reached, tables.until
        return folded

    def _with(self, folded: Folded, batch: Batch, steps: Mapping[int, int]) -> Folded:
        batch = self._timed(batch)
        folded = msgspec.structs.replace(
            folded, agreement=folded.agreement.plus(self._compared(batch)), reached=batch.last
        )
        if folded.judge is None:
            return folded
        rows = with_segments(_on_trial(batch.decisions, steps), folded.known, self._watched)
        labelled = self._labelled(rows, batch.outcomes)
        keys = count_keys(folded.keys, rows["key"])
        judge = folded.judge
        for step in sorted({*rows[STEP].unique(), *labelled[STEP].unique()}):
            arrived = self._arrived(
                folded.known, step, rows.filter(pl.col(STEP) == step), labelled.filter(pl.col(STEP) == step)
            )
            per_key = max(1.0, keys.decisions_per_key)
            judge = judging.fold(judge, msgspec.structs.replace(arrived, decisions_per_key=per_key))
        return msgspec.structs.replace(folded, judge=judge, keys=keys)

    def _arrived(self, known: Yardstick, step: int, rows: pl.DataFrame, labelled: pl.DataFrame) -> Arrived:
        """What arrived of the decisions of one step."""
        arms = count_arms(rows, known, self._watched, self._declared.capability.cost)
        parts = count_segments(rows, known)
        whole, of_parts = loss_sums(labelled, known)
        nothing = Arm()

        def arm(found: Mapping[bool, Arm], sums: Mapping[bool, Sums], canary: bool) -> Arm:
            return msgspec.structs.replace(found.get(canary, nothing), quality=sums.get(canary, Sums()))

        segments = {
            name: tuple(arm(parts.get(name, {}), of_parts.get(name, {}), canary) for canary in (True, False))
            for name in parts.keys() | of_parts.keys()
        }
        return Arrived(
            step=step,
            canary=arm(arms, whole, canary=True),
            production=arm(arms, whole, canary=False),
            segments={name: (one, other) for name, (one, other) in segments.items()},
        )

    def _labelled(self, rows: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
        """The decisions whose first label has come now, with their losses; those that wait remain remembered."""
        labels = self._declared.capability.monitoring.labels
        empty = rows.clear().with_columns(loss=pl.lit(0.0))
        if labels is None or self._loss is None or self._waiting is None:
            return empty
        answered = rows.filter(pl.col("outcome") == "answered")
        kept = answered.with_columns(self._reduced(answered), input=pl.lit(None, dtype=pl.String))
        kept = kept.select(*_WAITING, "input", "output", ARM, STEP, *_segment_columns(kept))
        before = self._waiting.for_label
        waiting = pl.concat([before, kept]) if before.height else kept
        if outcomes.height and waiting.height:
            joined = read_labelled(labels, waiting, outcomes).frame.filter(pl.col("outcome_json").is_not_null())
            found = waiting.join(losses(self._loss, joined), on="id", how="inner")
            waiting = waiting.join(joined.select("id"), on="id", how="anti")
        else:
            found = empty
        self._waiting = self._waiting._replace(for_label=waiting.tail(MOST_WAITING))
        return found

    def _reduced(self, rows: pl.DataFrame) -> pl.Expr | pl.Series:
        """Of each output what labels are held against, so that a million can be remembered."""
        labels = self._declared.capability.monitoring.labels
        names = {} if labels is None else dict.fromkeys(n for n in (labels.prediction, labels.score) if n is not None)
        schema = pl.Schema({name: self._watched.outputs[name] for name in names if name in self._watched.outputs})
        if len(schema) < len(names):
            return pl.col("output")
        return parse(rows["output"], schema).select(pl.struct(pl.all()).struct.json_encode().alias("output"))["output"]

    def _compared(self, batch: Batch) -> Agreement:
        """How shadows that have come now compare; recent decisions remain remembered until theirs comes."""
        assert self._waiting is not None, "`fold` has seen to that"
        columns = ["id", "outcome", "output", "seconds"]
        own = batch.decisions.filter(pl.col("version") == self._champion).select(columns)
        before = self._waiting.for_shadow
        recent = pl.concat([before, own]) if before.height else own
        shadows = batch.shadows
        found = Agreement()
        if shadows.height:
            shadows = shadows.filter(pl.col("version") == self._version)
            found = compare(shadows, recent, self._watched)
            recent = recent.join(shadows.select(id="decision_id"), on="id", how="anti")
        self._waiting = self._waiting._replace(for_shadow=recent.tail(MOST_RECENT))
        return found

    def _timed(self, batch: Batch) -> Batch:
        """The same, at event times where those are declared: an outcome means the decision before it in that time."""
        monitoring = self._declared.capability.monitoring
        return batch._replace(
            decisions=decisions_in_time(batch.decisions, monitoring),
            outcomes=outcomes_in_time(batch.outcomes, monitoring),
        )

    def _remember(self, folded: Folded, steps: Mapping[int, int]) -> None:
        """Make anew what an earlier process remembered, from the rows it has folded; nothing is folded again."""
        self._waiting = _Waiting(pl.DataFrame(), pl.DataFrame())
        tables = Evidence(self._lake, self._capability)
        for batch in tables.batches(folded.begun):
            if batch.first >= folded.reached:
                return
            known = self._timed(batch if batch.last <= folded.reached else _until(batch, folded.reached))
            self._compared(known)
            self._labelled(
                with_segments(_on_trial(known.decisions, steps), folded.known, self._watched), known.outcomes
            )

    def _sample(self, until: int) -> pl.DataFrame:
        """The newest decisions of the version in force from before the canary."""
        tables = Evidence(self._lake, self._capability)
        found = [
            _until(batch, until).decisions.filter(pl.col("version") == self._champion, pl.col("stage") == "production")
            for batch in tables.batches(max(0, until - BATCH_POSITIONS))
        ]
        return pl.concat([_NO_DECISIONS, *found], how="diagonal").tail(MOST_SAMPLED)


def _until(batch: Batch, position: int) -> Batch:
    before = pl.col("sequence") < position
    return batch._replace(
        last=min(batch.last, position),
        decisions=batch.decisions.filter(before),
        outcomes=batch.outcomes.filter(before),
        shadows=batch.shadows.filter(before),
    )


def _steps(folded: Folded, releases: Sequence[Release], version: str) -> dict[int, int]:
    """Which step of the trial each of its releases was."""
    if folded.judge is None:
        return {}
    steps = folded.judge.plan.stage.steps
    found = {}
    for release in releases:
        canary = release.canary
        if release.number > folded.base and canary is not None and canary.version == version:
            found[release.number] = max(0, sum(each <= canary.percent for each in steps) - 1)
    return found


def _on_trial(decisions: pl.DataFrame, steps: Mapping[int, int]) -> pl.DataFrame:
    """The rows that were decided while the canary was in force, with their step and who decided."""
    rows = decisions.with_columns(
        pl.col("release").replace_strict(dict(steps), default=None, return_dtype=pl.Int64).alias(STEP),
        (pl.col("stage") == "canary").alias(ARM),
    )
    return judged(rows.filter(pl.col(STEP).is_not_null()))


def _segment_columns(rows: pl.DataFrame) -> list[str]:
    return [name for name in rows.columns if name.startswith("segment.")]
