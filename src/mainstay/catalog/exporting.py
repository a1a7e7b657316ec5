"""The process that keeps the lake up: `python -m mainstay.catalog.exporting WORKSPACE`.

Decisions and outcomes go there from the ledger, reference profiles from the versions.
"""

from __future__ import annotations

from mainstay.catalog.reference_profiles import ProfileExporter
from mainstay.lake.exporting import run_process


def main() -> None:
    """Export until standard input ends, or a signal says so."""
    run_process([ProfileExporter()])


if __name__ == "__main__":
    main()
