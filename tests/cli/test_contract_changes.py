from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from capability.folders import CAPABILITY, CONTRACT, write
from contract.contracts import document
from mainstay.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def number(**options: object) -> list[dict[str, Any]]:
    return [{"name": "delay", "logicalType": "integer", "required": True, "logicalTypeOptions": options}]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["contract", "diff", *map(str, words)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_bytes(document(number(minimum=0, maximum=100)))
    new.write_bytes(document(number(minimum=0, maximum=50)).replace(b'"1.0.0"', b'"1.0.1"'))
    return old, new


def test_a_breaking_change_is_shown_with_an_example_and_fails(
    run: Callable[..., tuple[int, str]], files: tuple[Path, Path]
) -> None:
    code, said = run(*files)
    assert code == 1
    assert "thing.delay  maximum  100  50   breaking   compatible" in said
    assert 'such as {"delay":51}' in said
    assert "for producers: breaking; for consumers: compatible" in said
    assert "a major step, as it breaks someone, or may: version 2.0.0" in said
    assert "the version took a patch step, to 1.0.1" in said


def test_only_the_side_that_is_asked_for_counts(run: Callable[..., tuple[int, str]], files: tuple[Path, Path]) -> None:
    assert run(*files, "--for", "consumers")[0] == 0
    assert run(*files, "--for", "producers")[0] == 1
    assert run(*reversed(files), "--for", "producers")[0] == 0
    assert run(*files, "--for", "nobody")[0] == 2


def test_facts_are_json(run: Callable[..., tuple[int, str]], files: tuple[Path, Path]) -> None:
    code, said = run(*files, "--json")
    facts = json.loads(said)
    assert code == 1
    assert (facts["producers"], facts["consumers"], facts["suggested_version"]) == ("breaking", "compatible", "2.0.0")
    [change] = facts["changes"]
    assert (change["place"], change["was"], change["now"]) == ("thing.delay.logicalTypeOptions.maximum", 100, 50)
    assert change["producers"]["witness"] == {"delay": 51}


def test_the_same_contract_has_no_changes(run: Callable[..., tuple[int, str]], files: tuple[Path, Path]) -> None:
    assert run(files[0], files[0]) == (0, "c: version 1.0.0 -> 1.0.0, no change\n")


def test_a_folder_stands_for_its_contract(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    old = write(tmp_path / "old")
    renamed = CAPABILITY + "contract: agreed.yaml\n"
    new = write(tmp_path / "new", renamed, "id: not this one\n")
    (new / "agreed.yaml").write_text(CONTRACT.replace("maximum: 1", "maximum: 2"))
    code, said = run(old, new)
    assert code == 1
    assert "prediction.probability" in said
    assert "more than" not in run(old, old)[1]


def test_what_cannot_be_read_is_told(
    run: Callable[..., tuple[int, str]], files: tuple[Path, Path], tmp_path: Path
) -> None:
    code, said = run(files[0], tmp_path / "none.yaml")
    assert code == 2
    assert "expected a contract or a capability folder, found nothing" in said
    files[1].write_text("kind: DataContract\n")
    code, said = run(*files)
    assert code == 1
    assert "apiVersion" in said
    folder = write(tmp_path / "out", CAPABILITY + "contract: ../old.yaml\n")
    code, said = run(files[0], folder)
    assert code == 2
    assert "expected a path inside the folder" in said


def test_unknown_changes_do_not_fail_and_are_told(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    text = {"name": "code", "logicalType": "string", "physicalType": "varchar(3)"}
    old.write_bytes(document([text]))
    new.write_bytes(document([text | {"physicalType": "char(3)"}]))
    code, said = run(old, new)
    assert code == 0
    assert "producers: unknown: it is about the store" in said
    assert "a major step" in said


def test_a_probable_new_name_is_hinted_at(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    text = {"logicalType": "string", "physicalName": "cd"}
    old.write_bytes(document([{"name": "code", **text}]))
    new.write_bytes(document([{"name": "airport", **text}]))
    said = run(old, new)[1]
    assert "thing.code (is it now called airport?)" in said
    assert "thing.airport (was it called code?)" in said
