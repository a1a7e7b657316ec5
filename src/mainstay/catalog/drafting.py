"""Drafting a capability folder from a model and a sample of data.

1  read the sample
2  copy the model into a folder of the draft's own, and open it there, confined, to learn what it takes and gives
3  find the model's columns in the sample, and the label
4  infer the contract of the input from those columns
5  run the model on some rows: what it answers, and which gaps it cannot take
6  choose sample and reference rows, write every document, and see that nothing but questions is left in it
7  put the folder in its place by one rename
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from mainstay.capability.checks import LABEL_TYPES
from mainstay.capability.load import load_capability
from mainstay.capability.types import AUTHORITY_NAME, CONTRACT_NAME, FILE_NAME
from mainstay.capability.words import Name
from mainstay.catalog.conversion import PICKLE_SUFFIXES, SKOPS_SUFFIX, Limits
from mainstay.catalog.describe import Described, Takes, describe_file, describe_graph
from mainstay.catalog.drafting_data import read_sample
from mainstay.catalog.drafting_folder import NOBODY, RUNBOOK, Trust, bring_model, drafted_folder
from mainstay.catalog.drafting_model import FEATURE_KINDS, Runner, check_column, kind_of_classes, match_columns
from mainstay.catalog.drafting_runbook import write_runbook
from mainstay.catalog.drafting_text import (
    AUTHORITY,
    write_declaration,
    write_draft_contract,
    write_reference,
    write_samples,
)
from mainstay.catalog.drafting_types import INPUT, OUTCOME, REFERENCE, SAMPLES, Pilot
from mainstay.catalog.graph import Graph
from mainstay.contract.inference import REFUSED_SHARE, allowed_values, infer_column, infer_object
from mainstay.contract.inference_types import InferredObject, Unfit
from mainstay.contract.types import Property
from mainstay.contract.validator import compile_object
from mainstay.documents import OPEN_QUESTION
from mainstay.errors import Failed, InvalidDocument, Misuse
from mainstay.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from mainstay.catalog.drafting_data import Sample
    from mainstay.catalog.drafting_folder import Brought
    from mainstay.catalog.drafting_types import Given, Matched
    from mainstay.contract.inference_types import Wanted
    from mainstay.problems import Problem

SAMPLE_ROWS: Final = 300  # and some more, so that every gap and every value of a short list is there
REFERENCE_ROWS: Final = 10_000
FEWEST_REFERENCE_ROWS: Final = 20
ROWS_OF_A_KIND: Final = 5  # of each gap, and of each value of the label
MOST_LISTED: Final = 50  # values of a column that are each in the samples
MOST_SAMPLE_ROWS: Final = 1_000

_SUFFIXES: Final = (".onnx", SKOPS_SUFFIX, *PICKLE_SUFFIXES, ".ubj", ".json", ".txt")
_LABEL_WANTED: Final[dict[str, Wanted]] = {"string": "string", "integer": "integer", "boolean": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for."""

    name: str
    model: str  # a file, or `predict.py:predict`
    data: Path
    target: Path  # the folder that is made
    label: str | None = None
    ignored: tuple[str, ...] = ()
    public: tuple[str, ...] = ()  # columns that say nothing of a person, whatever they look like
    trust: Trust = NOBODY
    trusted_types: tuple[str, ...] = ()
    register_options: str = ""  # what the runbook's `register` is told besides


@dataclass(frozen=True, slots=True)
class Drafted:
    """A folder that was drafted, and the questions in it, each a problem of its file."""

    folder: Path
    pilot: Pilot
    questions: tuple[Problem, ...]


def draft(wish: Wish, *, progress: Callable[[str], None] | None = None, limits: Limits | None = None) -> Drafted:
    """Draft the folder. `progress` is told each step as it begins.

    Raises Misuse when the folder exists, when the model or the sample cannot be taken, or when they do not fit each
    other; Failed when the model does not run. There is no folder then.
    """
    tell = progress or (lambda _: None)
    bounds = limits or Limits()
    _check_wish(wish)
    with drafted_folder(wish.target) as folder:
        tell("reading the sample")
        sample = read_sample(wish.data)
        tell("opening the model")
        brought = bring_model(wish.model, wish.data, folder, wish.trust)
        described = _describe(folder, brought, wish, bounds)
        for name in wish.public:
            check_column(name, "--public", sample.frame)
        matched = match_columns(described, sample.frame, wish.label, wish.ignored)
        tell("inferring the contract")
        taken = _infer_input(sample.frame, matched, described, wish.public)
        tell("running the model on some rows")
        runner = Runner(folder, brought.file, brought.call, described, bounds)
        tried = runner.try_rows(taken, _choose_samples(taken, sample.frame, matched.label))
        for name in tried.cannot_miss:
            taken = _require(taken, name, "the model fails without it")
        tell("writing the folder")
        pilot = _pilot(wish, brought, described, sample, matched, taken, tried.given)
        _write(pilot, wish, folder)
        questions = _questions(folder)
    return Drafted(wish.target, pilot, tuple(replace(each, file=str(wish.target / each.file)) for each in questions))


