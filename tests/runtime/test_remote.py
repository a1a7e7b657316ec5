from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from client.service import is_silent, running_service, says
from mainstay.capability.types import OutputField, Remote
from mainstay.errors import Failed, Misuse
from mainstay.runtime.remote import RemoteLane, check_remote, read_secret, run_remote
from mainstay.runtime.remote_model import RemoteModel
from mainstay.runtime.types import Feature, Prediction, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from client.service import Request, Service
    from mainstay.runtime.types import Result

pytestmark = pytest.mark.anyio

FEATURES = (Feature("a", "number", nullable=False),)
OUTPUT = {"twice": OutputField(take="tensor")}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as running:
        yield running


@dataclass(eq=False)
class Item:
    row: tuple[Any, ...]
    run_until: float
    results: list[Result] = field(default_factory=list)


@dataclass
class Doubler:
    """A model that gives twice what it takes, after a while; it knows how many requests it had at once."""

    seconds: float = 0.0
    at_once: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, service: Service, connection: socket.socket, request: Request) -> None:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.seconds)
        with self.lock:
            self.at_once -= 1
        data = [2 * value for value in request.json["inputs"][0]["data"]]
        tensor = {"name": "twice", "shape": [len(data)], "datatype": "FP64", "data": data}
        says(200, {"model_name": "m", "outputs": [tensor]})(service, connection, request)


class Harness:
    """A lane, and what it delivered."""

    def __init__(self, service: Service, *, batch: int = 256, connections: int = 8) -> None:
        self.batches: list[int] = []
        self.delivered = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.lane: RemoteLane[Item] = RemoteLane(
            Remote(url=service.url, model="m", connections=connections, retries=0),
            fields=("a",),
            features=FEATURES,
            output=OUTPUT,
            confidence=None,
            loop=self.loop,
            batch=batch,
            deliver=self.deliver,
            secret=None,
        )

    def deliver(self, items: Sequence[Item], results: Sequence[Result]) -> None:
        self.batches.append(len(items))
        for item, result in zip(items, results, strict=True):
            item.results.append(result)
        self.delivered.set()

    def submit(self, count: int, *, seconds: float = 5) -> list[Item]:
        until = self.loop.time() + seconds
        items = [Item((float(place),), until) for place in range(count)]
        for item in items:
            self.lane.submit(item)
        return items

    async def settle(self, items: Sequence[Item]) -> None:
        async with asyncio.timeout(5):
            while not all(item.results for item in items):
                self.delivered.clear()
                await self.delivered.wait()

    async def close(self) -> None:
        self.lane.close()
        assert self.lane._closing is not None
        await self.lane._closing


async def test_what_waits_goes_as_one_batch_and_each_item_is_delivered_once(service: Service) -> None:
    service.will(Doubler())
    harness = Harness(service)
    items = harness.submit(10)
    await harness.settle(items)
    await harness.close()
    assert harness.batches == [10]
    assert [item.results for item in items] == [[Prediction((2.0 * place,), None)] for place in range(10)]


async def test_a_batch_has_at_most_as_many_rows_as_is_said(service: Service) -> None:
    service.will(Doubler())
    harness = Harness(service, batch=4)
    await harness.settle(harness.submit(10))
    await harness.close()
    assert sorted(harness.batches) == [2, 4, 4]


async def test_as_many_requests_are_under_way_as_connections_are_allowed(service: Service) -> None:
    doubler = Doubler(seconds=0.05)
    service.will(doubler)
    harness = Harness(service, batch=1, connections=3)
    items = harness.submit(9)
    await harness.settle(items)
    await harness.close()
    assert doubler.most == 3
    assert harness.batches == [1] * 9


async def test_what_comes_while_all_connections_are_busy_makes_one_batch(service: Service) -> None:
    service.will(Doubler(seconds=0.05))
    harness = Harness(service, connections=1)
    items = harness.submit(1)
    await asyncio.sleep(0.01)
    for _ in range(5):
        items += harness.submit(1)
        await asyncio.sleep(0.001)
    await harness.settle(items)
    await harness.close()
    assert harness.batches == [1, 5]


async def test_an_item_that_was_withdrawn_is_not_sent(service: Service) -> None:
    service.will(Doubler())
    harness = Harness(service)
    first, second = harness.submit(2)
    harness.lane.withdraw(first)
    harness.lane.withdraw(first)
    await harness.settle([second])
    await harness.close()
    assert harness.batches == [1]
    assert not first.results


async def test_a_batch_is_given_up_when_its_last_item_is_no_longer_waited_for(service: Service) -> None:
    service.will(is_silent)
    harness = Harness(service)
    begun = harness.loop.time()
    items = [*harness.submit(1, seconds=0.05), *harness.submit(1, seconds=0.3)]
    await harness.settle(items)
    assert 0.25 < harness.loop.time() - begun < 1
    assert all(isinstance(item.results[0], Unavailable) for item in items)
    await harness.close()


async def test_a_fault_while_a_batch_is_made_still_delivers_every_item(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.will(Doubler())
    harness = Harness(service)
    broken = Item((object(),), harness.loop.time() + 5)
    harness.lane.submit(broken)
    await harness.settle([broken])
    assert isinstance(broken.results[0], TypeError)
    assert "a batch for a remote model failed: rows=1" in caplog.text
    sound = harness.submit(1)
    await harness.settle(sound)
    await harness.close()
    assert sound[0].results == [Prediction((0.0,), None)]


async def test_a_closed_lane_is_not_ready_and_lets_go_of_what_hangs(service: Service) -> None:
    service.will(is_silent)
    harness = Harness(service)
    assert harness.lane.ready
    harness.submit(1)
    await asyncio.sleep(0.05)
    begun = harness.loop.time()
    await harness.close()
    assert harness.loop.time() - begun < 1
    assert not harness.lane.ready


# Registration

READY = says(200, {"live": True})


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "name": "m",
        "platform": "",
        "inputs": [{"name": "a", "datatype": "FP64", "shape": [-1]}],
        "outputs": [{"name": "twice", "datatype": "FP32", "shape": [-1]}],
    } | changes


