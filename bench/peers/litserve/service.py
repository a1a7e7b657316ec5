"""LitServe: one API server, one worker; FAST switches on its batching and its faster queue."""

import os
from typing import Any

import joblib
import litserve

FAST = os.environ.get("FAST") == "1"


class Triage(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - what LitServe calls
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request) -> Any:  # noqa: ANN001 - LitServe would parse bodies by the annotation
        return request["input"]

    def predict(self, inputs: list[Any]) -> Any:
        rows = inputs if FAST else [inputs]
        probabilities = self.model.predict_proba(rows)[:, 1].tolist()
        return probabilities if FAST else probabilities[0]

    def encode_response(self, output: float) -> dict[str, float]:
        return {"probability": output}


if __name__ == "__main__":
    api = Triage(max_batch_size=64, batch_timeout=0.002) if FAST else Triage()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=FAST)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, access_log=False)
