"""Do we agree with the schema that the Open Data Contract Standard publishes, on files of others and on changed ones?

    python bench/contracts.py --folder ../shared/data/contracts --mutations 2000

Held against python-jsonschema (2020-12): the verdict, and every place that it names must be one that we name.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonschema

from mainstay.contract import standard
from mainstay.contract.load import parse_contract
from mainstay.contract.types import Contract, Item, Property, Quality, SchemaObject, Server
from mainstay.documents import Problems, plain, read_document
from mainstay.errors import InvalidDocument
from mainstay.structs import read_struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mainstay.problems import Problem

FOLDER: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "contracts"
OLDER: Final = "the older Data Contract Specification"
MAX_ITEMS: Final = 4  # of each list of a file, before it is changed: some files list tables by the hundred
Path_ = tuple[str | int, ...]

# The rules of the standard's schema, without those that go beyond it (mainstay.contract.consistency).
STANDARD_ALONE: Final[dict[type, Any]] = {
    SchemaObject: standard.check_object,
    Property: standard.check_property,
    Item: standard.check_property,
    Quality: standard.check_quality,
    Server: standard.check_server,
}
_WORDS: Final = (
    *("x", "", "object", "array", "string", "integer", "number", "boolean", "date", "timestamp", "time", "library"),
    *("sql", "custom", "text", "api", "kafka", "sftp", "postgres", "v3.0.2", "v2.2.2", "rowCount", "f32", "u8", "a.b"),
)
_VALUES: Final[tuple[Any, ...]] = (None, True, False, 0, -1, 7, 1.5, [], {}, ["x"], [{}], [1, 2], {"x": 1}, *_WORDS)


class Official:
    """The published schema, and the places that it names."""

    def __init__(self, folder: Path) -> None:
        schema = json.loads((folder / "schema" / "odcs-json-schema-v3.1.0.json").read_text("utf-8"))
        self._validator = jsonschema.Draft202012Validator(schema)

    def accepts(self, tree: Any) -> bool:
        return self._validator.is_valid(tree)

    def places(self, tree: Any) -> set[tuple[Path_, bool]]:
        """Where something is wrong; true where the place itself is meant, and false where it, or something below it."""
        errors = list(self._validator.iter_errors(tree))
        others = [(tuple(each.absolute_path), each.validator == "unevaluatedProperties") for each in errors]
        found: set[tuple[Path_, bool]] = set()
        for error in errors:
            path = tuple(error.absolute_path)
            match error.validator:
                case "required":
                    found |= {((*path, name), True) for name in _quoted(error.message)[:1]}
                case "additionalProperties":
                    found |= {((*path, name), True) for name in _quoted(error.message)}
                case "unevaluatedProperties":
                    # where a part of the schema failed, it counts the keys of that part as unexpected, too
                    is_artefact = any(at[: len(path)] == path and (at != path or not same) for at, same in others)
                    found |= {(path, False)} if is_artefact else {((*path, n), True) for n in _quoted(error.message)}
                case "type" | "enum" | "const" | "pattern" | "minimum" | "exclusiveMinimum" | "minItems" | "maxItems":
                    found.add((path, True))
                case _:  # alternatives, none or several of which fit
                    found.add((path, False))
        return found


def _quoted(message: str) -> list[str]:
    listed = message.partition("(")[2] if "(" in message else message
    return [each[1:-1] for each in re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", listed)]


def our_problems(tree: Any, *, alone: bool) -> list[Problem]:
    """What we say of a contract; `alone`: without the rules that go beyond the standard's schema."""
    content = json.dumps(tree).encode()
    if not alone:
        try:
            parse_contract(content, "contract")
        except InvalidDocument as invalid:
            return list(invalid.problems)
        return []
    problems = Problems()
    document = read_document(content, "contract", problems)
    if document is not None:
        read_struct(document, Contract, problems, checks=STANDARD_ALONE, null_is_absent=False)
    return problems.found


def path_of(where: str) -> Path_:
    """The path that a problem's place says, such as `schema[0].name`."""
    if where == "the document":
        return ()
    return tuple(int(each[1:-1]) if each[0] == "[" else each for each in re.findall(r"\[\d+\]|[^.\[]+", where))


def missed(tree: Any, official: Official, problems: Iterable[Problem]) -> list[Path_]:
    """Places that the official validator names, and we do not."""
    ours = {path_of(each.where) for each in problems}
    return [
        path
        for path, is_exact in official.places(tree)
        if path not in ours and (is_exact or not any(each[: len(path)] == path for each in ours))
    ]


# Changes


def spots(tree: Any, path: Path_ = ()) -> Iterator[Path_]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in below:
        yield (*path, key)
        yield from spots(value, (*path, key))


def shortened(tree: Any) -> Any:
    """The document with the first few items of each list."""
    if isinstance(tree, dict):
        return {key: shortened(value) for key, value in tree.items()}
    return [shortened(item) for item in tree[:MAX_ITEMS]] if isinstance(tree, list) else tree


