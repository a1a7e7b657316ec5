"""Counters of one worker, and the sum over all workers in the OpenMetrics text format 1.0.

Any worker may be asked, so each writes its counters to a file of its slot every second and whoever is asked adds them
up. A worker that takes over a slot goes on from what stands there: a counter never falls, and a worker that was
killed loses at most the last second of counts (of counts, not of records).
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mainstay.intake.state import State
    from mainstay.lake.lagging import Standing

MEDIA_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NO_REASON = ""


class Latency(Struct):
    """A histogram of seconds; the last bucket has no upper bound."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Counts(Struct):
    """Everything a worker counts. Several words of a key are tab-separated."""

    decisions: dict[str, int] = field(default_factory=dict)  # by capability, stage, outcome and first reason
    latency: dict[str, Latency] = field(default_factory=dict)  # by capability and stage
    shadows: dict[str, int] = field(default_factory=dict)  # by capability, and what became of it in the shadow
    shadow_latency: dict[str, Latency] = field(default_factory=dict)  # by capability
    refused_calls: dict[str, int] = field(default_factory=dict)  # by HTTP status; calls that made no decision
    outcomes: dict[str, int] = field(default_factory=dict)  # reported outcomes by capability
    events: dict[str, int] = field(default_factory=dict)  # pushed events by capability and source, tab-separated
    records: int = 0
    syncs: int = 0
    sync_seconds: float = 0.0
    write_failures: int = 0

    def count(self, capability: str, stage: str, outcome: str, reason: str, seconds: float) -> None:
        key = f"{capability}\t{stage}\t{outcome}\t{reason}"
        self.decisions[key] = self.decisions.get(key, 0) + 1
        place = f"{capability}\t{stage}"
        latency = self.latency.get(place)
        if latency is None:
            latency = self.latency[place] = Latency()
        latency.observe(seconds)

    def count_shadow(self, capability: str, fate: str, decisions: int, seconds: float) -> None:
        """So many decisions that a shadow was given; `seconds` is what each took, of those that were not dropped."""
        key = f"{capability}\t{fate}"
        self.shadows[key] = self.shadows.get(key, 0) + decisions
        if fate != "dropped":
            latency = self.shadow_latency.get(capability)
            if latency is None:
                latency = self.shadow_latency[capability] = Latency()
            latency.observe(seconds)

    def count_outcomes(self, capability: str, reported: int) -> None:
        self.outcomes[capability] = self.outcomes.get(capability, 0) + reported

    def count_events(self, capability: str, source: str, pushed: int) -> None:
        key = f"{capability}\t{source}"
        self.events[key] = self.events.get(key, 0) + pushed

    def count_refused_call(self, status: int) -> None:
        self.refused_calls[str(status)] = self.refused_calls.get(str(status), 0) + 1


def slot_file(run: Path, slot: int) -> Path:
    return run / f"metrics-{slot}.json"


def load_counts(path: Path) -> Counts:
    """What an earlier worker of this slot had counted; nothing when the file is absent or of another form.

    Before there were stages in it, all that was counted counts as production's.
    """
    try:
        counts = msgspec.json.decode(path.read_bytes(), type=Counts)
    except (OSError, *NOT_READ):
        return Counts()
    counts.decisions = {_staged(key, 3): number for key, number in counts.decisions.items()}
    counts.latency = {_staged(key, 1): latency for key, latency in counts.latency.items()}
    histograms = (*counts.latency.values(), *counts.shadow_latency.values())
    sound = all(len(each.buckets) == len(BOUNDS_SECONDS) + 1 for each in histograms)
    words = ((counts.decisions, 4), (counts.latency, 2), (counts.shadows, 2), (counts.events, 2))
    return counts if sound and all(key.count("\t") == n - 1 for keys, n in words for key in keys) else Counts()


def _staged(key: str, words: int) -> str:
    """The key with its stage behind the capability, where it has only the others: so many words."""
    capability, tab, rest = key.partition("\t")
    return f"{capability}\tproduction{tab}{rest}" if key.count("\t") == words - 1 else key