async def check(service: Service, output: dict[str, OutputField] = OUTPUT, **changes: Any) -> None:
    await check_remote(Remote(url=service.url, model="m", **changes), FEATURES, output, None)


@pytest.mark.parametrize(
    "described",
    [
        metadata(),
        metadata(inputs=None, outputs=None),
        metadata(inputs=[], outputs=[]),
        metadata(outputs=[{"name": "twice", "datatype": "INT32", "shape": [-1, 1]}]),
        metadata(versions=["1"], parameters={"content_type": "np"}),
    ],
)
async def test_a_model_that_fits_is_accepted(service: Service, described: dict[str, Any]) -> None:
    service.will(READY, says(200, described))
    await check(service, version="3")
    assert [request.path for request in service.requests] == ["/v2/health/ready", "/v2/models/m/versions/3"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": [{"name": "b", "datatype": "FP64", "shape": [-1]}]}, "input tensor a: expected one of b"),
        (
            {"inputs": [{"name": "b", "datatype": "FP64", "shape": [-1]}, *metadata()["inputs"]]},
            "input tensor b: the model takes it, and no feature fills it",
        ),
        (
            {"inputs": [{"name": "a", "datatype": "FP32", "shape": [-1]}]},
            "input tensor a: FP64 is sent, the model takes FP32",
        ),
        (
            {"inputs": [{"name": "a", "datatype": "FP64", "shape": [-1, 1]}]},
            r"input tensor a: \[-1\] is sent, the model takes \[-1, 1\]",
        ),
        (
            {"outputs": [{"name": "thrice", "datatype": "FP64", "shape": [-1]}]},
            "output.twice: expected an output tensor of the model: thrice; found twice",
        ),
        (
            {"outputs": [{"name": "twice", "datatype": "BF16", "shape": [-1]}]},
            "output.twice: expected a datatype of BOOL, .*, the model gives BF16",
        ),
        (
            {"outputs": [{"name": "twice", "datatype": "FP64", "shape": [-1, 2, 2]}]},
            "output.twice: expected 1 or 2 dimensions",
        ),
    ],
)
async def test_a_model_that_does_not_fit_is_refused_with_what_was_found(
    service: Service, changes: dict[str, Any], said: str
) -> None:
    service.will(READY, says(200, metadata(**changes)))
    with pytest.raises(Failed, match=said):
        await check(service)


@pytest.mark.parametrize("shape", [[-1], [-1, 2]])
async def test_a_column_that_the_model_does_not_give_is_refused(service: Service, shape: list[int]) -> None:
    service.will(READY, says(200, metadata(outputs=[{"name": "twice", "datatype": "FP64", "shape": shape}])))
    with pytest.raises(Failed, match=r"output.twice: expected more than 2 columns"):
        await check(service, {"twice": OutputField(take="tensor", column=2)})


async def test_a_server_that_is_not_ready_is_refused(service: Service) -> None:
    service.will(says(400, {"error": "loading"}))
    with pytest.raises(Failed, match=r"/v2/health/ready: expected 200, found 400"):
        await check(service)


async def test_a_server_that_does_not_know_the_model_is_refused(service: Service) -> None:
    service.will(READY, says(404, {"error": "no such model"}))
    with pytest.raises(Failed, match=r"/v2/models/m: expected 200, found 404"):
        await check(service)


async def test_a_server_that_speaks_something_else_is_refused(service: Service) -> None:
    service.will(READY, says(200, b"<html>"))
    with pytest.raises(Failed, match=r"expected the metadata of a model"):
        await check(service)


async def test_a_server_that_cannot_be_reached_is_refused() -> None:
    with running_service() as gone:
        pass
    with pytest.raises(Failed, match=r"cannot be reached"):
        await check(gone, retries=0)


async def test_a_declaration_that_no_server_could_meet_is_misuse(service: Service) -> None:
    with pytest.raises(Misuse, match=r"output.twice.take: expected tensor"):
        await check(service, {"twice": OutputField(take="value")})
    assert not service.requests


def test_sample_rows_run_in_batches_without_a_loop(service: Service) -> None:
    service.will(Doubler())
    remote = Remote(url=service.url, model="m")
    model = RemoteModel(remote, fields=("a",), features=FEATURES, output=OUTPUT, confidence=None, secret=None)
    results = run_remote(model, [(float(place),) for place in range(5)], batch=2, seconds=5)
    assert results == [Prediction((2.0 * place,), None) for place in range(5)]
    assert len(service.requests) == 3


def test_the_token_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "abc.DEF")
    assert read_secret(Remote(url="http://127.0.0.1:9", model="m", token_variable="MODEL_TOKEN")) == "abc.DEF"
    assert read_secret(Remote(url="http://127.0.0.1:9", model="m")) is None


@pytest.mark.parametrize(("value", "found"), [(None, "nothing"), ("", "nothing"), ("a\nb", "other characters")])
def test_a_token_that_is_absent_or_unfit_for_a_header_is_misuse(
    monkeypatch: pytest.MonkeyPatch, value: str | None, found: str
) -> None:
    monkeypatch.delenv("MODEL_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("MODEL_TOKEN", value)
    with pytest.raises(
        Misuse, match=f"environment variable MODEL_TOKEN: expected the token .* found {found}"
    ) as raised:
        read_secret(Remote(url="http://127.0.0.1:9", model="m", token_variable="MODEL_TOKEN"))
    assert not value or value not in str(raised.value)
