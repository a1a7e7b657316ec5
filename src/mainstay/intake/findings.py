"""What can be found about a source: a closed list of codes, how bad each is, and what it means.

`docs/guides/intake.md` lists them, with what to do; a test holds the two together.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["note", "warning", "error"]
"""`note`: for the record. `warning`: somebody should look. `error`: rows do not come, or do not come through."""


class Meaning(NamedTuple):
    """What a code says."""

    severity: Severity
    text: str


CODES: Final[dict[str, Meaning]] = {
    # While it is fetched.
    "source_down": Meaning("error", "The source does not answer, or answers with an error."),
    "source_slow": Meaning("warning", "The source did not answer in its time."),
    "source_stuck": Meaning("error", "A run did not end long after all of its times were over, and was given up."),
    "rate_limited": Meaning("note", "The source asks for fewer calls."),
    "not_authorized": Meaning("error", "The source does not accept the credentials."),
    "secret_missing": Meaning("error", "A secret is not where it is declared to be, or is empty."),
    "misdeclared": Meaning("error", "The declaration cannot be followed, or what its kind needs is not installed."),
    "not_json": Meaning("error", "The answer is no JSON, such as a page of HTML."),
    "not_whole": Meaning("error", "An answer or a file ends before its end."),
    "too_large": Meaning("error", "An answer or a file is larger than declared."),
    "records_missing": Meaning("error", "The answer has no records where they are declared to be."),
    "redirected": Meaning("error", "The source sends on to another address, where its credentials must not go."),
    "place_lost": Meaning("warning", "The source does not know the page any more that it named as the next."),
    "repeated_page": Meaning("warning", "A page came a second time, or nothing but known records in a new one."),
    "cursor_backwards": Meaning("warning", "Records came from before the cursor, or the source now ends before it."),
    "push_damaged": Meaning("error", "A file of pushed events does not hold; it was put aside."),
    "folder_full": Meaning("error", "More files that were taken are still there than are remembered."),
    "file_changed": Meaning("warning", "A file that was taken has other content now."),
    "cursor_unusable": Meaning(
        "warning", "Rows wait whose cursor is null, infinite, in the future or of another type."
    ),
    "cursor_ties": Meaning("error", "Too many rows have one value of the cursor, and no key tells them apart."),
    "commits_awaited": Meaning(
        "warning", "Transactions stay open, and rows wait for them; beyond `wait_seconds`, not."
    ),
    # At the door.
    "type_changed": Meaning("warning", "A column comes with another type than before."),
    "column_new": Meaning("note", "A column came that the contract does not know."),
    "column_missing": Meaning("warning", "A column of the contract does not come any more."),
    "file_rejected": Meaning("error", "What came is no file of its kind, and was put aside as a whole."),
    "rows_quarantined": Meaning("warning", "Rows broke the contract."),
    "rows_repeated": Meaning("note", "Known records came again."),
    "late_rows": Meaning("note", "Rows came behind the watermark and the lateness that is allowed."),
    "unit_changed": Meaning("error", "Numbers seem to come in another unit; where that is sure, the source is held."),
    "schema_breaking": Meaning("error", "The schema changed in a way that breaks the contract; the source is held."),
    "bad_share": Meaning("error", "Too large a share of the rows is bad; the source is held."),
    # Over time.
    "late_feed": Meaning("error", "Nothing came for longer than declared."),
    "freshness": Meaning("warning", "The newest row is older than the contract's service level allows."),
    "completeness": Meaning("warning", "Fewer rows came than the contract's service level asks for."),
    "service_level": Meaning("warning", "Another service level of the contract is not kept."),
    "failed": Meaning("error", "The work on the source itself failed: a full disk, a table that cannot be written."),
}
"""What each code says."""


def severity_of(code: str) -> Severity:
    """How bad a finding of this code is. One that is not in the list is taken for an error."""
    known = CODES.get(code)
    return "error" if known is None else known.severity
