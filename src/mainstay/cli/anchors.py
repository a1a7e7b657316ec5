from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.progress import Progress, SpinnerColumn, TextColumn

from mainstay.cli.common import DEFAULT, Common, columns, err, out, print_json
from mainstay.errors import Misuse
from mainstay.ledger.publishing import Publisher
from mainstay.ledger.trust_policy import shown
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from mainstay.ledger.publishing import Outcome


def anchor(*, common: Common = DEFAULT) -> int:
    """Give the newest checkpoint to every witness and anchor now, also to those that have it, and say what each did.

    Example: mainstay ledger anchor
    """
    workspace = common.open()
    publisher = Publisher(workspace, load_verifier(workspace.keys))
    if not publisher.places:
        raise Misuse(
            "there is nobody to give it to: expected `anchors` or `witnesses` in mainstay.toml, found neither",
            hint='Such as anchors = ["file:///mnt/worm/ledger"]: a directory on another disk.',
        )
    with Progress(SpinnerColumn(), TextColumn("publishing"), console=err, transient=True) as bar:
        bar.add_task("")
        outcomes = publisher.publish()
    if common.json:
        print_json({"published": [_facts(each) for each in outcomes]})
    elif not outcomes:
        out.print("nothing is sealed yet")
    else:
        for line in outcome_lines(outcomes):
            out.print(line, markup=False)
    return 1 if any(each.result == "failed" for each in outcomes) else 0


def outcome_lines(outcomes: list[Outcome]) -> list[str]:
    """A table of what each did, then every failure whole."""
    rows = [("RESULT", "ENTRIES", "SECONDS", "KIND", "NAME")]
    rows += [
        (each.result, f"{each.size:,}", f"{each.seconds:.2f}", each.place.kind, shown(each.place.name))
        for each in outcomes
    ]
    lines = columns(rows)
    for each in outcomes:
        if each.error is not None:
            lines += ["", f"{each.place.kind} {shown(each.place.name)}: {each.error}"]
    return lines


def _facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": outcome.place.kind,
        "name": shown(outcome.place.name),
        "result": outcome.result,
        "entries": outcome.size,
        "seconds": round(outcome.seconds, 3),
        "error": outcome.error,
    }
