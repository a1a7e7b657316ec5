from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.capability.types import OutputField
from mainstay.runtime.lane import GraphLane, run_rows, seconds_per_batch
from mainstay.runtime.model import OnnxModel
from mainstay.runtime.types import ModelInput, ModelOutput, Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.runtime.types import Result

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Signed:
    """What the graph takes and gives."""

    inputs: tuple[ModelInput, ...] = (ModelInput(name="x", kind="float", fields=("a", "b")),)
    outputs: tuple[ModelOutput, ...] = (ModelOutput(name="probabilities", role="probabilities"),)
    classes: tuple[str | int | bool, ...] = (0, 1)


def make_model(**options: Any) -> OnnxModel:
    graph = tiny.probability_graph(**options)
    return OnnxModel(graph, Signed(), ("a", "b", "note"), {"probability": OutputField(take="probability")})


@dataclass(eq=False)
class Item:
    row: tuple[Any, ...]
    run_until: float = float("inf")
    result: Result | None = None


@dataclass
class Harness:
    """A lane on a running loop, and the batches it delivered."""

    lane: GraphLane[Item]
    batches: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    open: bool = True


def harness(model: OnnxModel, *, inline: bool, batch: int = 256) -> Harness:
    def deliver(items: Sequence[Item], results: Sequence[Result]) -> None:
        made.batches.append(len(items))
        made.threads.add(threading.get_ident())
        for item, result in zip(items, results, strict=True):
            item.result = result

    loop = asyncio.get_running_loop()
    made = Harness(GraphLane(model, loop, batch=batch, inline=inline, may_start=lambda: made.open, deliver=deliver))
    return made


async def settled(items: list[Item]) -> None:
    async with asyncio.timeout(10):
        while any(item.result is None for item in items):  # noqa: ASYNC110 - the lane is driven by the loop itself
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("inline", [True, False])
async def test_what_waits_together_runs_together_and_in_order(inline: bool) -> None:
    made = harness(make_model(), inline=inline)
    items = [Item((number / 10, 0.0, None)) for number in range(30)]
    for item in items:
        made.lane.submit(item)
    await settled(items)
    assert made.batches[0] == 30
    assert made.threads == {threading.get_ident()}
    probabilities = [item.result.values[0] for item in items if isinstance(item.result, Prediction)]
    assert probabilities == sorted(probabilities)
    assert len(probabilities) == 30
    made.lane.close()


@pytest.mark.parametrize("inline", [True, False])
async def test_a_batch_is_never_larger_than_declared(inline: bool) -> None:
    made = harness(make_model(), inline=inline, batch=8)
    items = [Item((0.0, 0.0, None)) for _ in range(20)]
    for item in items:
        made.lane.submit(item)
    async with asyncio.timeout(10):
        while any(item.result is None for item in items):
            made.lane.start()
            await asyncio.sleep(0.001)
    assert sum(made.batches) == 20
    assert max(made.batches) == 8
    made.lane.close()


async def test_what_is_withdrawn_does_not_run() -> None:
    made = harness(make_model(), inline=True)
    made.open = False
    items = [Item((float(number), 0.0, None)) for number in range(5)]
    for item in items:
        made.lane.submit(item)
    made.lane.withdraw(items[2])
    made.open = True
    await settled([item for item in items if item is not items[2]])
    assert made.batches == [4]
    made.lane.withdraw(items[0])  # it has left: nothing happens


async def test_what_waits_for_the_journal_does_not_wait_for_the_model() -> None:
    made = harness(make_model(), inline=False, batch=1)
    items = [Item((0.0, 0.0, None)) for _ in range(3)]
    made.open = False
    made.lane.submit(items[0])
    assert not made.lane.withdraw(items[0])
    made.open = True
    for item in items[1:]:
        made.lane.submit(item)
    await asyncio.sleep(0)
    while items[1].result is None:  # noqa: ASYNC110 - the lane is driven by the loop itself
        await asyncio.sleep(0)
    assert made.lane.withdraw(items[1])
    assert made.lane.withdraw(items[2]), "the model is busy with it, or has answered"
    made.lane.close()


async def test_nothing_runs_until_it_may() -> None:
    made = harness(make_model(), inline=True)
    made.open = False
    item = Item((0.0, 0.0, None))
    made.lane.submit(item)
    await asyncio.sleep(0.02)
    assert item.result is None
    made.open = True
    made.lane.start()
    assert isinstance(item.result, Prediction)


async def test_a_slow_model_leaves_the_loop_free() -> None:
    made = harness(make_model(slow_steps=3), inline=False)
    item = Item((0.0, 0.0, None))
    made.lane.submit(item)
    turns = 0
    async with asyncio.timeout(10):
        while item.result is None:
            await asyncio.sleep(0.001)
            turns += 1
    assert turns > 5
    made.lane.close()


async def test_a_model_that_turns_slow_is_moved_off_the_loop() -> None:
    made = harness(make_model(slow_steps=3), inline=True)
    item = Item((0.0, 0.0, None))
    made.lane.submit(item)
    await settled([item])
    assert not made.lane.inline
    made.lane.close()


def test_a_row_that_fails_fails_alone() -> None:
    rows = [(1.0, tiny.POISON if place == 3 else 1.0, None) for place in range(6)]
    results = run_rows(make_model(poisonous=True), rows)
    assert [isinstance(result, Prediction) for result in results] == [True, True, True, False, True, True]
    assert isinstance(results[3], Exception)


def test_a_batch_is_timed_on_repeated_rows() -> None:
    assert 0 < seconds_per_batch(make_model(), [(1.0, 2.0, None)], 64) < 1
