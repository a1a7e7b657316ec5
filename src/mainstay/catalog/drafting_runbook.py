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

### There are no metrics

Prometheus gets nothing. Does anything run, and may its key still `read`?

```console
$ mainstay status
$ mainstay key list
```

### An error budget burns

Calls get no answer, more than `service_levels` in `capability.yaml` allows. The reasons say why: a
model that fails and a ladder without an answer, or a capability that is overloaded. Go back if it
began with a release:

```console
$ mainstay status
$ mainstay history {name}
$ mainstay rollback {name} --reason "calls get no answer"
```

### Answers are slow

More calls than `service_levels` allows take longer than it says. Is the machine busy with something
else, the model larger than before, the disk slow (`mainstay_ledger_sync_seconds_total`)? Serve with
more workers, or go back if it began with a release:

```console
$ mainstay up --workers 4
$ mainstay rollback {name} --reason "answers are slow"
```

### Nobody calls

Ask a caller before you look here: do calls leave there, and what comes back? A key that expired or
was revoked gives 401.

```console
$ mainstay status
$ mainstay key list
```

### Decisions cost too much

Time and reviews cost what `cost` in `capability.yaml` says. Look which of the two has grown: how
many wait for a person, and how long calls take.

```console
$ mainstay status
$ mainstay review list
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

### A source is late or fails

Nothing came of it for longer than declared, or its last runs failed. What it says, and what waits:

```console
$ mainstay intake status {name}
```

### Rows go into quarantine

Rows of a source break the contract; when too many do, the source is held. See what is wrong with
them, and tell who owns the source:

```console
$ mainstay quarantine list {name}
```

### The tables are behind

Decisions go on; what watches them sees nothing new. The process that exports to the tables is down,
or their storage does not take what it writes. The line `lake` says which:

```console
$ mainstay status
```

### A shadow drops decisions

The version that is tried in the shadow is slower than calls come. Callers notice nothing; what is
compared is a part of the decisions, and it takes longer until there are enough.

```console
$ mainstay history {name}
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
