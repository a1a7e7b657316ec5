"""The child that loads a model of XGBoost and converts it: `python -m mainstay.catalog.convert_xgboost DIRECTORY`."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import xgboost
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as converter
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

from mainstay.catalog.convert import BOOSTER_OPSETS, Converted, Library, convert_estimator, convert_matrix, run_child
from mainstay.catalog.xgboost_models import Booster, load

if TYPE_CHECKING:
    from mainstay.catalog.conversion import Request

_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False]}

# So that they convert wherever they stand in a pipeline.
for each in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
    update_registered_converter(
        each, f"Mainstay{each.__name__}", calculate_linear_classifier_output_shapes, converter, options=_OPTIONS
    )
for each in (xgboost.XGBRegressor, xgboost.XGBRFRegressor):
    update_registered_converter(each, f"Mainstay{each.__name__}", calculate_linear_regressor_output_shapes, converter)


def to_graph(original: Any, request: Request) -> Converted:
    """The booster or estimator that `load` gave, as ONNX."""
    if not isinstance(original, Booster):
        model = copy.deepcopy(original.model)
        for part in (model, *model.get_params(deep=True).values()):
            if isinstance(part, xgboost.XGBModel):
                part.get_booster().feature_names = None  # the converter only reads columns called f0, f1 and so on
        return convert_estimator(original, model, request, BOOSTER_OPSETS)
    booster = original.booster.copy()
    booster.feature_names = None
    return convert_matrix(
        original.columns,
        lambda name, width: convert_xgboost(
            booster, name="model", initial_types=[(name, FloatTensorType([None, width]))]
        ),
    )


XGBOOST = Library(load, to_graph)

if __name__ == "__main__":
    run_child(XGBOOST)
