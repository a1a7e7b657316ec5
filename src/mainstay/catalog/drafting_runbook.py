"""The runbook of a drafted folder: for each thing that may happen, what it means and the commands for it."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """\
# When {name} is in trouble

For whoever is called at 2 am and did not build it. Run the commands in the workspace. Who owns it
stands in `capability.yaml` under `owner`.

## First look

```console
$ mainstay status
$ mainstay history {name}
```

`status` says what runs, which release is in force, how decisions ended and why. One decision, with
all that led to it:

```console
$ mainstay explain DECISION
```

## The last release made it worse

```console
$ mainstay rollback {name} --reason "what was seen"
```

publishes again what was in force before. It takes seconds, nothing is rebuilt, and it is recorded.

## Alerts

### Callers get 503 `unrecorded`

The ledger's disk is full or failing; nothing is decided that cannot be recorded. Make room, or mend
the disk. Workers go on by themselves; then look whether everything is there:

```console
$ mainstay ledger verify
```

### Callers get 429 `overloaded`

More decisions arrive than the model can take in time. Serve with more workers:

```console
$ mainstay up --workers 4
```

### Many answers by fallback

The reasons are `deadline_exceeded`, `model_error`, `model_crashed`, `model_unavailable` or `output_invalid`.
The model is slow, fails, or answers nonsense; callers get what `fallback` in `capability.yaml`
says. See why, and go back if it began with a release:

```console
$ mainstay status
$ mainstay explain DECISION
$ mainstay rollback {name} --reason "the model fails"
```

### Every answer by fallback: `feed_stopped`

A source of the capability is stopped at the door: too many bad rows, or a schema that the contract
does not take. Nothing is lost. The line `held` names the source and why; when the cause is mended,
let it go on:

```console
$ mainstay status
$ mainstay intake status
```

### Many refusals: `contract_violation`

What callers send has changed, or the contract, which was drafted from a sample, is too narrow. The
refusal names every broken rule. If the input is right, correct the contract and release it:

```console
$ mainstay validate {folder}
$ mainstay register {folder}{trust}
$ mainstay promote {name} --reason "the contract was too narrow"
```

### `out_of_distribution` in more than a few of a hundred decisions

Input is unlike the reference rows: the world has changed, or a source is broken. Find out which
before you trust the answers; nothing needs to be restarted.

```console
$ mainstay status
$ mainstay explain DECISION
```

### Decisions wait for a person

```console
$ mainstay review list
$ mainstay review show DECISION
$ mainstay review resolve DECISION --accept --reason "checked by hand"
```

### A key leaked

```console
$ mainstay key list
$ mainstay key revoke KEY --reason "leaked"
```

### `mainstay ledger verify` fails

Evidence was changed or lost. Change nothing, copy `.mainstay/ledger` away, and call whoever keeps
the checkpoints.
"""


def write_runbook(name: str, folder: str, trust: str) -> bytes:
    """`runbook.md`. `folder` is where the folder stands, `trust` what `register` has to be told of its model's file."""
    return _TEXT.format(name=name, folder=folder, trust=trust).encode()
