"""The documents of a drafted folder: the declaration, the contract, the policies and the rows, each with its questions.

A question is a value that begins with `TODO`, which no reader accepts. There is one for each thing that neither a
model nor a sample can tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from mainstay.capability.types import API_VERSION, CONTRACT_NAME
from mainstay.catalog.drafting_types import INPUT, OUTCOME, OUTPUT, REFERENCE, SAMPLES
from mainstay.contract.types import Contract, Description
from mainstay.contract.writing import write_contract, write_yaml
from mainstay.documents import join, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.catalog.drafting_types import Pilot
    from mainstay.contract.inference_types import InferredColumn, InferredObject
    from mainstay.contract.types import Property, SchemaObject

FEWEST_REFERENCE_ROWS: Final = 99  # for false alarms of 1 %
MOST_SHARES: Final = 5  # values of the label that a question shows

AUTHORITY: Final = """\
// Who may do what with this capability. What no policy permits is denied.

// Keys call, report, push and see what their scopes allow.
@id("keys-within-their-scopes")
permit (
  principal is Mainstay::Key,
  action in [Mainstay::Action::"call", Mainstay::Action::"report", Mainstay::Action::"push", Mainstay::Action::"see"],
  resource
);

// People at the command line change the capability and resolve what waits for them.
@id("people-change-and-review")
permit (
  principal is Mainstay::Person,
  action in [Mainstay::Action::"see", Mainstay::Action::"change", Mainstay::Action::"review"],
  resource
);

// Every answer may be given without a person. To leave some to a person, add a condition here or a `forbid` below;
// `mainstay authority schema DIR` shows what a condition may speak of.
@id("answers-by-itself")
permit (principal is Mainstay::Capability, action == Mainstay::Action::"answer", resource);
"""


def write_declaration(pilot: Pilot) -> bytes:
    """`capability.yaml`."""
    model: dict[str, Any] = {"kind": pilot.model.kind}
    comments = {}
    if pilot.call is None:
        model["file"] = pilot.file
    else:
        model["call"] = pilot.call
    if pilot.model.takes.names is None and pilot.call is None:
        model["features"] = list(pilot.matched.features)
        comments["model.features"] = (
            "The model has no names for its features. These are the columns of the sample in their order: check that "
            "the model was fitted on them in this order."
        )
    if pilot.model.trusted_types:
        model["trusted_types"] = list(pilot.model.trusted_types)
    if pilot.given.confidence is not None:
        model["confidence"] = pilot.given.confidence
    objects = {"input": INPUT, "output": OUTPUT} | ({} if pilot.outcome is None else {"outcome": OUTCOME})
    declared = {
        "apiVersion": API_VERSION,
        "name": pilot.name,
        "title": pilot.name.replace("-", " ").capitalize(),
        "purpose": "TODO: what does the business use the answer for?",
        "owner": {
            "team": "TODO: which team answers for it?",
            "contact": "TODO: at which e-mail address is that team reached? A role rather than a person.",
        },
        "replaces": "TODO: what did this work before, a rule, a person, nothing?",
        "contract": CONTRACT_NAME,
        "objects": objects,
        "model": model,
        **_output(pilot, comments),
        "samples": SAMPLES,
        **_reference(pilot, comments),
        "deadline_ms": "TODO: within how many milliseconds does the caller need the answer? 1000 is usual.",
        "fallback": [{"constant": _fallback(pilot)}],
        **_labels(pilot, comments),
    }
    comments["fallback"] = (
        "What is answered when the model has no answer: always this, until there is something better, such as a rule "
        "or `person: true`."
    )
    comments["owner"] = "Who answers for it on a Tuesday afternoon."
    return write_yaml(declared, comments, top=_top(pilot))


def _top(pilot: Pilot) -> str:
    rows = f"{pilot.sample.frame.height:,} rows"
    shown = rows if pilot.sample.is_whole else f"the first {rows}"
    return (
        f"Drafted by `mainstay new` from {shorten(pilot.brought)} and {shown} of {shorten(pilot.sample.file)}.\n"
        "What nobody could infer is a question: answer every `TODO`, here and in the contract. `mainstay validate` "
        "lists those that are left."
    )


def _output(pilot: Pilot, comments: dict[str, str]) -> dict[str, Any]:
    """The key `output`, where the model's kind has one."""
    if not pilot.given.mapping:
        return {}
    made: dict[str, Any] = {}
    for name, each in pilot.given.mapping.items():
        made[name] = {"take": each.take}
        if each.of_class is not None:
            made[name]["of_class"] = each.of_class
    if pilot.task == "binary" and "probability" in made:
        assert pilot.given.gives is not None, "a function has no task that is binary"
        one, other = map(_shown, pilot.given.gives.classes)
        made["probability"]["of_class"] = f"TODO: which class is the positive one, {one} or {other}?{_shares(pilot)}"
    if "label" in made and pilot.given.gives is not None and not pilot.given.gives.classes:
        comments["output"] = "The model does not say which classes it has."
    return {"output": made}


def _shown(label: object) -> str:
    return msgspec.json.encode(label).decode()


