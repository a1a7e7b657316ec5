"""The house of `mainstay` as data: what each package may import.

Written out rather than derived from an order, so that a new arrow between two packages is a line in a review.
"""

from __future__ import annotations

from typing import Final

GROUND: Final = frozenset(
    {"errors", "problems", "files", "locks", "workspace", "processes", "documents", "structs", "signing", "arrays"}
)
ROOT: Final = "mainstay"  # `mainstay/__init__.py`: the version, and nothing of ours

_BELOW_KNOW: Final = GROUND | {"contract", "ledger", "lake", "lineage", "capability"}
_KNOW: Final = frozenset({"catalog", "runtime", "authority", "privacy"})
_BELOW_ACT: Final = _BELOW_KNOW | _KNOW
_BELOW_WATCH: Final = _BELOW_ACT | {"decision", "intake"}
_BELOW_STEER: Final = _BELOW_WATCH | {"monitoring", "state"}
_BELOW_FACE: Final = _BELOW_STEER | {ROOT}

# A value is a package, or one module of it. Every package may import itself; the ground may import the ground.
MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    ROOT: frozenset({"client", "embedded"}),  # by name, when they are first asked for
    **dict.fromkeys(GROUND, GROUND),
    "contract": GROUND,
    "ledger": GROUND,
    "lineage": GROUND,
    "lake": GROUND | {"ledger", "lineage"},
    "capability": GROUND | {"contract"},
    "catalog": _BELOW_KNOW | {"runtime"},
    "runtime": GROUND | {"contract", "capability"},
    "authority": _BELOW_KNOW,
    "privacy": _BELOW_KNOW,
    "decision": _BELOW_ACT,
    "intake": _BELOW_ACT,
    "batch": _BELOW_WATCH,
    "state": GROUND,
    "monitoring": _BELOW_WATCH | {"state"},
    "rollout": _BELOW_STEER,
    "retraining": _BELOW_STEER | {"rollout"},
    "server": _BELOW_FACE,
    "client": _BELOW_FACE,
    "embedded": _BELOW_FACE | {"server", "client"},
    "cli": _BELOW_FACE | {"batch", "rollout", "retraining", "server", "client"},
}

# What answers calls: it must neither load nor need what only training, registering or steering needs.
DATA_PLANE: Final = ("decision", "runtime", "server")
NEVER_IN_THE_DATA_PLANE: Final = frozenset(
    {
        *("duckdb", "lightgbm", "onnx", "onnxmltools", "pandas", "polars", "pyarrow", "skl2onnx", "sklearn", "skops"),
        *("dbos", "deltalake", "obstore", "ray", "scipy", "sqlalchemy", "sqlite3", "xgboost"),
    }
)
