"""One run of retraining, as steps that may each be made again: frozen rows, a challenger, a comparison, an end.

    freeze     snapshots under names that the request gives, so that a second attempt finds the first one's
    train      the same snapshots, champion and seed make the same version, so that training twice makes one
    challenge  both versions on the newest rows, which neither was fitted to
    end        the ledger has the report, the request says what came of it, and a challenger that is better enters
               as a shadow, never as more

What a run leaves beside versions and snapshots stands in a folder of its own, which the last step removes.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mainstay.catalog.training import find_training
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import open_snapshot
from mainstay.monitoring.label_counts import MOST_TOP
from mainstay.monitoring.labelled import items_of
from mainstay.retraining.answering import answer
from mainstay.retraining.candidate import declared_in, make_candidate
from mainstay.retraining.cases import Cases
from mainstay.retraining.challenge import judge
from mainstay.retraining.paired import TOP
from mainstay.retraining.rows import as_objects, freeze, holdout_of, labels_of, read_rows, write_rows
from mainstay.retraining.training import ROWS
from mainstay.retraining.types import Frozen, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mainstay.capability.keeping import Labels, MetricName, Monitoring, Retraining
    from mainstay.capability.load import Declared
    from mainstay.retraining.challenge import Challenge
    from mainstay.retraining.rows import Cut, Holdout
    from mainstay.retraining.types import Request
    from mainstay.workspace import Workspace

FOLDER: Final = "retraining"  # of the data directory: what runs need while they last


def freeze_rows(workspace: Workspace, request: Request, champion: str) -> Frozen:
    """Take the snapshots. Raises Misuse when the champion declares no retraining, or the rows are not there."""
    declared, retraining = declared_in(workspace, champion)
    name = snapshot_name(request, retraining)
    taken = freeze(open_lake(workspace), declared, retraining, name, request.asked_at)
    return Frozen(champion=champion, snapshots=tuple(each.name for each in taken))


def snapshot_name(request: Request, retraining: Retraining) -> str:
    """The same for a request whenever it is asked."""
    head = retraining.snapshot or request.capability
    return f"{head}-{request.asked_at:%Y%m%d}-{request.id[:8]}"


def make_challenger(
    workspace: Workspace, request: Request, frozen: Frozen, progress: Callable[[str], None] = lambda _: None
) -> Trained:
    """Write the rows, train on the older ones and register. Raises as reading and writing them do, and training."""
    progress("reading the frozen rows")
    private = _private(workspace, request)
    declared, cut = _read(workspace, frozen)
    write_rows(cut, declared, private / ROWS)
    trained_on = find_training(workspace, frozen.snapshots[0])
    made = make_candidate(workspace, frozen.champion, trained_on, private, progress)
    return Trained(
        version=made.version,
        is_new=made.is_new,
        fitted=cut.rows.fitted,
        held_out=cut.rows.held_out,
        since=cut.rows.since,
        split=cut.rows.split,
        until=cut.rows.until,
        printed=made.printed,
        notes=made.notes,
    )


def compare_versions(workspace: Workspace, frozen: Frozen, challenger: str) -> Challenge:
    """Champion and challenger on the rows that were held out. Raises as `read_rows` and `answer` do."""
    declared, cut = _read(workspace, frozen)
    _, retraining = declared_in(workspace, frozen.champion)
    holdout, labels = holdout_of(cut, declared), labels_of(declared)
    champion, other = (
        _cases(labels, holdout, answer(workspace, version, holdout.records))
        for version in (frozen.champion, challenger)
    )
    metric = metric_of(retraining, labels)
    return judge(
        retraining,
        metric,
        champion,
        other,
        blocks=holdout.days,
        segments=holdout.segments,
        top=top_of(declared.capability.monitoring, metric),
    )


def metric_of(retraining: Retraining, labels: Labels) -> MetricName:
    """What versions are compared by."""
    if retraining.metric is not None:
        return retraining.metric
    match labels.kind:
        case "binary":
            return "accuracy" if labels.score is None else "roc_auc"
        case "classes":
            return "accuracy"
        case "number":
            return "mae"
        case "ranking":
            return "ndcg"


def top_of(monitoring: Monitoring, metric: MetricName) -> int:
    """How many of a list count, as the metric of this name is watched."""
    return min(next((each.top for each in monitoring.metrics if each.name == metric), TOP), MOST_TOP)


def clear_away(workspace: Workspace, request: Request) -> None:
    """Remove what the run needed while it lasted."""
    shutil.rmtree(workspace.data / FOLDER / request.id, ignore_errors=True)


def _private(workspace: Workspace, request: Request) -> Path:
    path = workspace.data / FOLDER / request.id
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _read(workspace: Workspace, frozen: Frozen) -> tuple[Declared, Cut]:
    declared, retraining = declared_in(workspace, frozen.champion)
    lake = open_lake(workspace)
    return declared, read_rows([open_snapshot(lake, name) for name in frozen.snapshots], declared, retraining)


def _cases(labels: Labels, holdout: Holdout, answers: Mapping[str, Sequence[Any]]) -> Cases:
    """What a version said, as the truth is written."""
    score = None if labels.score is None else _numbers(answers[labels.score])
    prediction: NDArray[Any] | None = None
    if labels.prediction is not None:
        said = answers[labels.prediction]
        if labels.kind == "number":
            prediction = _numbers(said)
        elif labels.kind == "ranking":
            prediction = as_objects([items_of(each) for each in said])
        elif labels.kind == "binary":
            prediction = np.array([None if each is None else each == labels.positive for each in said], dtype=object)
        else:
            prediction = np.array([None if each is None else _class(each) for each in said], dtype=object)
    elif score is not None:
        prediction = np.array([None if np.isnan(each) else each >= 0.5 for each in score], dtype=object)
    return Cases(holdout.truth, prediction, score)


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if each is None else float(each) for each in values], dtype=np.float64)


def _class(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