def save_counts(path: Path, counts: Counts) -> None:
    """Replace the slot's file. Not synced to disk: counts are not evidence."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(counts))
    temporary.replace(path)


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of several workers' counts."""
    result = Counts()
    for part in parts:
        _add(result.decisions, part.decisions)
        _add(result.refused_calls, part.refused_calls)
        _add(result.outcomes, part.outcomes)
        _add(result.events, part.events)
        _add(result.shadows, part.shadows)
        _add_latency(result.latency, part.latency)
        _add_latency(result.shadow_latency, part.shadow_latency)
        result.records += part.records
        result.syncs += part.syncs
        result.sync_seconds += part.sync_seconds
        result.write_failures += part.write_failures
    return result


def render(
    counts: Counts, *, in_flight: int, export: Standing | None = None, feeds: Sequence[tuple[str, str, State]] = ()
) -> bytes:
    """The OpenMetrics document. `in_flight` is of the worker that was asked; `export` None where it is not known.

    `feeds` are the sources that were ever run: capability, source and state.
    """
    lines: list[str] = []
    _decisions(lines, counts)
    _shadows(lines, counts)
    _family(lines, "mainstay_outcomes", "counter", "Outcomes reported.")
    lines += [
        f'mainstay_outcomes_total{{capability="{name}"}} {number}' for name, number in sorted(counts.outcomes.items())
    ]
    _family(lines, "mainstay_pushed_events", "counter", "Events pushed to sources and made durable.")
    for key, number in sorted(counts.events.items()):
        capability, source = key.split("\t")
        lines.append(f'mainstay_pushed_events_total{{capability="{capability}",source="{source}"}} {number}')
    _family(lines, "mainstay_refused_calls", "counter", "Calls refused before they became decisions, by HTTP status.")
    lines += [
        f'mainstay_refused_calls_total{{status="{key}"}} {number}'
        for key, number in sorted(counts.refused_calls.items())
    ]
    _family(lines, "mainstay_ledger_records", "counter", "Records made durable.")
    lines.append(f"mainstay_ledger_records_total {counts.records}")
    _family(lines, "mainstay_ledger_syncs", "counter", "Groups committed, one fdatasync each.")
    lines.append(f"mainstay_ledger_syncs_total {counts.syncs}")
    _family(lines, "mainstay_ledger_sync_seconds", "counter", "Time spent making groups durable.", "seconds")
    lines.append(f"mainstay_ledger_sync_seconds_total {counts.sync_seconds:.6f}")
    _family(lines, "mainstay_ledger_write_failures", "counter", "Groups that could not be made durable.")
    lines.append(f"mainstay_ledger_write_failures_total {counts.write_failures}")
    _family(lines, "mainstay_worker_in_flight", "gauge", "Decisions under way in the worker that was asked.")
    lines.append(f"mainstay_worker_in_flight {in_flight}")
    if export is not None:
        _export(lines, export)
    if feeds:
        _feeds(lines, [(f'capability="{name}",source="{source}"', state) for name, source, state in feeds])
    return ("\n".join([*lines, "# EOF"]) + "\n").encode()


def _add(into: dict[str, int], part: dict[str, int]) -> None:
    for key, number in part.items():
        into[key] = into.get(key, 0) + number


def _add_latency(into: dict[str, Latency], part: dict[str, Latency]) -> None:
    for key, latency in part.items():
        total_of_key = into.setdefault(key, Latency())
        total_of_key.buckets = [a + b for a, b in zip(total_of_key.buckets, latency.buckets, strict=True)]
        total_of_key.seconds += latency.seconds


def _decisions(lines: list[str], counts: Counts) -> None:
    _family(
        lines, "mainstay_decisions", "counter", "Decisions by the stage of their version, outcome and first reason."
    )
    for key, number in sorted(counts.decisions.items()):
        capability, stage, outcome, reason = key.split("\t")
        labels = f'capability="{capability}",stage="{stage}",outcome="{outcome}",reason="{reason}"'
        lines.append(f"mainstay_decisions_total{{{labels}}} {number}")
    _family(lines, "mainstay_decision_seconds", "histogram", "From the call's last byte to the answer.", "seconds")
    for key, latency in sorted(counts.latency.items()):
        capability, stage = key.split("\t")
        _histogram(lines, "mainstay_decision_seconds", f'capability="{capability}",stage="{stage}"', latency)


