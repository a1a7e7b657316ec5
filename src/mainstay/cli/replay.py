from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mainstay.cli.common import DEFAULT, Common, columns, err, out, print_json, require_sight
from mainstay.decision.replay import BATCH, Replayer
from mainstay.errors import Misuse
from mainstay.ledger.archives import Archived
from mainstay.ledger.find import entry_at, find_entry
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.decision.replayed import Recorded, Replayed
    from mainstay.ledger.entry import Entry
    from mainstay.workspace import Workspace

MAX_LAST = 1_000_000
SHOWN = 20  # decisions that are not the same, listed for people
LISTED = 1_000  # the same, as JSON
SHOWN_CHARACTERS = 60


def replay(
    decision_id: str | None = None,
    /,
    *,
    capability: Annotated[str | None, Parameter(help="Replay decisions of this capability instead of one.")] = None,
    last: Annotated[int, Parameter(help="How many of them: the newest that are sealed.")] = 100,
    common: Common = DEFAULT,
) -> int:
    """Run a recorded decision again, on the version and the input in its record: is the output the same?

    Exits with 0 when it is, and with 1 when it is not or cannot be known. Nothing is recorded, and nothing is served.

    Example: mainstay replay 01990c2a-5b1e-7a3f-8c21-55e000000007

    Example: mainstay replay --capability late-arrival --last 1000

    Parameters
    ----------
    decision_id
        The decision_id of an answer.
    """
    if (decision_id is None) == (capability is None):
        raise Misuse("expected the id of a decision, or --capability", hint="See `mainstay replay --help`.")
    if not 1 <= last <= MAX_LAST:
        raise Misuse(f"--last {last}: expected 1 to {MAX_LAST:,}")
    workspace = common.open()
    if decision_id is not None:
        return _replay_one(workspace, decision_id, json=common.json)
    assert capability is not None
    return _replay_last(workspace, capability, last, json=common.json)


def _replay_one(workspace: Workspace, decision_id: str, *, json: bool) -> int:
    try:
        found = find_entry(workspace.ledger, decision_id)
    except Archived as gone:
        if json:
            print_json({"id": decision_id, "verdict": "unknown", "unknown": "archived", "detail": str(gone)})
            return 1
        raise
    if found is None:
        raise Misuse(f"no entry {decision_id[:80]!r} in this ledger", hint="Expected the decision_id of an answer.")
    leaf = msgspec.json.decode(found.entry.leaf)
    if leaf["kind"] != "decision":
        raise Misuse(f"{decision_id} is {_article(leaf['kind'])}: expected a decision")
    require_sight(workspace, leaf["capability"])
    with Replayer(workspace) as replayer:
        (replayed,) = replayer.replay([found.entry])
    if json:
        print_json(replayed)
    else:
        for line in replayed_lines(replayed):
            out.print(line, markup=False)
    return 0 if replayed.verdict == "same" else 1


def replayed_lines(replayed: Replayed) -> list[str]:
    """One replay for people: what was run, both values of every field, and the verdict."""
    lines = [
        f"{'decision':<12} {replayed.id}, recorded {replayed.recorded_at}",
        f"{'capability':<12} {replayed.capability}, release {replayed.release} ({replayed.stage})",
        f"{'version':<12} {replayed.version}",
    ]
    if replayed.replayed is not None:
        different = {each.field for each in replayed.differences}
        rows = [("", "RECORDED", "REPLAYED", "")]
        rows += [
            (name, _shown(one), _shown(other), "DIFFERENT" if name in different else "same")
            for name, one, other in _fields(replayed.recorded, replayed.replayed)
        ]
        lines += ["", *columns(rows), ""]
    verdict = replayed.verdict if replayed.unknown is None else f"unknown ({replayed.unknown})"
    if replayed.exact is False:
        verdict += ", but for the last digits"
    return [*lines, f"{'verdict':<12} {verdict}" + (f": {replayed.detail}" if replayed.detail else "")]


def _fields(recorded: Recorded, replayed: Recorded) -> Iterator[tuple[str, Any, Any]]:
    """Every field that either has, the fields of an output one by one."""
    for name in recorded.__struct_fields__:
        one, other = getattr(recorded, name), getattr(replayed, name)
        if isinstance(one, dict) and isinstance(other, dict):
            for key in (*one, *(key for key in other if key not in one)):
                yield f"{name}.{key}", one.get(key), other.get(key)
        elif one not in (None, ()) or other not in (None, ()):
            yield name, one, other


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _replay_last(workspace: Workspace, capability: str, last: int, *, json: bool) -> int:
    require_sight(workspace, capability)
    counts: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    others: list[Replayed] = []  # what is not the same, as many as are listed
    with (
        Progress(
            TextColumn("replaying"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
        ) as bar,
        Replayer(workspace) as replayer,
    ):
        sequences = _newest(workspace, capability, last)
        task = bar.add_task("", total=len(sequences))
        for begin in range(0, len(sequences), BATCH):
            part = sequences[begin : begin + BATCH]
            entries = list(_entries(workspace, part))
            unknown["archived"] += len(part) - len(entries)
            for each in replayer.replay(entries):
                counts[each.verdict] += 1
                if each.unknown is not None:
                    unknown[each.unknown] += 1
                if each.verdict != "same" and len(others) < LISTED:
                    others.append(each)
            bar.advance(task, len(part))
    counts["unknown"] += unknown["archived"]
    if not sequences:
        raise Misuse(f"{capability} has no sealed decision", hint="`mainstay status` shows which capabilities have.")
    if json:
        print_json(
            {
                "capability": capability,
                "replayed": len(sequences),
                **{verdict: counts[verdict] for verdict in ("same", "different", "unknown")},
                "unknown_because": dict(+unknown),
                "not_the_same": others,
            }
        )
    else:
        _show_summary(capability, len(sequences), counts, +unknown, others)
    return 0 if counts["same"] == len(sequences) else 1


def _newest(workspace: Workspace, capability: str, last: int) -> list[int]:
    """Where the newest decisions stand in the log, oldest first."""
    with Index(workspace.ledger) as index:
        index.catch_up(Log(workspace.ledger))
        return [decision.sequence for decision, _ in index.joined(capability, newest=last)]


def _entries(workspace: Workspace, sequences: list[int]) -> Iterator[Entry]:
    """The entries at these places; those that have left with an archive are left out."""
    log = Log(workspace.ledger)
    for sequence in sequences:
        try:
            yield entry_at(log, sequence)
        except Archived:
            continue


def _show_summary(
    capability: str, replayed: int, counts: Counter[str], unknown: Counter[str], others: list[Replayed]
) -> None:
    for each in others[:SHOWN]:
        what = each.detail
        if each.verdict == "different":
            what = "; ".join(
                f"{one.field}: recorded {_shown(one.recorded)}, replayed {_shown(one.replayed)}"
                for one in each.differences[:3]
            )
        out.print(f"{each.id}  {each.unknown or each.verdict}  {what}", markup=False)
    if len(others) > SHOWN:
        out.print(f"and {counts['different'] + counts['unknown'] - SHOWN:,} more; see them with --json")
    because = ", ".join(f"{count:,} {code}" for code, count in unknown.most_common())
    tail = f" ({because})" if because else ""
    out.print(
        f"{replayed:,} decisions of {capability}: {counts['same']:,} same, {counts['different']:,} different,"
        f" {counts['unknown']:,} unknown{tail}",
        markup=False,
    )


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
