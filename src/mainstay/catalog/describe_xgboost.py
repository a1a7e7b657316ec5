"""Describing a booster in a file of XGBoost's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import xgboost

from mainstay.catalog.describe import Described, Gives, Takes
from mainstay.catalog.xgboost_models import roles_of
from mainstay.runtime.child import RefusedModel

if TYPE_CHECKING:
    from pathlib import Path


def describe_file(path: Path, _trusted_types: tuple[str, ...]) -> Described:
    """Raises RefusedModel when XGBoost cannot read it."""
    try:
        booster = xgboost.Booster(model_file=path)
    except xgboost.core.XGBoostError as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise RefusedModel(f"{path.name}: expected a model that XGBoost saved: {first[:500]}") from None
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    roles = roles_of(objective)
    count = max(2, int(learner["learner_model_param"]["num_class"]))
    names, types = booster.feature_names, booster.feature_types or []
    kinds = zip(names or [], types, strict=False)
    return Described(
        kind="xgboost",
        what=f"XGBoost booster ({objective})",
        takes=Takes(
            names=tuple(names) if names else None,
            width=booster.num_features(),
            # what was a pandas category may be text or a number: the data decide
            kinds={name: "number" for name, kind in kinds if kind != "c"},
            every=None if "c" in types else "number",
        ),
        gives=Gives(roles=roles, classes=() if "value" in roles else tuple(range(count))),
    )
