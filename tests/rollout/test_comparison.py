"""A shadow beside the version in force: what is told of them is what stands in the tables, however it was read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import tiny
from mainstay.catalog.declared import load_declared
from mainstay.cli.init import create_workspace
from mainstay.errors import Misuse
from mainstay.lake.lake import open_lake
from mainstay.monitoring.evidence import Evidence
from mainstay.rollout import store
from mainstay.rollout.comparison import MOST_CASES, compare_shadow, trial_of
from mainstay.rollout.evidence import Folder
from mainstay.rollout.steering import begin, roll_back
from monitoring.worlds import CONTRACT, REGIONS
from rollout.made import Stage
from rollout.rows import Traffic
from state.databases import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.rollout.comparison_types import Comparison

DECLARED: dict[str, Any] = {
    "contract": CONTRACT,
    "monitoring": {"segments": ["region"]},
    "cost": {"currency": "EUR", "per_decision": 0.01, "per_second": 1.0},
    "rollout": {"shadow": {"min_decisions": 200}},
}
COUNT = 600


class Planted(Traffic):
    """Decisions of three segments; of the third the shadow says something else of one half and is less sure of the
    other, and of every 25th decision it has no answer.
    """

    def _decision(self, *args: Any, **how: Any) -> dict[str, Any]:
        row = super()._decision(*args, **how)
        return {**row, "input": json.dumps({"a": 1.0, "region": REGIONS[self._next % 3]})}

    def _shadow(self, row: dict[str, Any], version: str, *, differs: bool) -> dict[str, Any]:
        said = super()._shadow(row, version, differs=differs)
        number = int(row["id"][2:])
        output = json.loads(row["output"])
        if number % 50 == 1:
            return {**said, "outcome": "fallback", "reasons": ["model_error"], "output": None}
        if number % 3 == 2 and number % 4 == 1:
            output = {"probability": round(1 - output["probability"], 6), "yes": not output["yes"]}
        elif number % 3 == 2:
            output["probability"] *= 0.9
        return {**said, "output": json.dumps(output), "seconds": row["seconds"] * 3}


class Beside:
    """A shadow with planted differences, and decisions from before and after its time."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.champion = stage.version(**DECLARED)
        begin(stage.steering, stage.move(self.champion, "production"))
        self.traffic = Planted(stage.workspace)
        self.traffic.decide(stage.current, 100)
        self.version = stage.version()
        begin(stage.steering, stage.move(self.version, "shadow"))
        self.ids = self.traffic.decide(stage.current, COUNT // 2) + self.traffic.decide(stage.current, COUNT // 2)

    def compared(self, cases: int = 10, **how: Any) -> Comparison:
        declared = load_declared(self.stage.workspace, self.champion)
        trial = trial_of(self.stage.releases)
        return compare_shadow(open_lake(self.stage.workspace), declared, trial, cases, **how)

    def planted(self) -> tuple[list[str], list[str]]:
        """The decisions of which the shadow says something else, and those of which it has no answer."""
        numbers = {each: int(each[2:]) for each in self.ids}
        without = [each for each, number in numbers.items() if number % 50 == 1]
        moved = [each for each, number in numbers.items() if number % 3 == 2 and number % 4 == 1]
        return [each for each in moved if each not in without], without


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    root = tmp_path_factory.mktemp("beside") / "w"
    workspace = create_workspace(root, "tests.example.com/comparison")[0]
    with opened(workspace) as database:
        yield Beside(Stage(workspace, database))


def test_what_differs_is_counted_over_all_and_in_each_segment(beside: Beside) -> None:
    found = beside.compared()
    moved, without = beside.planted()
    whole = found.whole
    assert whole is not None
    assert (whole.compared, found.decided) == (COUNT, COUNT)
    assert (whole.outcomes_differ, whole.errors) == (len(without), len(without))
    assert whole.outputs_differ == len(moved)
    share = (len(moved) + len(without)) / COUNT
    assert whole.disagreement.value == pytest.approx(share)
    assert 0.05 < share - whole.disagreement.low < 0.12 > whole.disagreement.high - share > 0.05
    parts = {each.segment: each for each in found.segments}
    assert set(parts) == {f"region={name}" for name in REGIONS}
    assert sum(each.compared for each in found.segments) == COUNT
    assert sum(each.differ for each in found.segments) == whole.differ
    assert parts["region=west"].disagreement.low > parts["region=north"].disagreement.high
    assert [(each.given, each.shadow, each.decisions) for each in found.endings] == [
        ("answered", "fallback", len(without))
    ]
    assert list(found.endings[0].newest) == without[:-4:-1]


def test_time_and_cost_of_both_are_told(beside: Beside) -> None:
    whole = beside.compared().whole
    assert whole is not None
    assert whole.given_timing is not None
    assert whole.shadow_timing is not None
    assert whole.shadow_timing.median == pytest.approx(3 * whole.given_timing.median, rel=0.15)
    assert whole.given_cost is not None
    assert whole.shadow_cost is not None
    assert whole.given_cost.value == pytest.approx(0.01 + whole.given_timing.mean)
    assert whole.shadow_cost.value > whole.given_cost.value


def test_the_cases_that_differ_most_come_first_with_the_ids_of_decisions(beside: Beside) -> None:
    found = beside.compared(MOST_CASES)
    moved, _ = beside.planted()
    apart = {}
    for case in found.cases:
        assert case.segments == {"region": "west"}
        assert case.input is not None
        assert case.input["region"] == "west"
        apart[case.decision_id] = abs(case.given["probability"] - case.shadow["probability"])
    assert len(apart) == MOST_CASES
    flipped = [case.given["yes"] != case.shadow["yes"] for case in found.cases]
    assert flipped == sorted(flipped, reverse=True), "another answer is further away than another number"
    assert {case.decision_id for case in found.cases if case.given["yes"] != case.shadow["yes"]} == set(moved)
    assert not all(flipped)
    told = [apart[case.decision_id] for case in found.cases if case.given["yes"] != case.shadow["yes"]]
    assert told == sorted(told, reverse=True)
    assert [case.distance for case in found.cases] == sorted((case.distance for case in found.cases), reverse=True)
    assert [each.decision_id for each in beside.compared(5).cases] == [each.decision_id for each in found.cases[:5]]
    with pytest.raises(Misuse, match="from 0 to 100 cases"):
        beside.compared(MOST_CASES + 1)


def test_the_output_is_compared_field_by_field(beside: Beside) -> None:
    fields = {each.name: each for each in beside.compared().fields}
    assert set(fields) == {"probability", "yes"}
    number = fields["probability"]
    assert number.mean is not None
    assert number.mean_absolute is not None
    assert number.largest is not None
    assert abs(number.mean) < number.mean_absolute < number.largest < 1
    moved, without = beside.planted()
    assert number.compared == COUNT - len(without)
    assert (fields["yes"].mean, fields["yes"].largest) == (None, None)
    assert fields["yes"].differ == len(moved) < number.differ


def test_it_does_not_depend_on_how_many_rows_are_read_at_once(beside: Beside) -> None:
    whole = beside.compared(MOST_CASES)
    for positions in (97, 500):
        portions = beside.compared(MOST_CASES, positions=positions)
        assert portions.endings == whole.endings
        assert [each.decision_id for each in portions.cases] == [each.decision_id for each in whole.cases]
        assert _plain(portions) == pytest.approx(_plain(whole))


def _plain(found: Comparison) -> list[float]:
    counts: list[float] = []
    for part in [found.whole, *sorted(found.segments, key=lambda each: each.segment or "")]:
        assert part is not None
        assert part.given_timing is not None
        counts += [part.compared, part.outcomes_differ, part.outputs_differ, part.errors]
        counts += [part.given_timing.mean, part.given_timing.slow, part.disagreement.low, part.disagreement.high]
    return counts


def test_it_is_what_the_rollout_is_judged_by(beside: Beside) -> None:
    rollout_folder = load_declared(beside.stage.workspace, beside.champion)
    rollout = beside.stage.database.read(_newest)
    folder = Folder(open_lake(beside.stage.workspace), rollout, rollout_folder)
    folded = folder.fold(
        msgspec.structs.replace(folder.begin(rollout), reached=0), beside.stage.releases, lambda: False
    )
    whole = beside.compared().whole
    assert whole is not None
    agreement = folded.agreement
    assert (agreement.compared, agreement.outcomes_differ, agreement.outputs_differ, agreement.errors) == (
        whole.compared,
        whole.outcomes_differ,
        whole.outputs_differ,
        whole.errors,
    )


def _newest(connection: Any) -> Any:
    found = store.find_running(connection, tiny.NAME)
    assert found is not None
    return found


def test_only_files_of_its_time_are_read(stage: Stage) -> None:
    beside = Beside(stage)
    roll_back(stage.steering, tiny.NAME, reason="seen enough", principal="os:ops")
    beside.traffic.decide(stage.current, 100)
    trial = trial_of(stage.releases)
    assert (trial.version, trial.beside, trial.first, trial.last) == (beside.version, beside.champion, 2, 2)
    assert trial.until is not None
    tables = Evidence(open_lake(stage.workspace), tiny.NAME)
    first, last = tables.positions_of(trial.first, trial.last)
    assert (first, last) == (101, 101 + 2 * COUNT), "100 decisions before it, and each of its own with a shadow"
    assert tables.positions_of(9, 9) == (0, 0)
    assert beside.compared().decided == COUNT


def test_of_several_times_the_last_one_is_meant(stage: Stage) -> None:
    one = stage.version(**DECLARED)
    begin(stage.steering, stage.move(one, "production"))
    with pytest.raises(Misuse, match="no version is or was one"):
        trial_of(stage.releases)
    two, three = stage.version(), stage.version()
    for version in (two, three, two):
        begin(stage.steering, stage.move(version, "shadow"))
        roll_back(stage.steering, tiny.NAME, reason="for a test", principal="os:ops")
    numbers = [each.number for each in stage.releases if each.shadows]
    assert trial_of(stage.releases).first == numbers[-1]
    assert trial_of(stage.releases).version == two
    assert trial_of(stage.releases, three).first == numbers[1]
    with pytest.raises(Misuse, match=f"version {one} is or was one"):
        trial_of(stage.releases, one)


def test_before_anything_was_compared_nothing_is_claimed(stage: Stage) -> None:
    champion = stage.version(**DECLARED)
    begin(stage.steering, stage.move(champion, "production"))
    begin(stage.steering, stage.move(stage.version(), "shadow"))
    declared = load_declared(stage.workspace, champion)
    found = compare_shadow(open_lake(stage.workspace), declared, trial_of(stage.releases), 3)
    assert (found.whole, found.segments, found.cases, found.decided) == (None, (), (), 0)
