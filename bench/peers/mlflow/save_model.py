"""Saves the model in MLflow's format: with a signature, and with probabilities as its answer.

COLUMNS=1 gives the signature one named number for each measurement; else it is one array of them, which is cheaper.
"""

import json
import os
import sys

import joblib
import mlflow.sklearn
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

fields = json.loads(os.environ["FIELDS"])
if os.environ.get("COLUMNS") == "1":
    inputs = Schema([ColSpec(DataType.double, name) for name in fields])
else:
    inputs = Schema([TensorSpec(np.dtype(np.float64), (-1, len(fields)))])
mlflow.sklearn.save_model(
    joblib.load(os.environ["MODEL"]),
    sys.argv[1],
    signature=ModelSignature(inputs=inputs, outputs=Schema([TensorSpec(np.dtype(np.float64), (-1, 2))])),
    pyfunc_predict_fn="predict_proba",
    skops_trusted_types=[
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    ],
)
