"""The peers: how each is started, asked and understood. What each serves and needs is in `peers/<folder>`.

Each is set up as its documentation says, in its favour: one worker, no access log, no usage reports. Those whose name
ends in `-tuned` also have what their documentation offers for throughput; the goals are about the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Record = dict[str, float]

GOALS = {"fastapi": 2.5, "mlserver": 11.0, "litserve": 14.0, "bentoml": 28.0, "ray": 70.0, "mlflow": 90.0}


@dataclass(frozen=True)
class Peer:
    """One way to run one server. Commands may hold {bin}, {folder}, {scratch}, {port}, {port2} and {port3}.

    Every command finds in its environment: MODEL (the pickled scikit-learn model), ARTIFACT (the same as ONNX), FIELDS
    (the names of the features, JSON), PORT, and what is in `environment`, with the same placeholders.
    """

    name: str
    folder: str
    setting: str  # for the table
    command: str
    path: str
    request: Callable[[Record], object]
    probability: Callable[[Any], float]
    prepare: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        return self.name.endswith("-tuned")

    @property
    def goal(self) -> float | None:
        """How many times the CPU of a decision of Mainstay a request is to cost at least."""
        return None if self.tuned else GOALS[self.folder]


def _values(record: Record) -> list[float]:
    return list(record.values())


def _fastapi(name: str, setting: str, **settings: str) -> Peer:
    return Peer(
        name=name,
        folder="fastapi",
        setting=setting,
        command="{bin}/uvicorn service:app --app-dir {folder} --port {port} --no-access-log",
        environment=settings,
        path="/predict",
        request=lambda record: record,
        probability=lambda answer: answer["probability"],
    )


def _open_inference(record: Record) -> object:
    inputs = [{"name": "measurements", "shape": [1, len(record)], "datatype": "FP64", "data": _values(record)}]
    return {"inputs": inputs, "outputs": [{"name": "predict_proba"}]}


def _mlserver(name: str, setting: str, **settings: str) -> Peer:
    return Peer(
        name=name,
        folder="mlserver",
        setting=setting,
        command="{bin}/mlserver start {folder}",
        environment={
            "MLSERVER_MODEL_URI": "{model}",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port2}",
            "MLSERVER_METRICS_PORT": "{port3}",
            "MLSERVER_DEBUG": "false",
            **settings,
        },
        path="/v2/models/triage/infer",
        request=_open_inference,
        probability=lambda answer: answer["outputs"][0]["data"][1],
    )


def _litserve(name: str, setting: str, **settings: str) -> Peer:
    return Peer(
        name=name,
        folder="litserve",
        setting=setting,
        command="{bin}/python {folder}/service.py",
        environment=settings,
        path="/predict",
        request=lambda record: {"input": _values(record)},
        probability=lambda answer: answer["probability"],
    )


def _bentoml(name: str, setting: str, **settings: str) -> Peer:
    return Peer(
        name=name,
        folder="bentoml",
        setting=setting,
        command="{bin}/bentoml serve service:Triage --working-dir {folder} --host 127.0.0.1 --port {port}",
        environment={"BENTOML_HOME": "{scratch}/bentoml", "BENTOML_DO_NOT_TRACK": "True", **settings},
        path="/predict",
        request=lambda record: {"rows": [_values(record)]},
        probability=lambda answer: answer[0],
    )


def _ray_serve(name: str, setting: str, **settings: str) -> Peer:
    return Peer(
        name=name,
        folder="ray",
        setting=setting,
        command="{bin}/python {folder}/service.py",
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "{scratch}", **settings},
        path="/",
        request=lambda record: {"vector": _values(record)},
        probability=lambda answer: answer["probability"],
    )


def _columns(record: Record) -> object:
    return {"dataframe_split": {"columns": list(record), "data": [_values(record)]}}


def _mlflow(name: str, setting: str, request: Callable[[Record], object], **settings: str) -> Peer:
    return Peer(
        name=name,
        folder="mlflow",
        setting=setting,
        prepare="{bin}/python {folder}/save_model.py {scratch}/mlflow-model",
        command="{bin}/mlflow models serve --model-uri {scratch}/mlflow-model --env-manager local --workers 1"
        " --host 127.0.0.1 --port {port}",
        environment={
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": "sqlite:///{scratch}/mlflow.db",
            **settings,
        },
        path="/invocations",
        request=request,
        probability=lambda answer: answer["predictions"][0][1],
    )


PEERS = (
    _fastapi("fastapi", "FastAPI with ONNX Runtime, `def`"),
    _fastapi("fastapi-async", "FastAPI with ONNX Runtime, `async def`", ASYNC="1"),
    _mlserver("mlserver", "MLServer, parallel workers off", MLSERVER_PARALLEL_WORKERS="0"),
    _mlserver("mlserver-default", "MLServer, one parallel worker (its default)"),
    _litserve("litserve", "LitServe, one worker"),
    _bentoml("bentoml", "BentoML, one worker"),
    _ray_serve("ray-serve", "Ray Serve, one replica"),
    _mlflow("mlflow", "mlflow models serve, one worker, named columns", _columns, COLUMNS="1"),
    _mlflow("mlflow-array", "mlflow models serve, one worker, one array", lambda record: {"inputs": [_values(record)]}),
    _mlserver(
        "mlserver-tuned",
        "MLServer, parallel workers off, adaptive batching",
        MLSERVER_PARALLEL_WORKERS="0",
        MLSERVER_MODEL_MAX_BATCH_SIZE="64",
        MLSERVER_MODEL_MAX_BATCH_TIME="0.002",
    ),
    _litserve("litserve-tuned", "LitServe, one worker, batching, fast queue", FAST="1"),
    _bentoml("bentoml-tuned", "BentoML, one worker, adaptive batching", FAST="1"),
    _ray_serve(
        "ray-serve-tuned",
        "Ray Serve, one replica, HAProxy, throughput settings, batching",
        FAST="1",
        RAY_SERVE_ENABLE_HA_PROXY="1",
        RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
        RAY_SERVE_HAPROXY_CONFIG_FILE_LOC="{scratch}/haproxy.cfg",
        RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH="{scratch}/metrics.sock",
        RAY_SERVE_HAPROXY_SERVER_STATE_BASE="{scratch}",
        RAY_SERVE_HAPROXY_SERVER_STATE_FILE="{scratch}/server-state",
        RAY_SERVE_HAPROXY_SOCKET_PATH="{scratch}/haproxy.sock",
    ),
)
