"""FastAPI, pydantic and ONNX Runtime: the least that a team writes by hand."""

import json
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel, create_model

Measurements = create_model("Measurements", **dict.fromkeys(json.loads(os.environ["FIELDS"]), (float, ...)))


class Triage(BaseModel):
    probability: float


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["ARTIFACT"], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
output = next(each.name for each in session.get_outputs() if "prob" in each.name)
app = FastAPI()


def predict(measurements: Measurements) -> Triage:
    row = np.array([list(measurements.model_dump().values())], dtype=np.float32)
    return Triage(probability=float(session.run([output], {name: row})[0][0, 1]))


async def predict_in_the_loop(measurements: Measurements) -> Triage:
    return predict(measurements)


# A plain function is handed to a thread, which costs more than this model does.
app.post("/predict")(predict_in_the_loop if os.environ.get("ASYNC") == "1" else predict)