def _shadows(lines: list[str], counts: Counts) -> None:
    """What shadows did. They decide nothing, and so stand in families of their own."""
    if not counts.shadows:
        return
    _family(lines, "mainstay_shadow_decisions", "counter", "Decisions that shadows were given, by what became of them.")
    for key, number in sorted(counts.shadows.items()):
        capability, fate = key.split("\t")
        labels = f'capability="{capability}",stage="shadow",fate="{fate}"'
        lines.append(f"mainstay_shadow_decisions_total{{{labels}}} {number}")
    meaning = "From when a shadow began with a decision to its verdict."
    _family(lines, "mainstay_shadow_decision_seconds", "histogram", meaning, "seconds")
    for capability, latency in sorted(counts.shadow_latency.items()):
        labels = f'capability="{capability}",stage="shadow"'
        _histogram(lines, "mainstay_shadow_decision_seconds", labels, latency)


def _family(lines: list[str], name: str, kind: str, meaning: str, unit: str = "") -> None:
    lines.append(f"# TYPE {name} {kind}")
    if unit:
        lines.append(f"# UNIT {name} {unit}")
    lines.append(f"# HELP {name} {meaning}")


def _export(lines: list[str], export: Standing) -> None:
    """How far the tables are behind the ledger."""
    lag = export.lag
    _family(lines, "mainstay_lake_exported_entries", "gauge", "Entries of the log that the tables have seen.")
    lines.append(f"mainstay_lake_exported_entries {lag.exported}")
    _family(lines, "mainstay_lake_waiting_entries", "gauge", "Sealed entries that the tables have not seen.")
    lines.append(f"mainstay_lake_waiting_entries {lag.sealed - lag.exported}")
    _family(lines, "mainstay_lake_lag_seconds", "gauge", "Age of the oldest entry the tables have not seen.", "seconds")
    lines.append(f"mainstay_lake_lag_seconds {lag.seconds:.3f}")
    _family(lines, "mainstay_lake_failing", "gauge", "1 while the tables cannot be written, else 0.")
    lines.append(f"mainstay_lake_failing {int(bool(export.progress.problem))}")


def _feeds(lines: list[str], feeds: Sequence[tuple[str, State]]) -> None:
    """How live data come in, by source."""
    _family(
        lines, "mainstay_source_rows", "counter", "Rows of a source that went through the door, by what became of them."
    )
    lines += [
        f'mainstay_source_rows_total{{{labels},verdict="{verdict}"}} {getattr(state.counts, verdict)}'
        for labels, state in feeds
        for verdict in ("accepted", "quarantined", "repeated")
    ]
    _family(lines, "mainstay_source_lag_seconds", "gauge", "Since something came of a source.", "seconds")
    now = datetime.now(UTC)
    for labels, state in feeds:
        since = state.last_arrival_at or state.began_at
        lines.append(f"mainstay_source_lag_seconds{{{labels}}} {max(0.0, (now - since).total_seconds()):.3f}")
    _family(lines, "mainstay_source_failures", "gauge", "Runs of a source that failed since the last that did not.")
    lines += [f"mainstay_source_failures{{{labels}}} {state.failures}" for labels, state in feeds]
    _family(lines, "mainstay_source_held", "gauge", "1 while a source is held at the door, else 0.")
    lines += [f"mainstay_source_held{{{labels}}} {int(state.held is not None)}" for labels, state in feeds]


def _histogram(lines: list[str], name: str, labels: str, latency: Latency) -> None:
    cumulative = 0
    for bound, number in zip((*map(str, BOUNDS_SECONDS), "+Inf"), latency.buckets, strict=True):
        cumulative += number
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {cumulative}')
    lines.append(f"{name}_sum{{{labels}}} {latency.seconds:.6f}")
    lines.append(f"{name}_count{{{labels}}} {cumulative}")
