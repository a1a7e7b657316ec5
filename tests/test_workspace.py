from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from mainstay.errors import Misuse
from mainstay.workspace import Settings, find_workspace, open_workspace

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "settings.md"


def make(directory: Path, text: str = 'log = "l.example.com"\n') -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "mainstay.toml").write_text(text)
    return directory


def test_the_nearest_workspace_above_is_found(tmp_path: Path) -> None:
    root = make(tmp_path / "outer")
    below = root / "capabilities" / "deep"
    below.mkdir(parents=True)
    assert find_workspace(below).root == root.resolve()
    inner = make(root / "inner")
    assert find_workspace(inner).root == inner.resolve()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    root = make(tmp_path, 'log = "l"\nport = 1\n')
    settings = open_workspace(root, {"MAINSTAY_PORT": "2", "MAINSTAY_REFRESH_SECONDS": "0.1", "PORT": "3"}).settings
    assert (settings.port, settings.refresh_seconds, settings.workers) == (2, 0.1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 1", "log"),
        ('log = "l"\nport = "one"', "port"),
        ('log = "l"\nprot = 1', "prot"),
        ("log = ", "expected TOML"),
        ('log = "l"\nworkers = 0', "workers"),
        ('log = "l"\nport = 70000', "port"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        open_workspace(make(tmp_path, text), {})


def test_a_wrong_variable_is_quoted_back(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="MAINSTAY_WORKERS=many"):
        open_workspace(make(tmp_path), {"MAINSTAY_WORKERS": "many"})


def test_a_list_is_given_in_the_environment_with_spaces_between(tmp_path: Path) -> None:
    root = make(tmp_path, 'log = "l"\nanchors = ["file:///a"]\n')
    assert open_workspace(root, {}).settings.anchors == ("file:///a",)
    urls = "file:///b  https://c.example.com/d"
    assert open_workspace(root, {"MAINSTAY_ANCHORS": urls}).settings.anchors == tuple(urls.split())
    assert open_workspace(root, {"MAINSTAY_ANCHORS": ""}).settings.anchors == ()
    with pytest.raises(Misuse, match="MAINSTAY_ANCHORS=a a"):
        open_workspace(root, {"MAINSTAY_ANCHORS": "a " * 17})


def test_where_there_is_none_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="mainstay init"):
        find_workspace(tmp_path)


def test_the_reference_lists_every_setting_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", REFERENCE.read_text(), flags=re.MULTILINE))
    expected = {
        field.name: "required" if field.required else f"`{msgspec.json.encode(field.default).decode()}`"
        for field in msgspec.structs.fields(Settings)
    }
    assert listed == expected


@pytest.mark.parametrize(("option", "said"), [("port", {"port": 0}), ("workers", {"workers": 0})])
def test_what_the_command_line_says_is_held_to_the_same_bounds(
    tmp_path: Path, option: str, said: dict[str, int]
) -> None:
    workspace = open_workspace(make(tmp_path), {})
    with pytest.raises(Misuse, match=rf"--{option}=0: Expected `int` >= 1"):
        workspace.with_settings(said, lambda name: f"--{name}")
    assert workspace.with_settings({}, str) == workspace
