"""The command `mainstay`. Each command stands in a module of its own and is imported when it is called."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError
from rich.console import Console

from mainstay import __version__
from mainstay.errors import MainstayError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended

app = App(
    name="mainstay",
    help="Takes an AI pilot to production and keeps it there, with evidence.",
    version=__version__,
    result_action="return_value",
)

_COMMANDS = {
    "init": "mainstay.cli.init:init",
    "validate": "mainstay.cli.versions:validate",
    "register": "mainstay.cli.versions:register",
    "promote": "mainstay.cli.versions:promote",
    "up": "mainstay.cli.processes:up",
    "serve": "mainstay.cli.processes:serve",
    "control": "mainstay.cli.processes:control",
    "decide": "mainstay.cli.calls:decide",
    "outcomes": "mainstay.cli.calls:outcomes",
    "status": "mainstay.cli.status:status",
    "explain": "mainstay.cli.evidence:explain",
    "demo": "mainstay.cli.demo:demo",
}

for _name, _place in _COMMANDS.items():
    app.command(_place, name=_name)

ledger = App(name="ledger", help="The evidence itself.")
ledger.command("mainstay.cli.evidence:verify", name="verify")
app.command(ledger)

key = App(name="key", help="Who may call, and what they may do.")
for _name in ("create", "list", "revoke"):
    key.command(f"mainstay.cli.keys:{_name}_key", name=_name)
app.command(key)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 on success, 1 on a failed check or work, 2 on misuse."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        code = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            error_console=errors,
            print_error=True,
        )
    except CycloptsError:
        sys.exit(2)
    except MainstayError as error:
        errors.print(f"[bold red]error:[/] {_escaped(error.message)}")
        if error.hint:
            errors.print(_escaped(error.hint))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone: nothing more to say
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _escaped(text: str) -> str:
    """Text that rich shows as it is, brackets and all."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
