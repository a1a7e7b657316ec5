"""Ray Serve: one replica; FAST switches on its dynamic batching."""

import os

import joblib
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

FAST = os.environ.get("FAST") == "1"
CALLS = 128  # at once in the one replica; more than there are connections


@serve.deployment(num_replicas=1, max_ongoing_requests=CALLS, logging_config={"enable_access_log": False})
class Triage:
    def __init__(self, path: str) -> None:
        self.model = joblib.load(path)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def many(self, rows: list[list[float]]) -> list[float]:
        return self.model.predict_proba(rows)[:, 1].tolist()

    async def __call__(self, request: Request) -> JSONResponse:
        row = (await request.json())["vector"]
        probability = await self.many(row) if FAST else float(self.model.predict_proba([row])[0, 1])
        return JSONResponse({"probability": probability})  # a plain dictionary would leave in chunks


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False)
    serve.start(http_options={"port": int(os.environ["PORT"])})
    serve.run(Triage.bind(os.environ["MODEL"]), blocking=True)
