"""The model that a pilot brought, opened by its own library: which columns it takes, and the table it is given.

Only processes that hold nothing of ours load this: the child that converts, and the one that runs a model isolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias
from zipfile import BadZipFile

import joblib
import numpy as np
import pandas as pd
import skops.io

from mainstay.catalog.conversion import SKOPS_SUFFIX
from mainstay.runtime.child import RefusedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mainstay.runtime.types import Feature, Row

Role: TypeAlias = Literal["probabilities", "label", "value"]
Answers: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
"""By role: probabilities (n_rows, n_classes), labels and values (n_rows,). Labels are text, integers or booleans."""


class Offered(NamedTuple):
    """The columns that a model may take."""

    features: tuple[Feature, ...]  # in the order of each row
    declared: bool  # whether the declaration lists them; else they are all of the contract's


class Columns(NamedTuple):
    """The columns that a model takes, and how."""

    features: tuple[Feature, ...]  # in the model's order
    places: tuple[int, ...]  # of each among those that were offered
    by_name: bool  # the model takes a DataFrame, else a matrix
    categories: frozenset[str] = frozenset()  # given as pandas categories


class Original(Protocol):
    """A model as its library runs it."""

    @property
    def columns(self) -> Columns: ...
    @property
    def roles(self) -> tuple[Role, ...]:
        """What it answers."""
        ...

    @property
    def classes(self) -> tuple[str | int | bool, ...]:
        """In the order of the probabilities; empty for a regression."""
        ...

    def answer(self, rows: Sequence[Row], *, rounded: bool = False) -> Answers:
        """What the model makes of rows of all offered features. `rounded`: every number goes through float32 first."""
        ...


def open_file(path: Path, trusted_types: tuple[str, ...]) -> Any:
    """What a skops file or a pickle holds; the parent has made sure that a pickle is trusted."""
    if path.suffix != SKOPS_SUFFIX:
        return joblib.load(path)
    try:
        needed = skops.io.get_untrusted_types(file=path)
    except BadZipFile as error:
        raise RefusedModel(f"{path.name}: expected a skops file: {error}") from None
    refused = sorted(set(needed) - set(trusted_types))
    if refused:
        listed = ", ".join(sorted(set(needed) | set(trusted_types)))
        raise RefusedModel(
            f"{path.name} holds types that are not trusted: {', '.join(refused)}",
            f"If you know them to be harmless, write in capability.yaml under `model:`\n  trusted_types: [{listed}]",
        )
    return skops.io.load(path, trusted=list(trusted_types))


def choose_columns(offered: Offered, names: Iterable[str] | None, width: int | None) -> Columns:
    """The features the model takes, by its own names where it has them, else all that are offered.

    Raises RefusedModel when they do not fit.
    """
    if names is None:
        if width is not None and width != len(offered.features):
            raise RefusedModel(
                f"the model takes {width} features and has no names for them; "
                f"found {len(offered.features)} in the declaration",
                "List the fields in the model's order under `model.features` in capability.yaml.",
            )
        return Columns(offered.features, tuple(range(len(offered.features))), by_name=False)
    wanted = [str(name) for name in names]
    places = {each.name: place for place, each in enumerate(offered.features)}
    missing = [name for name in wanted if name not in places]
    if missing:
        raise RefusedModel(f"the model was fitted on columns that the input does not have: {', '.join(missing)}")
    unknown = sorted(places.keys() - set(wanted))
    if unknown and offered.declared:
        raise RefusedModel(f"model.features lists columns that the model was not fitted on: {', '.join(unknown)}")
    chosen = tuple(places[name] for name in wanted)
    return Columns(tuple(offered.features[place] for place in chosen), chosen, by_name=True)


def build_table(columns: Columns, rows: Sequence[Row], *, rounded: bool) -> Any:
    """What the original is given: a DataFrame where it was fitted on one, else a matrix.

    A missing number is NaN; missing text is what pandas makes of None.
    """
    values = [tuple(row[place] for row in rows) for place in columns.places]
    if not columns.by_name:
        if any(feature.kind == "string" for feature in columns.features):
            return np.array(values, dtype=object).T
        matrix = np.array(values, dtype=np.float64).T
        return _round(matrix) if rounded else matrix
    return pd.DataFrame(
        {
            feature.name: pd.Categorical(list(column))
            if feature.name in columns.categories
            else _column(feature, column, rounded=rounded)
            for feature, column in zip(columns.features, values, strict=True)
        }
    )


def plain_labels(labels: Any) -> list[str | int | bool]:
    """Labels as JSON has them; whole floats, which an outcome column with gaps turns integers into, as integers."""
    plain: list[str | int | bool] = []
    for label in np.asarray(labels).tolist():
        if isinstance(label, float) and label.is_integer():
            plain.append(int(label))
        elif isinstance(label, str | int):
            plain.append(label)
        else:
            raise RefusedModel(f"expected class labels that are text, integers or booleans, found {label!r}")
    return plain


def one_per_row(values: Any, rows: int) -> np.ndarray[Any, Any]:
    """A regression's values as float64 (n_rows,). Raises RefusedModel when there are more or fewer than rows."""
    found = np.asarray(values, dtype=np.float64)
    if found.size != rows:
        raise RefusedModel(f"expected one value per row, found {found.size // max(1, rows)}")
    return found.reshape(-1)


def _column(feature: Feature, column: tuple[Any, ...], *, rounded: bool) -> Any:
    if feature.kind == "string":
        return list(column)
    if feature.kind == "number" or None in column:
        numbers = np.array(column, dtype=np.float64)
        return _round(numbers) if rounded else numbers
    return np.array(column, dtype=np.bool_ if feature.kind == "boolean" else np.int64)


def _round(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32).astype(np.float64)
