"""Describing a booster in a text file of LightGBM's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightgbm

from mainstay.catalog.describe import Described, Gives, Takes
from mainstay.catalog.lightgbm_models import PROBABILITIES
from mainstay.runtime.child import RefusedModel

if TYPE_CHECKING:
    from pathlib import Path


def describe_file(path: Path, _trusted_types: tuple[str, ...]) -> Described:
    """Raises RefusedModel when LightGBM cannot read it."""
    try:
        booster = lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise RefusedModel(f"{path.name}: expected a model that LightGBM saved: {str(error)[:500]}") from None
    names = booster.feature_name()
    is_nameless = names == [f"Column_{place}" for place in range(len(names))]  # as it calls a matrix's columns
    dump = booster.dump_model(num_iteration=1)
    objective = (dump.get("objective", "").split() or ["none"])[0]
    gives = Gives(roles=("value",))
    if objective in PROBABILITIES:
        gives = Gives(roles=("probabilities",), classes=tuple(range(max(2, dump["num_class"]))))
    return Described(
        kind="lightgbm",
        what=f"LightGBM booster ({objective})",
        takes=Takes(
            names=None if is_nameless else tuple(names),
            width=booster.num_feature(),
            # it holds how many columns were pandas categories, and not which
            every=None if booster.pandas_categorical else "number",
        ),
        gives=gives,
    )