def _check_wish(wish: Wish) -> None:
    try:
        msgspec.convert(wish.name, Name)
    except msgspec.ValidationError:
        raise Misuse(f"{wish.name!r}: expected 2 to 63 lower-case letters, digits and dashes, a letter first") from None
    if ".py:" not in wish.model and not wish.model.lower().endswith(_SUFFIXES):
        raise Misuse(
            f"{wish.model}: expected a model in a file ending in {', '.join(_SUFFIXES)}, or a Python function such as "
            "predict.py:predict"
        )


def _describe(folder: Path, brought: Brought, wish: Wish, limits: Limits) -> Described:
    if brought.file is None:
        return Described(kind="python", what="Python function", takes=Takes())
    if brought.file.endswith(".onnx"):
        return describe_graph(Graph((folder / brought.file).read_bytes()))
    return describe_file(folder, brought.file, wish.trusted_types, limits)


# The input.


def _infer_input(
    frame: pl.DataFrame, matched: Matched, described: Described, public: Collection[str]
) -> InferredObject:
    """The model's columns. What is a date or a time is text to every model but a Python function."""
    chosen = frame.select(matched.features)
    wanted = {name: kind for name in matched.features if (kind := described.takes.kind_of(name)) is not None}
    try:
        taken = infer_object(chosen, INPUT, wanted, public=public)
        if described.kind != "python":
            texts: dict[str, Wanted] = {
                each.name: "string" for each in taken.columns if each.declared.logical_type not in FEATURE_KINDS
            }
            if texts:
                taken = infer_object(chosen, INPUT, wanted | texts, public=public)
    except Unfit as unfit:
        raise Misuse(str(unfit), hint="It is a column that the model takes.") from None
    if described.kind == "onnx":
        for name, kind in wanted.items():
            if kind in ("integer", "boolean"):
                taken = _require(taken, name, "the graph has no missing value for it")
    return taken


def _require(taken: InferredObject, name: str, words: str) -> InferredObject:
    columns = tuple(each.required_by(words) if each.name == name else each for each in taken.columns)
    return replace(taken, columns=columns)


# The outcome.


def _infer_outcome(
    frame: pl.DataFrame, matched: Matched, given: Given
) -> tuple[InferredObject | None, bool, list[str]]:
    """The label as an object, whether its values can be compared with what the model answers, and notes."""
    if matched.label is None:
        return None, False, ["no label is known, so confidence cannot be calibrated: name it with --label COLUMN"]
    classes = () if given.gives is None else given.gives.classes
    column, wanted = frame[matched.label], _LABEL_WANTED[kind_of_classes(classes)] if classes else None
    notes = []
    try:
        found = infer_column(column, wanted, share=REFUSED_SHARE)
        agree = bool(classes) and set(found.values.drop_nulls().unique().to_list()) <= set(classes)
    except Unfit:
        found, agree = infer_column(column, share=REFUSED_SHARE), False
    if given.gives is None:
        same = next((each for each in given.described.properties if each.name == matched.label), None)
        kind = found.declared.logical_type
        agree = same is not None and kind == same.logical_type and kind in LABEL_TYPES
    elif classes and not agree:
        values = found.values.drop_nulls().unique(maintain_order=True).head(5).to_list()
        notes.append(
            f"the model's classes are {_listed(classes[:5])} and {matched.label} holds {_listed(values)}: which is "
            "which cannot be inferred, so confidence is not calibrated"
        )
    declared = Property(
        name=matched.label,
        logical_type=found.declared.logical_type,
        required=True,
        quality=(allowed_values(classes),) if agree and classes and found.declared.logical_type != "boolean" else (),
    )
    column_only = replace(found, declared=declared, findings=found.findings[:1], notes=(), guess=None)
    return InferredObject(OUTCOME, (column_only,), frame.height), agree, notes


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


# The rows.


