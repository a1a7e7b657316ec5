"""What a column may say of a person, from its name and from its values. These are guesses: a person answers for them.

Values are looked at where something about them can be checked: check digits of payment cards (ISO/IEC 7812-1, Annex B)
and of bank accounts (IBAN, ISO 13616), ranges of US social security numbers, forms of e-mail addresses and of
telephone numbers (ITU-T E.164).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mainstay.contract.formats import STRING_FORMATS
from mainstay.contract.inference_names import tokens_of
from mainstay.contract.inference_types import Guess

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LOOKED_AT: Final = 2_000  # different values
FEWEST_LOOKED_AT: Final = 10
ENOUGH: Final = 0.8  # the share of them that must hold
BY_NAME: Final = 0.7  # how sure a name alone makes

_DIRECT: Final = frozenset(
    {"surname", "firstname", "lastname", "fullname", "forename", "email", "mail", "phone", "telephone", "mobile"}
    | {"ssn", "passport", "iban", "birthdate", "birthday", "dob", "username", "address", "street", "fax"}
)
_DIRECT_PAIRS: Final = frozenset(
    {("first", "name"), ("last", "name"), ("full", "name"), ("given", "name"), ("family", "name"), ("middle", "name")}
    | {("customer", "name"), ("patient", "name"), ("client", "name"), ("employee", "name"), ("person", "name")}
    | {("birth", "date"), ("date", "birth"), ("card", "number"), ("account", "number"), ("ip", "address")}
    | {("social", "security"), ("tax", "id"), ("national", "id"), ("user", "name"), ("e", "mail")}
)
_QUASI: Final = frozenset(
    {"age", "sex", "gender", "race", "ethnicity", "ethnic", "nationality", "nativity", "citizenship", "religion"}
    | {"marital", "zip", "zipcode", "postcode", "postal", "occupation", "disability", "ancestry"}
)
_EMAIL = re.compile(STRING_FORMATS["email"])
_SSN = re.compile(r"(?a)(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")
_PHONE = re.compile(r"(?a)\+[1-9][\d ().-]{6,20}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}")
_IBAN = re.compile(r"(?a)[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_CARD = re.compile(r"(?a)[2-6]\d{12,18}")


class _Sign(NamedTuple):
    """Something that values can be checked for."""

    words: str
    holds: Callable[[str], bool]


def _is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN are right: the remainder by 97 of its rearranged digits is 1."""
    packed = text.replace(" ", "").upper()
    return bool(_IBAN.fullmatch(packed)) and int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Whether the check digit of a payment card's number is right (Luhn)."""
    packed = text.replace(" ", "").replace("-", "")
    if not _CARD.fullmatch(packed):
        return False
    digits = [int(c) for c in reversed(packed)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


_SIGNS: Final = (
    _Sign("e-mail addresses", lambda text: _EMAIL.search(text) is not None),
    _Sign("bank account numbers (IBAN) with right check digits", _is_iban),
    _Sign("payment card numbers with a right check digit", _is_card),
    _Sign("numbers of the form of US social security numbers", lambda text: _SSN.fullmatch(text) is not None),
    _Sign("telephone numbers", lambda text: _PHONE.fullmatch(text) is not None),
)


def guess_classification(values: pl.Series) -> Guess | None:
    """What a column's values, and else its name, make of it; None where they make nothing."""
    return _by_values(values) or _by_name(values.name)


def _by_values(values: pl.Series) -> Guess | None:
    if not (values.dtype.is_integer() or values.dtype == pl.String):
        return None
    different = values.drop_nulls().unique(maintain_order=True)
    if len(different) < FEWEST_LOOKED_AT:
        return None
    looked_at = different.sample(min(len(different), MOST_LOOKED_AT), seed=0).cast(pl.String).to_list()
    for sign in _SIGNS:
        share = sum(map(sign.holds, looked_at)) / len(looked_at)
        if share >= ENOUGH:
            return Guess("personal", round(share, 4), f"{share:.0%} of its values are {sign.words}")
    return None


def _by_name(name: str) -> Guess | None:
    words = [word for word in tokens_of(name) if not word.isdigit()]
    if not words:
        return None
    pairs = set(pairwise(words)) | {(a, c) for a, c in zip(words, words[2:], strict=False)}
    if words == ["name"] or not _DIRECT.isdisjoint(words) or not _DIRECT_PAIRS.isdisjoint(pairs):
        return Guess("personal", BY_NAME, "By its name it says who somebody is")
    if not _QUASI.isdisjoint(words):
        return Guess("quasi-identifier", BY_NAME, "By its name it is one of those that together tell people apart")
    return None
