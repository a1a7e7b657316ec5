"""What the name of a column gives away. A name alone declares nothing: the values must not speak against it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_BOUNDARIES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])")
_WORDS = re.compile(r"[a-z]+|[0-9]+")


class Domain(NamedTuple):
    """The values that a known quantity can have."""

    words: frozenset[str]  # any of them in the name
    minimum: float
    maximum: float
    what: str
    whole: bool = False  # holds for integers only
    filled: float = 0.0  # the share of it that the sample spans, at least, to be taken for it


DOMAINS: Final = (
    Domain(frozenset({"month"}), 1, 12, "a month", whole=True),
    Domain(frozenset({"hour"}), 0, 24, "an hour of the day", whole=True, filled=0.5),
    Domain(frozenset({"minute"}), 0, 59, "a minute of the hour", whole=True, filled=0.5),
    Domain(frozenset({"second"}), 0, 60, "a second of the minute", whole=True, filled=0.5),
    Domain(frozenset({"day"}), 1, 31, "a day of the month", whole=True, filled=0.5),
    Domain(frozenset({"weekday", "dayofweek", "dow"}), 0, 7, "a day of the week", whole=True),
    Domain(frozenset({"age"}), 0, 130, "an age in years", filled=0.2),
    Domain(frozenset({"percent", "percentage", "pct"}), 0, 100, "a percentage", filled=0.2),
    Domain(frozenset({"probability", "prob", "share", "fraction"}), 0, 1, "a share", filled=0.2),
    Domain(frozenset({"latitude", "lat"}), -90, 90, "a latitude"),
    Domain(frozenset({"longitude", "lon", "lng"}), -180, 180, "a longitude"),
)

NEVER_NEGATIVE: Final = frozenset(
    {"age", "area", "count", "distance", "duration", "height", "length", "number", "qty", "quantity", "size", "weight"}
)
CODES: Final = frozenset(
    {"account", "card", "fax", "iban", "mobile", "phone", "postal", "postcode", "ssn", "telephone", "zip", "zipcode"}
)
"""Their digits are names rather than amounts: a leading zero counts, and nobody adds them up."""
MONEY: Final = frozenset({"amount", "balance", "charge", "cost", "fare", "fee", "price", "salary", "total", "wage"})
KEYS: Final = frozenset({"code", "guid", "id", "identifier", "key", "no", "number", "ref", "reference", "uuid"})
NAMES: Final = frozenset({"name", "title"})
"""What things are called; two may have one name."""
PEOPLE: Final = frozenset(
    {"applicant", "citizen", "client", "customer", "employee", "member", "patient", "person", "student", "user"}
)
"""What is called after them may say who they are."""


def tokens_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case: `HTTPStatus_code2` has http, status, code and 2."""
    return tuple(_WORDS.findall(_BOUNDARIES.sub(" ", name).lower()))


def has_word(name: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(tokens_of(name))


def domain_of(name: str, lowest: float, highest: float, *, whole: bool) -> Domain | None:
    """The known quantity that a column of this name and these extremes is."""
    for each in DOMAINS:
        if (
            has_word(name, each.words)
            and (whole or not each.whole)
            and each.minimum <= lowest
            and highest <= each.maximum
            and highest - lowest >= each.filled * (each.maximum - each.minimum)
        ):
            return each
    return None
