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

# Variables that a library reads when it is first imported, by the command that sets them where nobody else has.
ENVIRONMENT: dict[str, dict[str, str]] = {
    "batch": {"OPENBLAS_NUM_THREADS": "1"},  # as in a worker: threads of one small product after another only contend
}
INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended

# Where each command stands, and its line in the list of commands, which is shown without importing them all.
COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("init",): ("mainstay.cli.init:init", "Make a workspace: settings, a signing key, the first API key."),
    ("new",): ("mainstay.cli.new:new", "Draft a capability folder from a model and a sample of its data."),
    ("validate",): ("mainstay.cli.versions:validate", "List every problem of a capability folder, with file and line."),
    ("register",): ("mainstay.cli.versions:register", "Make an immutable version of a capability folder."),
    ("check",): ("mainstay.cli.checks:check", "Every check of a version before a stage, with its evidence."),
    ("promote",): ("mainstay.cli.rollout:promote", "Bring a version to a stage: shadow, canary or production."),
    ("approve",): ("mainstay.cli.rollout:approve", "Approve what somebody else proposed."),
    ("rollback",): ("mainstay.cli.rollback:rollback", "Take back what came last."),
    ("stop",): ("mainstay.cli.stopping:stop", "Send every decision of a capability to its fallback."),
    ("resume",): ("mainstay.cli.stopping:resume", "Let a capability that was stopped decide again."),
    ("rollouts",): ("mainstay.cli.trials:rollouts", "What is on trial, and what waits for approval."),
    ("shadow",): ("mainstay.cli.shadow:shadow", "What a shadow decides otherwise, and where most."),
    ("history",): ("mainstay.cli.trials:history", "The releases and rollouts of a capability: who, why, on what."),
    ("up",): ("mainstay.cli.processes:up", "Run all of it: serve decisions, seal the ledger."),
    ("serve",): ("mainstay.cli.processes:serve", "Run the data plane alone."),
    ("control",): ("mainstay.cli.processes:control", "Run the control plane alone."),
    ("decide",): ("mainstay.cli.calls:decide", "Ask for decisions from the shell."),
    ("batch",): ("mainstay.cli.batch:batch", "Decide every row of a table."),
    ("outcomes",): ("mainstay.cli.calls:outcomes", "Report what came of decisions."),
    ("status",): ("mainstay.cli.status:status", "How it is going."),
    ("monitor",): ("mainstay.cli.monitor:monitor", "Is it still as it was? What changed, since when, and why."),
    ("explain",): ("mainstay.cli.evidence:explain", "One decision: who asked, what was in force, how it ended."),
    ("replay",): ("mainstay.cli.replay:replay", "Run recorded decisions again: is the output the same?"),
    ("erase",): ("mainstay.cli.erase:erase", "Destroy the data of a person; every proof still verifies."),
    ("demo",): (
        "mainstay.cli.demo:demo",
        "The story of a pilot on real flights, from its first day to its year's end.",
    ),
    ("review", "list"): ("mainstay.cli.review:list_reviews", "List what waits for a person."),
    ("review", "show"): (
        "mainstay.cli.review:show_review",
        "One decision that waits: its input, what was proposed, and why.",
    ),
    ("review", "resolve"): ("mainstay.cli.review:resolve_review", "Accept, change or reject it."),
    ("intake", "run"): ("mainstay.cli.intake:run", "Run the sources of a capability once, now."),
    ("intake", "status"): ("mainstay.cli.intake:status", "How sources are, what waits, what was found."),
    ("intake", "release"): ("mainstay.cli.intake:release", "Let a held source go on."),
    ("quarantine", "list"): (
        "mainstay.cli.quarantine:list_held",
        "List the rows that the contract kept out, by what was wrong with them.",
    ),
    ("quarantine", "show"): (
        "mainstay.cli.quarantine:show_held",
        "Rows that were kept out, whole: what came, from where, what they break, what became of them.",
    ),
    ("quarantine", "replay"): (
        "mainstay.cli.quarantine:replay_held",
        "Send them to the door again, under the contract now in force.",
    ),
    ("quarantine", "discard"): ("mainstay.cli.quarantine:discard_held", "Give them up, with a reason."),
    ("contract", "check"): ("mainstay.cli.contracts:check", "Hold data to every rule of a contract."),
    ("contract", "diff"): (
        "mainstay.cli.contract_changes:diff",
        "What changed between two versions of a contract, and whom it breaks.",
    ),
    ("schema", "capability"): ("mainstay.cli.schemas:capability", "Print the JSON Schema of capability.yaml."),
    ("authority", "schema"): ("mainstay.cli.authority:schema", "Print the Cedar schema of a capability folder."),
    ("authority", "check"): ("mainstay.cli.authority:check", "List every problem of a folder's authority.cedar."),
    ("lineage",): ("mainstay.cli.lineage:lineage", "What stands behind a decision, and what a bad batch touched."),
    ("export", "prometheus"): ("mainstay.cli.export:prometheus", "Write alert and recording rules of a capability."),
    ("export", "grafana"): ("mainstay.cli.export:grafana", "Write a dashboard of a capability."),
    ("retraining", "request"): ("mainstay.cli.retraining:request", "Ask for a challenger of the version in force."),
    ("retraining", "list"): ("mainstay.cli.retraining:list_requests", "What was asked for, and what came of it."),
    ("retraining", "show"): ("mainstay.cli.retraining:show", "One request: rows, challenger, comparison."),
    ("retraining", "withdraw"): ("mainstay.cli.retraining:withdraw", "Take back what no run has taken yet."),
    ("snapshot", "take"): ("mainstay.cli.snapshots:take_snapshot", "Copy rows of a table: what a model is trained on."),
    ("snapshot", "list"): ("mainstay.cli.snapshots:list_snapshots", "List every snapshot."),
    ("snapshot", "verify"): ("mainstay.cli.snapshots:verify_snapshot", "Are the rows still those that were taken?"),
    ("snapshot", "export"): ("mainstay.cli.snapshots:export_snapshot", "Write a snapshot to files."),
    ("ledger", "verify"): (
        "mainstay.cli.evidence:verify",
        "Read the whole ledger again, and name the first bad place.",
    ),
    ("ledger", "prove"): ("mainstay.cli.proofs:prove", "Write a proof that an entry is in the log."),
    ("ledger", "check-proof"): ("mainstay.cli.proofs:check_proof", "Check a proof with nothing but a public key."),
    ("ledger", "checkpoint"): ("mainstay.cli.proofs:checkpoint", "Print or keep the log's signed checkpoint."),
    ("ledger", "anchor"): (
        "mainstay.cli.anchors:anchor",
        "Publish the checkpoint to every witness and anchor now.",
    ),
    ("witness", "init"): ("mainstay.cli.witness:init_witness", "Make a witness for logs of others."),
    ("witness", "add-log"): ("mainstay.cli.witness:add_witness_log", "Let a witness cosign a log."),
    ("witness", "serve"): ("mainstay.cli.witness:serve", "Cosign checkpoints over HTTP."),
    ("ledger", "archive"): ("mainstay.cli.archive:archive", "Copy the oldest entries to a place of their own."),
    ("ledger", "update-archive"): (
        "mainstay.cli.archive:update_archive",
        "Erase in an archive what has been erased in the ledger.",
    ),
    ("ledger", "reindex"): ("mainstay.cli.archive:reindex", "Make the index of the ledger anew."),
    ("key", "create"): ("mainstay.cli.keys:create_key", "Make an API key; its token is shown once."),
    ("key", "list"): ("mainstay.cli.keys:list_key", "List every key."),
    ("key", "revoke"): ("mainstay.cli.keys:revoke_key", "Refuse a key from now on."),
}
GROUPS = {
    "authority": "What a capability may do, and who may do what with it.",
    "intake": "Live data: sources, and what comes in of them.",
    "contract": "What data must be, and what their contracts promise.",
    "schema": "Schemas for editors.",
    "review": "Decisions that wait for a person.",
    "quarantine": "Rows that the contract kept out.",
    "export": "Documents for other tools, made from what a capability declares.",
    "retraining": "Challengers: trained on frozen rows, and compared before they enter as a shadow.",
    "snapshot": "Rows of tables under a name, for training.",
    "ledger": "The evidence itself.",
    "witness": "Cosigning the logs of others, on a machine of its own.",
    "key": "Who may call, and what they may do.",
}


def make_app(*, listing: bool = False) -> App:
    """The command line. A command's own help is its docstring; with `listing`, it is its line in the list instead."""
    made = App(
        name="mainstay",
        help="Takes an AI pilot to production and keeps it there, with evidence.",
        version=__version__,
        result_action="return_value",
    )
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for words, (place, line) in COMMANDS.items():
        parent = made if len(words) == 1 else groups[words[0]]
        parent.command(place, name=words[-1], **({"help": line} if listing else {}))
    for group in groups.values():
        made.command(group)
    return made


def _names_a_command(arguments: Sequence[str]) -> bool:
    words = tuple(word for word in arguments if not word.startswith("-"))
    return words[:1] in COMMANDS or words[:2] in COMMANDS


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 on success, 1 on a failed check or work, 2 on misuse."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    given = sys.argv[1:] if arguments is None else list(arguments)
    for name, value in ENVIRONMENT.get(given[0] if given else "", {}).items():
        os.environ.setdefault(name, value)
    app = make_app(listing=not _names_a_command(given))
    try:
        code = app(given, exit_on_error=False, error_console=errors, print_error=True)
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
