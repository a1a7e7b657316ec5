"""The repository as it stands, held to its own rules. That each rule can fail is shown in test_rules.py."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from house import dependencies, loaded, rules, texts
from house.floors import DATA_PLANE, MAY_IMPORT, NEVER_IN_THE_DATA_PLANE
from house.source import Module, read_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

INSTALLED = [
    "base",
    "connectors",
    "ray",
    "sklearn",
    "xgboost",
    "lightgbm",
    "sql",
    "demo",
    "dev",
]  # where tests and benchmarks run
LOCKS = ("runtime", "demo", "dev", "build", "bootstrap")


def hold(breaches: Iterable[str]) -> None:
    found = list(breaches)
    assert not found, "\n" + "\n".join(found)


@pytest.fixture(scope="module")
def declared(repository: Path) -> dict[str, set[str]]:
    return dependencies.declared(tomllib.loads((repository / "pyproject.toml").read_text("utf-8")))


def test_imports_point_down_the_floors(modules: list[Module]) -> None:
    hold(rules.wrong_imports(modules, MAY_IMPORT))


@pytest.mark.parametrize(
    "rule",
    [
        rules.hidden_imports,
        rules.import_cycles,
        rules.filled_packages,
        rules.long_functions,
        rules.unexplained_handlers,
    ],
)
def test_the_source_holds(rule: Callable[[Sequence[Module]], Iterator[str]], modules: list[Module]) -> None:
    hold(rule(modules))


@pytest.mark.parametrize("folder", ["src", "tests", "bench", "examples"])
def test_no_file_is_long(folder: str, repository: Path) -> None:
    hold(rules.long_files(read_modules(repository / folder, repository)))


def test_the_data_plane_loads_nothing_of_training_or_steering(modules: list[Module], repository: Path) -> None:
    hold(loaded.forbidden_imports(modules, DATA_PLANE, NEVER_IN_THE_DATA_PLANE, repository / "src"))


def test_the_data_plane_was_there_to_be_looked_at(modules: list[Module]) -> None:
    assert set(DATA_PLANE) <= {module.package for module in modules if not module.is_package}


def test_no_text_names_this_machine_or_a_registry_or_is_unfinished(repository: Path) -> None:
    files = texts.committed_files(repository)
    assert repository / "pyproject.toml" in files
    hold(texts.forbidden_texts(files, repository))


def test_every_dependency_is_explained_and_no_explanation_is_stale(
    declared: dict[str, set[str]], repository: Path
) -> None:
    document = (repository / "docs" / "dependencies.md").read_text("utf-8")
    hold(dependencies.wrong_entries(set().union(*declared.values()), document))


@pytest.mark.parametrize("folder", ["tests", "bench", "examples"])
def test_what_tests_and_benchmarks_import_is_declared(
    folder: str, declared: dict[str, set[str]], repository: Path
) -> None:
    modules = [each for each in read_modules(repository / folder, repository) if each.path.name != "ood_peers.py"]
    names = set().union(*(declared[place] for place in INSTALLED)) | peers_need(repository)
    local = {part for module in modules for part in module.name.split(".")} | {"mainstay"}
    hold(dependencies.undeclared_imports(modules, names, local))


def peers_need(repository: Path) -> set[str]:
    """What the peers that the benchmarks measure ask for, each in an environment of its own."""
    files = repository.glob("bench/peers/*/requirements.in")
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return {dependencies.normal_name(line) for line in lines if not line.startswith("#")}


def test_what_the_source_imports_is_declared(modules: list[Module], declared: dict[str, set[str]]) -> None:
    extras = ("base", "connectors", "ray", "sklearn", "xgboost", "lightgbm", "sql")
    names = set().union(*(declared[place] for place in extras))
    hold(dependencies.undeclared_imports(modules, names, {"mainstay"}))


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_is_pinned_by_hash(name: str, repository: Path) -> None:
    hold(dependencies.unpinned((repository / "requirements" / f"{name}.txt").read_text("utf-8")))


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("runtime", ["base"]),
        ("demo", ["base", "sklearn", "demo"]),
        ("dev", INSTALLED),
        ("build", ["build", "build-system"]),
        ("bootstrap", ["bootstrap"]),
    ],
)
def test_every_direct_dependency_is_locked(
    name: str, places: list[str], declared: dict[str, set[str]], repository: Path
) -> None:
    locked = {package for package, _ in pins(repository, name)}
    missing = set().union(*(declared[place] for place in places)) - locked
    assert not missing, f"requirements/{name}.txt lacks {', '.join(sorted(missing))}; run make lock"


@pytest.mark.parametrize("name", ["runtime", "demo"])
def test_what_is_tested_is_what_is_run(name: str, repository: Path) -> None:
    others = pins(repository, name) - pins(repository, "dev")
    assert not others, f"requirements/{name}.txt pins what dev.txt does not: {sorted(others)}; run make lock"


def pins(repository: Path, name: str) -> set[tuple[str, str]]:
    return dependencies.pinned((repository / "requirements" / f"{name}.txt").read_text("utf-8"))
