from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from mainstay.cli.common import API_KEY_VARIABLE, DEFAULT, Common, out, print_json, read_bounded
from mainstay.client.client import Client
from mainstay.client.errors import CallRefused
from mainstay.client.types import Decision, Item, Outcome
from mainstay.errors import NOT_READ, Misuse
from mainstay.server.supervisor import running_state
from mainstay.workspace import Workspace

MAX_INPUT_BYTES = 64 << 20
BATCH = 500


Url = Annotated[str, Parameter(help="Where decisions are served; by default where this workspace is up.")]


def decide(
    name: str,
    /,
    *,
    input: Annotated[  # noqa: A002 - the option's name
        Path,
        Parameter(help="A JSON object, or JSON lines with one input each; - for stdin.", allow_leading_hyphen=True),
    ],
    key: Annotated[str | None, Parameter(help="The business key, by which the outcome may be reported.")] = None,
    deadline_ms: Annotated[int | None, Parameter(help="How long the answer may take.")] = None,
    url: Url = "",
    common: Common = DEFAULT,
) -> int:
    """Ask for decisions from the shell, with the key in MAINSTAY_API_KEY.

    Example: mainstay decide late-arrival --input departure.json

    Parameters
    ----------
    name
        The capability.
    """
    inputs = read_json_lines(input)
    if len(inputs) > 1 and (key is not None or deadline_ms is not None):
        raise Misuse(f"--key and --deadline-ms are for one decision, and {input} holds {len(inputs)} inputs")
    refused = False
    with Client(service_url(common, url), api_key()) as client:
        if len(inputs) == 1:
            try:
                decisions = [client.decide(name, inputs[0], key=key, deadline_ms=deadline_ms)]
            except CallRefused as error:
                _show_refusal(error, json=common.json)
                return 1
        else:
            items = [Item(each) for each in inputs]
            starts = range(0, len(items), BATCH)
            decisions = [each for start in starts for each in client.decide_many(name, items[start : start + BATCH])]
    for decision in decisions:
        refused = refused or decision.outcome == "refused"
        if common.json:
            print_json(decision)
        else:
            out.print(_line(decision), markup=False)
    return 1 if refused else 0


def outcomes(
    name: str,
    file: Annotated[Path, Parameter(help="The reports; - for stdin.", allow_leading_hyphen=True)],
    /,
    *,
    url: Url = "",
    common: Common = DEFAULT,
) -> None:
    """Report what came of decisions: JSON lines with decision_id or key, outcome and observed_at.

    Example: mainstay outcomes late-arrival landed.jsonl

    Parameters
    ----------
    name
        The capability.
    """
    try:
        reports = msgspec.convert(read_json_lines(file), list[Outcome])
    except msgspec.ValidationError as error:
        raise Misuse(f"{file}: expected decision_id or key, outcome and observed_at on each line: {error}") from None
    recorded = 0
    with Client(service_url(common, url), api_key()) as client:
        for start in range(0, len(reports), BATCH):
            recorded += client.report(name, reports[start : start + BATCH]).recorded
    if common.json:
        print_json({"capability": name, "recorded": recorded})
    else:
        out.print(f"{recorded} outcomes recorded")


def read_json_lines(source: Path) -> list[Any]:
    """The JSON documents of a file: one in all, or one a line. Raises Misuse naming the first line that is none."""
    content = read_bounded(source, MAX_INPUT_BYTES).strip()
    if not content:
        raise Misuse(f"{source}: expected JSON, found nothing")
    try:
        return [msgspec.json.decode(content)]
    except NOT_READ as error:
        whole = str(error)
    found = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line))
        except NOT_READ as error:
            reason = whole if number == 1 else str(error)
            raise Misuse(f"{source}:{number}: expected a JSON object, found an error: {reason}") from None
    return found


def service_url(common: Common, url: str) -> str:
    """Where to call. Raises Misuse when nothing is given and this workspace is not up."""
    if url:
        return url
    return workspace_url(common.open())


def workspace_url(workspace: Workspace) -> str:
    """Where this workspace is up. Raises Misuse when it is not."""
    state = running_state(workspace)
    if state is None:
        raise Misuse(f"{workspace.root} is not up", hint="Start it with `mainstay up`, or name a service with --url.")
    return str(state["url"])


def api_key() -> str:
    """The caller's key, from the environment: a command line is seen by others."""
    token = os.environ.get(API_KEY_VARIABLE, "")
    if not token:
        raise Misuse(f"no API key: expected one in {API_KEY_VARIABLE}", hint="Make one with `mainstay key create`.")
    return token


def _line(decision: Decision) -> str:
    output = msgspec.json.encode(decision.output).decode()
    reasons = "".join(f"  {reason.code}: {reason.detail}" for reason in decision.reasons)
    return f"{decision.decision_id}  {decision.outcome}  {output}{reasons}"


def _show_refusal(error: CallRefused, *, json: bool) -> None:
    if not json:
        out.print(str(error), markup=False)
        return
    print_json(
        {
            "status": error.status,
            "title": error.title,
            "detail": error.detail,
            "decision_id": error.decision_id,
            "reasons": error.reasons,
            "violations": error.violations,
            "receipt": error.receipt,
        }
    )
