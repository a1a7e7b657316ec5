"""Secrets of sources: read when they are needed, from a variable or a file, and shown nowhere.

Nothing here puts a value into a message: an error names the variable or the file.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mainstay.capability.sources import Secret

MAX_SECRET_BYTES: Final = 65_536
HIDDEN: Final = "[secret]"

_SHORTEST: Final = 4  # a value of fewer characters stands in any text by chance, and protects nothing
_CODE: Final = "secret_missing"


def read_secret(secret: Secret, environment: Mapping[str, str] = os.environ) -> str:
    """The value of a secret, without the line's end that an editor puts behind it.

    Raises Misuse unless exactly one place is declared, and Unavailable (`secret_missing`) when it does not stand there,
    is empty or no text, or others than its owner and group can read or change its file.
    """
    match secret.variable, secret.file:
        case str(variable), None:
            value, place = environment.get(variable), f"the variable {variable}"
            if value is None:
                raise Unavailable(_CODE, f"{place} is not set")
        case None, str(file):
            value, place = _read_file(Path(file)), f"the file {file}"
        case _:
            raise Misuse("a secret stands in exactly one of `variable` and `file`")
    value = value.removesuffix("\n").removesuffix("\r")
    if not value or "\0" in value or not value.isprintable():
        raise Unavailable(_CODE, f"{place}: expected one line of printable text, found {_sort(value)}")
    return value


def redact(text: str, values: Iterable[str]) -> str:
    """`text` without these secret values, also as they stand in a URL, in JSON and in a Basic header.

    Values of under 4 characters are left: they stand in any text by chance.
    """
    forms: set[str] = set()
    for value in values:
        if len(value) >= _SHORTEST:
            forms |= {value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]}
            forms.add(base64.b64encode(value.encode()).decode())
    for form in sorted(forms, key=len, reverse=True):  # a secret may stand in another
        text = text.replace(form, HIDDEN)
    return text


def _read_file(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
    except OSError as error:
        raise Unavailable(_CODE, f"the file {path}: expected a readable file, found: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Unavailable(_CODE, f"the file {path}: expected a regular file")
        if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            detail = f"expected a mode of 0640 or stricter, found {stat.S_IMODE(found.st_mode):04o}"
            raise Unavailable(_CODE, f"the file {path}: {detail}; set it with `chmod 600`")
        content = os.read(descriptor, MAX_SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_SECRET_BYTES:
        raise Unavailable(_CODE, f"the file {path}: expected at most {MAX_SECRET_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Unavailable(_CODE, f"the file {path}: expected UTF-8") from None


def _sort(value: str) -> str:
    return "control characters" if value else "nothing"
