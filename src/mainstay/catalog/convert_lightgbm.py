"""The child that loads a model of LightGBM and converts it: `python -m mainstay.catalog.convert_lightgbm DIRECTORY`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as converter
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

from mainstay.catalog.convert import BOOSTER_OPSETS, Converted, Library, convert_estimator, convert_matrix, run_child
from mainstay.catalog.lightgbm_models import Booster, load

if TYPE_CHECKING:
    from mainstay.catalog.conversion import Request

_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False]}

# So that they convert wherever they stand in a pipeline.
update_registered_converter(
    lightgbm.LGBMClassifier,
    "MainstayLGBMClassifier",
    calculate_linear_classifier_output_shapes,
    converter,
    options=_OPTIONS,
)
update_registered_converter(
    lightgbm.LGBMRegressor, "MainstayLGBMRegressor", calculate_linear_regressor_output_shapes, converter
)


def to_graph(original: Any, request: Request) -> Converted:
    """The booster or estimator that `load` gave, as ONNX."""
    if not isinstance(original, Booster):
        return convert_estimator(original, original.model, request, BOOSTER_OPSETS)
    return convert_matrix(
        original.columns,
        lambda name, width: convert_lightgbm(
            original.booster, name="model", initial_types=[(name, FloatTensorType([None, width]))], zipmap=False
        ),
    )


LIGHTGBM = Library(load, to_graph)

if __name__ == "__main__":
    run_child(LIGHTGBM)
