from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from mainstay.capability.load import load_capability
from mainstay.catalog.versions import FOLDER, version_path
from mainstay.cli.common import (
    DEFAULT,
    Common,
    columns,
    operator,
    out,
    print_json,
    read_bounded,
    require,
    require_sight,
)
from mainstay.cli.explained import asker_of
from mainstay.decision.reviews import Ruling, resolve
from mainstay.errors import Misuse
from mainstay.ledger.reviews import ReviewQueue

if TYPE_CHECKING:
    from mainstay.ledger.review_entries import ReviewVerdict, WaitingReview
    from mainstay.ledger.reviews import Review

MAX_OUTPUT_BYTES = 1 << 20
MAX_LISTED = 10_000


def list_reviews(
    name: str | None = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="How many are shown, the oldest first.")] = 50,
    common: Common = DEFAULT,
) -> None:
    """List the decisions that wait for a person, oldest first: since when, why, and under which policy.

    Example: mainstay review list late-arrival

    Parameters
    ----------
    name
        A capability; by default all.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise Misuse(f"--limit {limit}: expected 1 to {MAX_LISTED:,}")
    found = ReviewQueue(common.open()).waiting(name, limit=limit)
    now = datetime.now(UTC)
    if common.json:
        print_json({"waiting": found.total, "reviews": [_waiting_facts(each, now) for each in found.reviews]})
        return
    if not found.reviews:
        out.print("nothing waits for a person")
        return
    rows = [("ID", "CAPABILITY", "AGE", "REASONS", "POLICY"), *(_waiting_row(each, now) for each in found.reviews)]
    for line in columns(rows):
        out.print(line, markup=False)
    if found.total > len(found.reviews):
        out.print(f"{found.total - len(found.reviews):,} more wait; see them with --limit")


def show_review(decision_id: str, /, *, common: Common = DEFAULT) -> None:
    """One decision that waits for a person: its input as recorded, the output proposed, and why it waits.

    Example: mainstay review show 01990c2a-5b1e-7a3f-8c21-55e000000007

    Parameters
    ----------
    decision_id
        The decision_id of an answer with the outcome review.
    """
    workspace = common.open()
    review = ReviewQueue(workspace).find(decision_id)
    require_sight(workspace, review.capability)
    if common.json:
        print_json(_review_facts(review))
    else:
        for line in _review_lines(review):
            out.print(line, markup=False)


def resolve_review(
    decision_id: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; recorded.")],
    accept: Annotated[bool, Parameter(negative="", help="Take the proposed output.")] = False,
    output: Annotated[
        str | None,
        Parameter(help="Take this output instead: a JSON object, or - for stdin.", allow_leading_hyphen=True),
    ] = None,
    reject: Annotated[bool, Parameter(negative="", help="Take no output.")] = False,
    again: Annotated[bool, Parameter(negative="", help="Replace an earlier resolution.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Decide what waits for a person: accept what was proposed, give another output, or reject it.

    Example: mainstay review resolve 01990c2a-5b1e-7a3f-8c21-55e000000007 --accept --reason "called the crew"

    Parameters
    ----------
    decision_id
        The decision_id of an answer with the outcome review.
    """
    verdict = _verdict(accept=accept, output=output, reject=reject)
    given = output.encode() if output not in (None, "-") else None
    if output == "-":
        given = read_bounded(Path("-"), MAX_OUTPUT_BYTES)
    workspace = common.open()
    queue = ReviewQueue(workspace)
    review = queue.find(decision_id)
    decided = load_capability(version_path(workspace.versions, review.leaf["version"]) / FOLDER)
    require(workspace, review.capability, "review", candidate=decided)
    resolution = resolve(workspace, queue, decision_id, Ruling(verdict, reason, operator(), given, again))
    if common.json:
        print_json(resolution)
    else:
        out.print(f"{resolution.verdict}, recorded as {resolution.id}", markup=False)


def resolution_facts(resolutions: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Resolutions as facts for people, oldest first; one that says the decision waits when there is none."""
    facts = []
    for each in resolutions:
        output = "" if each["output"] is None else f" {_compact(each['output'])}"
        verdict = each["verdict"] or "erased"
        facts.append(("resolved", f"{verdict}{output} at {each['at']}, by {each['principal']}: {each['reason']}"))
    return facts or [("resolved", "waits for a person")]


def _verdict(*, accept: bool, output: str | None, reject: bool) -> ReviewVerdict:
    asked: list[ReviewVerdict] = []
    if accept:
        asked.append("accepted")
    if output is not None:
        asked.append("changed")
    if reject:
        asked.append("rejected")
    if len(asked) != 1:
        raise Misuse(f"expected one of --accept, --output and --reject, found {len(asked)} of them")
    return asked[0]


def _waiting_facts(review: WaitingReview, now: datetime) -> dict[str, Any]:
    return {**review._asdict(), "age_seconds": round((now - datetime.fromisoformat(review.at)).total_seconds(), 3)}


def _waiting_row(review: WaitingReview, now: datetime) -> tuple[str, ...]:
    age = _age((now - datetime.fromisoformat(review.at)).total_seconds())
    codes = ", ".join(each.code for each in review.reasons) or "-"
    named = [each.detail.partition(":")[0] for each in review.reasons if each.code == "outside_authority"]
    return review.id, review.capability, age, codes, ", ".join(filter(None, named)) or "-"


def _age(seconds: float) -> str:
    """How long ago, in the largest unit that makes it at least 2.

    >>> _age(90), _age(7200), _age(864000)
    ('90 s', '2 h', '10 d')
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _review_facts(review: Review) -> dict[str, Any]:
    body = review.body or {}
    return {
        "decision": review.leaf,
        "key": body.get("key"),
        "input": body.get("input"),
        "proposed": review.details.get("proposed"),
        "confidence": body.get("confidence"),
        "reasons": review.details.get("reasons", []),
        "violations": review.details.get("violations", []),
        "resolutions": msgspec.to_builtins(review.resolutions),
    }


def _review_lines(review: Review) -> list[str]:
    found = _review_facts(review)
    leaf = review.leaf
    facts = [
        ("id", leaf["id"]),
        ("capability", leaf["capability"]),
        ("since", leaf["at"]),
        ("asked by", asker_of(leaf)),
        ("version", leaf["version"]),
        ("release", f"{leaf['release']} ({leaf['stage']})"),
    ]
    if review.body is None:
        facts.append(("body", "erased"))
    else:
        facts += [("key", _compact(found["key"])), ("input", _compact(found["input"]))]
        facts.append(("proposed", "nothing" if found["proposed"] is None else _compact(found["proposed"])))
    if found["confidence"] is not None:
        facts.append(("confidence", f"{found['confidence']:.4f}"))
    reasons = found["reasons"] or [{"code": code, "detail": ""} for code in leaf["reasons"]]
    facts += [("reason", f"{each['code']}: {each['detail']}".rstrip(": ")) for each in reasons]
    facts += [
        ("violation", f"{each['field']}: {each['rule']}: expected {each['expected']}, found {each['found']}")
        for each in found["violations"]
    ]
    facts += resolution_facts(found["resolutions"])
    return [f"{name:<12} {value}" for name, value in facts]


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