def mutate(tree: Any, keys: list[str], chance: random.Random) -> str:
    """Change one thing somewhere; what was done."""
    path = chance.choice(list(spots(tree)))
    owner = tree
    for part in path[:-1]:
        owner = owner[part]
    last = path[-1]
    done = chance.choice(("delete", "rename", "type", "unknown", "known", "word", "duplicate"))
    match done:
        case "delete":
            del owner[last]
        case "rename" if isinstance(owner, dict):
            owner[str(last) + "x"] = owner.pop(last)
        case "unknown" if isinstance(owner, dict):
            owner["unheardOf"] = copy.deepcopy(chance.choice(_VALUES))
        case "known" if isinstance(owner, dict):
            owner[chance.choice(keys)] = copy.deepcopy(chance.choice(_VALUES))
        case "word":
            owner[last] = chance.choice(_WORDS)
        case "duplicate" if isinstance(owner[last], list) and owner[last]:
            owner[last].append(copy.deepcopy(owner[last][0]))
        case _:
            done = "type"
            owner[last] = copy.deepcopy(
                chance.choice([each for each in _VALUES if type(each) is not type(owner[last])])
            )
    return done


def on_purpose(tree: Any) -> str:
    """Why we differ from the schema on purpose; empty where we do not."""
    if isinstance(tree, dict):
        if str(tree.get("apiVersion", "")).startswith("v2"):
            return "a version before 3, whose contracts are otherwise made"
        if tree.get("logicalType") == "boolean" and tree.get("logicalTypeOptions"):
            return "options of a boolean, for which the standard has no rule"
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return next(filter(None, map(on_purpose, below)), "")


@dataclass
class Report:
    files: int = 0
    agreed_files: int = 0
    mutated: int = 0
    official_invalid: int = 0
    agreed: int = 0
    ours_beyond: int = 0  # refused by the rules that go beyond the schema, and accepted by it
    beyond: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.disagreements


def expected(folder: Path) -> dict[str, bool]:
    """By file, whether the standard's schema accepts it."""
    with (folder / "expected_schema_validation.csv").open(encoding="utf-8") as file:
        return {row["file"]: row["valid_odcs_3_1_0"] == "True" for row in csv.DictReader(file)}


def tree_of(path: Path) -> Any:
    document = read_document(path.read_bytes(), path.name, Problems())
    assert document is not None
    return plain(document.root)


def compare_files(folder: Path, official: Official, report: Report) -> None:
    """Verdict and places, for every file."""
    for name, is_valid in expected(folder).items():
        tree = tree_of(folder / name)
        problems = our_problems(tree, alone=False)
        report.files += 1
        agrees = is_valid == (not problems) == official.accepts(tree)
        if not is_valid:
            is_older = "dataContractSpecification" in tree
            agrees &= OLDER in problems[0].found if is_older else not missed(tree, official, problems)
        report.agreed_files += agrees
        if not agrees:
            report.disagreements.append(f"{name}: {problems}")


def compare_mutations(folder: Path, official: Official, report: Report, count: int, seed: int) -> None:
    """Verdict and places, for `count` changes of every valid file."""
    chance = random.Random(seed)
    trees = [shortened(tree_of(folder / name)) for name, is_valid in expected(folder).items() if is_valid]
    keys = sorted({str(spot[-1]) for tree in trees for spot in spots(tree)})
    for original in trees:
        for _ in range(count):
            tree = copy.deepcopy(original)
            done = mutate(tree, keys, chance)
            reason = on_purpose(tree)
            if reason:
                report.left_out[reason] += 1
            else:
                compare_one(tree, done, official, report)


def compare_one(tree: Any, done: str, official: Official, report: Report) -> None:
    is_valid = official.accepts(tree)
    alone = our_problems(tree, alone=True)
    whole = our_problems(tree, alone=False)
    lacking = [] if is_valid else missed(tree, official, whole)
    report.mutated += 1
    report.official_invalid += not is_valid
    if is_valid and whole and not alone:
        report.ours_beyond += 1
        report.beyond.update(re.sub(r"\d+|\(.*\)", "…", each.expected) for each in whole)
    if is_valid == (not alone) and not lacking:
        report.agreed += 1
    else:
        report.disagreements.append(f"{done}: the schema says {official.places(tree)}, we say {alone or whole}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--mutations", type=int, default=2_000, help="of each valid file")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    official, report, started = Official(given.folder), Report(), time.perf_counter()
    compare_files(given.folder, official, report)
    compare_mutations(given.folder, official, report, given.mutations, given.seed)
    print(f"files: {report.agreed_files} of {report.files} agree, verdict and places")
    print(f"changed files: {report.agreed:,} of {report.mutated:,} agree, {report.official_invalid:,} of them invalid")
    print(f"refused by rules beyond the schema: {report.ours_beyond:,}")
    for words, times in report.beyond.most_common(20):
        print(f"  {times:6,}  expected {words[:100]}")
    for words, times in report.left_out.items():
        print(f"left out: {times:,} with {words}")
    for each in report.disagreements[:20]:
        print(f"DISAGREES  {each[:600]}")
    print(f"{len(report.disagreements):,} disagreements, {time.perf_counter() - started:.0f} s")
    return int(not report.is_good)


if __name__ == "__main__":
    raise SystemExit(main())
