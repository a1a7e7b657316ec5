"""Each rule of the house, broken on purpose: a check that cannot fail is worth nothing."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from house import dependencies, loaded, rules, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from house.source import Module

    Build = Callable[[Mapping[str, str]], list[Module]]

HUT = {
    "hut": frozenset[str](),
    "low": frozenset[str](),
    "high": frozenset({"low", "side.types"}),
    "side": frozenset[str](),
}


def test_an_import_that_points_up_is_named_with_its_line_and_what_is_allowed(build: Build) -> None:
    modules = build({"low/a.py": "import os\nfrom hut.high import b\n", "high/b.py": "from hut.low import a\n"})
    assert list(rules.wrong_imports(modules, HUT)) == ["hut/low/a.py:2: low imports hut.high.b; allowed: low"]


@pytest.mark.parametrize(
    "text",
    [
        "import hut.high.b\n",
        "from hut.high.b import thing\n",
        "from ..high import b\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hut.high.b import thing\n",
        "def f():\n    from hut.high import b\n",
        "import importlib\nb = importlib.import_module('hut.high.b')\n",
    ],
)
def test_an_import_that_points_up_is_seen_however_it_is_written(text: str, build: Build) -> None:
    assert len(list(rules.wrong_imports(build({"low/a.py": text, "high/b.py": ""}), HUT))) == 1


def test_a_single_module_of_a_package_may_be_allowed(build: Build) -> None:
    files = {"high/a.py": "from hut.side.types import X\n", "high/b.py": "from hut.side import store\n"}
    modules = build({**files, "side/types.py": "X = 1\n", "side/store.py": ""})
    assert [line.partition(";")[0] for line in rules.wrong_imports(modules, HUT)] == [
        "hut/high/b.py:1: high imports hut.side.store"
    ]


def test_a_package_without_a_floor_is_refused(build: Build) -> None:
    [breach] = rules.wrong_imports(build({"attic/a.py": ""}), HUT)
    assert breach.startswith("attic: expected every package")


def test_an_import_inside_a_function_is_refused(build: Build) -> None:
    modules = build({"a.py": "", "b.py": "class C:\n    def f(self):\n        import hut.a\n        import json\n"})
    assert [line.partition(" is")[0] for line in rules.hidden_imports(modules)] == ["hut/b.py:3: hut.a"]


@pytest.mark.parametrize(
    "guard", ["try:\n    {}\nexcept ImportError:\n    pass\n", "if os.name:\n    {}\n", "class C:\n    {}\n"]
)
def test_an_import_under_a_condition_is_refused(guard: str, build: Build) -> None:
    modules = build({"a.py": "", "b.py": "import os\n" + guard.format("import hut.a")})
    assert len(list(rules.hidden_imports(modules))) == 1


def test_an_import_for_typing_is_not_hidden_but_its_else_is(build: Build) -> None:
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import hut.a\nelse:\n    import hut.c\n"
    breaches = list(rules.hidden_imports(build({"a.py": "", "c.py": "", "b.py": guarded})))
    assert [line.partition(" is")[0] for line in breaches] == ["hut/b.py:5: hut.c"]


def test_a_cycle_is_named(build: Build) -> None:
    modules = build({"a.py": "from hut import b\n", "b.py": "from hut.c import x\n", "c.py": "import hut.a\nx = 1\n"})
    [breach] = rules.import_cycles(modules)
    assert {"hut.a", "hut.b", "hut.c"} <= set(breach.replace("other: ", "").split())


def test_a_cycle_only_of_types_is_none(build: Build) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hut.a import X\n"
    assert not list(rules.import_cycles(build({"a.py": "from hut import b\n", "b.py": typed})))


def test_a_package_file_may_hold_a_docstring_and_nothing_else(build: Build) -> None:
    modules = build({"low/__init__.py": '"""Low."""\n', "high/__init__.py": "from hut.low import a\n", "low/a.py": ""})
    assert [line.partition(": ")[0] for line in rules.filled_packages(modules)] == ["hut/high/__init__.py:1"]


def test_a_file_of_six_hundred_lines_is_too_long(build: Build) -> None:
    modules = build({"a.py": "x = 1\n" * 600, "b.py": "x = 1\n" * 599})
    assert [line.partition(":")[0] for line in rules.long_files(modules)] == ["hut/a.py"]


def function(name: str, lines: int) -> str:
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


def test_one_function_of_eighty_one_lines_is_too_long(build: Build) -> None:
    short = "".join(function(f"f{number}", 2) for number in range(50))
    modules = build({"a.py": short + function("longest", 80), "b.py": function("too_long", 81)})
    assert list(rules.long_functions(modules)) == ["hut/b.py:1: too_long has 81 lines; at most 80"]


def test_more_than_one_function_in_twenty_may_not_be_long(build: Build) -> None:
    nineteen = "".join(function(f"f{number}", 44) for number in range(19))
    assert not list(rules.long_functions(build({"a.py": nineteen + function("g", 45)})))
    assert len(list(rules.long_functions(build({"a.py": nineteen + function("g", 45) + function("h", 45)})))) == 1


@pytest.mark.parametrize(
    "clause",
    [
        "except Exception:",
        "except BaseException as error:",
        "except:",
        "except (OSError, Exception):",
        "except builtins.Exception:",
        "except Exception:  # noqa: BLE001",
        "except Exception:  # noqa: BLE001, S110",
        "except Exception:  # pragma: no cover",
    ],
)
def test_a_broad_except_without_a_reason_is_refused(clause: str, build: Build) -> None:
    assert len(list(rules.unexplained_handlers(build({"a.py": f"try:\n    x = 1\n{clause}\n    x = 2\n"})))) == 1


@pytest.mark.parametrize(
    "clause",
    [
        "except Exception:  # a plug-in may raise anything",
        "except Exception:  # noqa: BLE001 - a plug-in may raise anything",
        "# a plug-in may raise anything\nexcept Exception:",
        "except OSError:",
    ],
)
def test_an_explained_or_narrow_except_passes(clause: str, build: Build) -> None:
    assert not list(rules.unexplained_handlers(build({"a.py": f"try:\n    x = 1\n{clause}\n    x = 2\n"})))


def test_suppressing_everything_needs_a_reason_too(build: Build) -> None:
    text = "from contextlib import suppress\nwith suppress(Exception):\n    x = 1\n"
    assert len(list(rules.unexplained_handlers(build({"a.py": text})))) == 1


def test_what_the_data_plane_loads_by_way_of_others_is_found(build: Build, tmp_path: Path) -> None:
    modules = build({"decision/a.py": "from hut.low import b\n", "low/b.py": "import sqlite3\n"})
    [breach] = loaded.forbidden_imports(modules, ["decision"], {"sqlite3"}, tmp_path)
    assert breach.startswith("importing hut.decision.a loads sqlite3")


def test_what_the_data_plane_imports_inside_a_function_is_found(build: Build, tmp_path: Path) -> None:
    modules = build({"decision/a.py": "def f():\n    import sqlite3.dbapi2\n"})
    [breach] = loaded.forbidden_imports(modules, ["decision"], {"sqlite3"}, tmp_path)
    assert breach.startswith("hut/decision/a.py:2: imports sqlite3.dbapi2")


def test_other_packages_may_load_what_the_data_plane_may_not(build: Build, tmp_path: Path) -> None:
    modules = build({"decision/a.py": "import json\n", "low/b.py": "import sqlite3\n"})
    assert not list(loaded.forbidden_imports(modules, ["decision"], {"sqlite3"}, tmp_path))


def test_a_data_plane_that_does_not_import_is_a_breach(build: Build, tmp_path: Path) -> None:
    [breach] = loaded.forbidden_imports(build({"decision/a.py": "1 / 0\n"}), ["decision"], {"sqlite3"}, tmp_path)
    assert "ZeroDivisionError" in breach


@pytest.mark.parametrize(
    "line",
    [
        "cd /" + "work/main",
        "path = '/" + "home/someone/x'",
        "https://py" + "pi.org/simple",
        "--index-url https://files.python" + "hosted.org",
        "# TO" + "DO: later",
        "FIX" + "ME",
    ],
)
def test_a_text_that_none_may_hold_is_found_with_its_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"first\n{line}\n")
    assert [breach.partition(": ")[0] for breach in texts.forbidden_texts([path], tmp_path)] == ["a.md:2"]


def test_harmless_texts_and_binary_files_pass(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("frame/work/er, https://example.com/home/page, ../work/x, todos, METHOD\n")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe/" + b"root/x")
    assert not list(texts.forbidden_texts(sorted(tmp_path.iterdir()), tmp_path))


def test_committed_files_are_those_git_would_take(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True, timeout=30)  # noqa: S607 - the caller's git
    for name in ("a.txt", "b.txt", "ignored.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("ignored.txt\n")
    assert {path.name for path in texts.committed_files(tmp_path)} == {".gitignore", "a.txt", "b.txt"}


def test_a_dependency_without_a_row_and_a_row_without_a_dependency_are_found() -> None:
    document = "| `PyYAML` | reads |\n| `left-pad` | pads |\n| `pyyaml` | again |\n`msgspec` in prose is no row\n"
    breaches = list(dependencies.wrong_entries({"msgspec", "pyyaml"}, document))
    assert [line.split()[0] for line in breaches] == ["msgspec", "left-pad", "pyyaml"]


def test_dependencies_are_read_from_every_place_without_the_project_itself() -> None:
    project = {
        "project": {
            "name": "Hut",
            "dependencies": ["Py_YAML>=6,<7", "rich[extra] ; python_version > '3'"],
            "optional-dependencies": {"demo": ["hut[sklearn]", "data==1"]},
        },
        "dependency-groups": {"dev": ["pytest~=9.0"]},
        "build-system": {"requires": ["hatchling"]},
    }
    found = dependencies.declared(project)
    assert found == {"base": {"py-yaml", "rich"}, "demo": {"data"}, "dev": {"pytest"}, "build-system": {"hatchling"}}


def test_an_import_nobody_declared_is_found(build: Build) -> None:
    modules = build({"a.py": "import os\nimport yaml\nimport hut\nfrom requests import get\n"})
    breaches = list(dependencies.undeclared_imports(modules, {"pyyaml"}, {"hut"}))
    assert breaches == ["hut/a.py:4: imports requests, which pyproject.toml does not name"]


PIN = (
    "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:"
    + "0a" * 32
    + " \\\n    --hash=sha256:"
    + "1b" * 32
    + "\n"
)


def test_a_pin_with_hashes_passes_and_is_read() -> None:
    assert not list(dependencies.unpinned("# made by make lock\n" + PIN))
    assert dependencies.pinned(PIN) == {("numpy", "2.4.6")}


@pytest.mark.parametrize("line", ["requests==2.0\n", "requests>=2\n", "--index-url https://example.com\n", "-e .\n"])
def test_anything_but_a_pin_with_hashes_is_found(line: str) -> None:
    assert len(list(dependencies.unpinned(PIN + line + PIN))) == 1