def _shares(pilot: Pilot) -> str:
    """How often each label is, for a question."""
    found = pilot.label_shares()[:MOST_SHARES]
    if not found:
        return ""
    return f" In the sample: {', '.join(f'{_shown(label)} in {share:.1%}' for label, share in found)}."


def _reference(pilot: Pilot, comments: dict[str, str]) -> dict[str, Any]:
    rows = len(pilot.reference_places)
    if not rows:
        return {}
    made: dict[str, Any] = {"file": REFERENCE}
    if pilot.outcome is not None and pilot.classes_agree:
        made["label"] = pilot.outcome.columns[0].name
    if rows < FEWEST_REFERENCE_ROWS:
        made["false_alarms"] = -(-100 // (rows + 1)) / 100  # the smallest share, in percent, that so few rows can show
    comments["reference"] = (
        f"What ordinary input looks like: {rows:,} rows of the sample. Nothing was held out: if the model was fitted "
        "on these rows, its confidence will look better here than it is. Rows it has not seen are better."
    )
    return {"reference": made}


def _labels(pilot: Pilot, comments: dict[str, str]) -> dict[str, Any]:
    """The key `monitoring`, where outcomes of the sample can be held against what the model says."""
    if pilot.outcome is None or pilot.outcome.columns[0].guess is not None:
        return {}
    truth = pilot.outcome.columns[0]
    given = {each.name: each.logical_type for each in pilot.given.described.properties}
    if pilot.task == "regression" and truth.declared.logical_type in {"number", "integer"} and "value" in given:
        return {"monitoring": {"labels": {"kind": "number", "truth": truth.name, "prediction": "value"}}}
    if not pilot.classes_agree or given.get("label") != truth.declared.logical_type:
        return {}
    if pilot.task == "binary" and "probability" in given:
        comments["monitoring"] = (
            "What outcomes are held against. Of two classes, kind `binary` with `score: probability` and the "
            "`positive` class measures more: how well the probability tells them apart, and how far it can be believed."
        )
    return {"monitoring": {"labels": {"kind": "classes", "truth": truth.name, "prediction": "label"}}}


def _fallback(pilot: Pilot) -> dict[str, Any]:
    """A question for every property of the output."""
    shares = _shares(pilot)
    made = {}
    for each in pilot.given.described.properties:
        made[each.name] = f"TODO: which {each.name} when the model has no answer?{shares}"
    return made


# The contract.


def write_draft_contract(pilot: Pilot) -> bytes:
    """`contract.odcs.yaml`: each inferred property says in a comment and in a custom property what speaks for it."""
    objects = [_asking(pilot.input), pilot.given.described]
    comments = dict(_comments(0, pilot.input.columns))
    comments |= {join("schema[0].quality", place): each.words() for place, each in enumerate(pilot.input.tables)}
    comments["schema[0]"] = "What a caller sends."
    comments["schema[1]"] = "What a caller is answered. It follows from the model."
    if pilot.outcome is not None:
        objects.append(_asking(pilot.outcome))
        comments |= dict(_comments(2, pilot.outcome.columns))
        comments["schema[2]"] = "What became true, as it is reported later."
    contract = contract_of(pilot, objects)
    return write_contract(
        contract,
        comments,
        top="Drafted by `mainstay new`. Rules marked `inferred` are what the sample shows and no more: support is the "
        "number of values, confidence the share of rows like these that keep the rule, at least, with a certainty of "
        "95 %. Correct what you know better.",
    )


def contract_of(pilot: Pilot, objects: Sequence[SchemaObject]) -> Contract:
    return Contract(
        api_version="v3.1.0",
        kind="DataContract",
        id=pilot.name,
        name=pilot.name,
        version="1.0.0",
        status="draft",
        description=Description(
            limitations=f"Drafted from {pilot.sample.frame.height:,} rows of {shorten(pilot.sample.file)}; "
            "rules marked inferred are what they show."
        ),
        schema=tuple(objects),
    )


def _asking(inferred: InferredObject) -> SchemaObject:
    """The object, with a question where a column may say something of a person."""
    marked = inferred.marked()
    properties = [_ask(each, declared) for each, declared in zip(inferred.columns, marked.properties, strict=True)]
    return structs.replace(marked, properties=tuple(properties))


def _ask(column: InferredColumn, declared: Property) -> Property:
    guess = column.guess
    if guess is None:
        return declared
    return structs.replace(
        declared,
        classification=f"TODO: is {column.name} {guess.classification}, internal or public? {guess.words}.",
    )


def _comments(place: int, columns: Sequence[InferredColumn]) -> Iterator[tuple[str, str]]:
    for number, each in enumerate(columns):
        yield join(join(f"schema[{place}]", "properties"), number), each.words()


# Rows.


def write_samples(pilot: Pilot) -> bytes:
    return _lines(pilot.input.records(pilot.sample_places))


def write_reference(pilot: Pilot) -> bytes:
    inputs = pilot.input.records(pilot.reference_places)
    if pilot.outcome is None:
        return _lines({"input": each} for each in inputs)
    outcomes = pilot.outcome.records(pilot.reference_places)
    return _lines(
        {"input": each} | ({"outcome": outcome} if outcome else {})
        for each, outcome in zip(inputs, outcomes, strict=True)
    )


def _lines(records: Iterator[dict[str, Any]] | Any) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for each in records)
