"""Held against the schema of the standard: the verdict on contracts of others and on changed ones, and every place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.acceptance


@pytest.fixture
def contracts(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("contracts")


def test_on_contracts_of_others_we_agree_with_the_standards_schema_and_name_its_places(contracts: ModuleType) -> None:
    folder, report = shared_data("contracts"), contracts.Report()
    contracts.compare_files(folder, contracts.Official(folder), report)
    assert report.disagreements == []
    assert report.agreed_files == report.files > 60


def test_on_changed_contracts_we_agree_with_the_standards_schema_and_name_its_places(contracts: ModuleType) -> None:
    folder, report = shared_data("contracts"), contracts.Report()
    contracts.compare_mutations(folder, contracts.Official(folder), report, count=6, seed=20261121)
    assert report.disagreements == []
    assert report.agreed == report.mutated > 200
    assert report.official_invalid > report.mutated / 2


def test_a_place_that_we_do_not_name_is_missed(contracts: ModuleType) -> None:
    official = contracts.Official(shared_data("contracts"))
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1", "status": "draft"}
    tree = head | {"schema": [{"name": 7, "properties": [{"logicalType": "int", "unheardOf": 1}]}]}
    problems = contracts.our_problems(tree, alone=False)
    assert contracts.missed(tree, official, problems) == []
    assert {path for path, is_exact in official.places(tree) if is_exact} >= {
        ("schema", 0, "name"),
        ("schema", 0, "properties", 0, "name"),
        ("schema", 0, "properties", 0, "logicalType"),
    }
    for problem in problems:
        if not problem.where.endswith("unheardOf"):  # which the schema does not tell apart there
            assert contracts.missed(tree, official, [each for each in problems if each != problem])


def test_the_path_of_a_place_is_read_back(contracts: ModuleType) -> None:
    assert contracts.path_of("schema[0].properties[12].name") == ("schema", 0, "properties", 12, "name")
    assert contracts.path_of("the document") == ()