def _whole_rows(taken: InferredObject, rows: int) -> np.ndarray[Any, Any]:
    """The places of the rows that lack nothing that is required."""
    needed = [each.values.is_not_null().to_numpy() for each in taken.columns if each.declared.required]
    return np.flatnonzero(np.logical_and.reduce(needed)) if needed else np.arange(rows)


def _choose_samples(taken: InferredObject, frame: pl.DataFrame, label: str | None) -> tuple[int, ...]:
    """Rows from all over the sample, with its gaps, its listed values and every value of the label among them."""
    places = _whole_rows(taken, frame.height)
    chosen = dict.fromkeys(_spread(places, SAMPLE_ROWS).tolist())
    columns = [each.values for each in taken.columns]
    for column in columns:
        chosen |= dict.fromkeys(places[column.gather(places).is_null().to_numpy()][:ROWS_OF_A_KIND].tolist())
    listed = [(each, 1) for each in columns if each.dtype == pl.String]
    if label is not None:
        listed.append((frame[label], ROWS_OF_A_KIND))
    for column, rows in listed:
        chosen |= dict.fromkeys(_first_of_each(column.gather(places), rows, places))
    return tuple(sorted(list(chosen)[:MOST_SAMPLE_ROWS]))


def _spread(places: np.ndarray[Any, Any], most: int) -> np.ndarray[Any, Any]:
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(np.intp)]


def _first_of_each(values: pl.Series, rows: int, places: np.ndarray[Any, Any]) -> list[int]:
    """The first rows with each value; none where there are too many values to have them all."""
    if values.n_unique() > MOST_LISTED:
        return []
    numbered = pl.DataFrame({"value": values, "place": places})
    firsts = numbered.group_by("value", maintain_order=True).head(rows)
    found: list[int] = firsts["place"].to_list()
    return found


# The folder.


def _pilot(
    wish: Wish,
    brought: Brought,
    described: Described,
    sample: Sample,
    matched: Matched,
    taken: InferredObject,
    given: Given,
) -> Pilot:
    outcome, agree, notes = _infer_outcome(sample.frame, matched, given)
    whole = _whole_rows(taken, sample.frame.height)
    if len(whole) < sample.frame.height:
        lost = sample.frame.height - len(whole)
        notes.append(f"{lost:,} of {sample.frame.height:,} rows lack what is required, and would be refused")
    places = _spread(whole, REFERENCE_ROWS)
    has_scores = any(each.declared.logical_type in FEATURE_KINDS for each in taken.columns)
    if len(places) < FEWEST_REFERENCE_ROWS or not has_scores:
        places = places[:0]
        notes.append(f"there are no reference rows: expected {FEWEST_REFERENCE_ROWS} rows, found {len(whole)}")
    return Pilot(
        name=wish.name,
        brought=brought.name,
        file=brought.file,
        call=brought.call,
        model=described,
        sample=sample,
        matched=matched,
        input=taken,
        given=given,
        outcome=outcome,
        classes_agree=agree,
        sample_places=_choose_samples(taken, sample.frame, matched.label),
        reference_places=tuple(places.tolist()),
        notes=(*described.notes, *notes),
    )


def _write(pilot: Pilot, wish: Wish, folder: Path) -> None:
    _check_rows(pilot)
    contents = {
        FILE_NAME: write_declaration(pilot),
        CONTRACT_NAME: write_draft_contract(pilot),
        AUTHORITY_NAME: AUTHORITY.encode(),
        RUNBOOK: write_runbook(pilot.name, str(wish.target), wish.register_options),
        SAMPLES: write_samples(pilot),
    }
    if pilot.reference_places:
        contents[REFERENCE] = write_reference(pilot)
    for name, content in contents.items():
        write_atomic(folder / name, content)


def _check_rows(pilot: Pilot) -> None:
    """Raises Failed when a row that is written breaks the contract that was inferred from it."""
    validator = compile_object(pilot.input.marked())
    for record in pilot.input.records((*pilot.sample_places, *pilot.reference_places)):
        found = validator.violations(msgspec.json.encode(record))
        if found:
            raise Failed(f"the drafted contract refuses a row of the sample: {found[0].field}: {found[0].expected}")


def _questions(folder: Path) -> list[Problem]:
    """The problems of the draft, of files named as inside it. Raises Failed when one of them is no question."""
    try:
        load_capability(folder)
    except InvalidDocument as invalid:
        problems = [replace(each, file=each.file.removeprefix(f"{folder}/")) for each in invalid.problems]
    else:
        problems = []
    others = [each for each in problems if each.found != OPEN_QUESTION]
    if others:
        raise Failed("the draft has problems beside its questions", hint="\n".join(map(str, others)))
    return problems
