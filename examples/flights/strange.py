"""Sends flights of April that cannot be, one change each, and says what came back.

    MAINSTAY_API_KEY=ms_... python examples/flights/strange.py --url http://127.0.0.1:8321

Each is a line of JSON on standard output: `what` it is, the fields `changed`, what is `expected`, and the decision.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from traffic import departures

from mainstay.client.client import Client
from mainstay.client.errors import CallRefused

if TYPE_CHECKING:
    from mainstay.client.types import Decision

CAPABILITY = "late-arrival"
KEY = "2013-04-02-9E-3314-JFK"  # an ordinary flight, from New York to Boston on a cold day

Change = dict[str, str | int | float | None]


class Strange(NamedTuple):
    """What is done to the flight, and what should come of that."""

    what: str
    change: Change
    outcome: str
    code: str = ""  # of the first reason
    names: str = ""  # what its detail has to name


NOVEL = ("fallback", "out_of_distribution")
STRANGE = (
    Strange("as it was", {}, "answered"),
    Strange("an airline that nobody has seen", {"carrier": "ZZ"}, *NOVEL, "carrier"),
    Strange("as far as no flight from New York goes", {"distance": 5_900}, *NOVEL, "distance"),
    Strange("Boston, as far away as Los Angeles", {"distance": 2_475}, *NOVEL, "joint"),
    Strange("a dew point of 75 °F in frost", {"temp": 20.0, "dewp": 75.0}, *NOVEL, "dewp"),
    Strange("a broken thermometer", {"temp": None, "dewp": None, "humid": None}, *NOVEL, "humid"),
    # The contract has an end to distances and to what may be left out: what is beyond is not strange, but wrong.
    Strange("farther than around the world", {"distance": 40_000}, "refused", "contract_violation", "distance"),
    # Known to the model, and not its to decide.
    Strange("five hours late", {"dep_delay": 300}, "review", "outside_authority", "past-four-hours-the-desk-decides"),
)


def send(client: Client, flight: Change, change: Change) -> dict[str, Any]:
    """What came of the flight with this change."""
    found: Decision | CallRefused
    outcome, output = "refused", None
    try:
        found = client.decide(CAPABILITY, {**flight, **change})
        outcome, output = found.outcome, found.output
    except CallRefused as refused:
        found = refused
    reasons = [{"code": each.code, "detail": each.detail} for each in found.reasons]
    return {"decision_id": found.decision_id, "outcome": outcome, "output": output, "reasons": reasons}


def main() -> None:
    parser = argparse.ArgumentParser(description="Send flights that cannot be.")
    parser.add_argument("--url", required=True)
    given = parser.parse_args()
    key = os.environ.get("MAINSTAY_API_KEY", "")
    if not key:
        sys.exit("no API key: expected one in MAINSTAY_API_KEY")
    (flight,) = (departure.input for departure in departures() if departure.key == KEY)
    with Client(given.url, key) as client:
        for each in STRANGE:
            expected = {"outcome": each.outcome, "code": each.code, "names": each.names}
            told = {"flight": KEY, "what": each.what, "changed": each.change, "expected": expected}
            print(json.dumps(told | send(client, flight, each.change)), flush=True)


if __name__ == "__main__":
    main()
