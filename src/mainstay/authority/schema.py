"""The Cedar schema of a capability folder: what its policies may speak of, made from its contract.

Cedar has no null: an attribute is there or it is not. What it has no type for is left out: values of no declared type,
objects without declared properties, and arrays of anything but scalars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import cedarpy
import msgspec

from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mainstay.contract.types import Property

NAMESPACE: Final = "Mainstay"
ANSWER: Final = "answer"

Action: TypeAlias = Literal[
    "call", "report", "push", "see", "change", "review", "promote", "approve", "roll_back", "stop", "resume", "override"
]
ACTIONS: Final[dict[Action, str]] = {
    "call": "Ask for decisions.",
    "report": "Report what came of decisions.",
    "push": "Send events to a source.",
    "see": "Read decisions, metrics and reviews.",
    "change": "Register, edit, and all that changes what decides.",
    "review": "Resolve a decision that waits for a person.",
    "promote": "Bring a version to a stage.",
    "approve": "Approve what somebody else proposed.",
    "roll_back": "Take a version back.",
    "stop": "Send every decision to the fallback.",
    "resume": "Let it decide again.",
    "override": "Bring a version to a stage although a check of it does not pass.",
}
"""What a key or a person does to the capability."""
CHANGES: Final[frozenset[Action]] = frozenset({"promote", "approve", "roll_back", "stop", "resume"})
"""What `change` is made of: who may change may do each of these, unless a policy forbids it."""
MOVES: Final[frozenset[Action]] = frozenset({"promote", "approve", "override"})
"""What is done to one version on its way to a stage, which policies may ask for."""

Kind: TypeAlias = Literal["string", "long", "decimal", "boolean", "datetime", "set", "record"]

_KINDS: Final[dict[str, Kind]] = {
    "string": "string",
    "time": "string",
    "integer": "long",
    "number": "decimal",
    "boolean": "boolean",
    "date": "datetime",
    "timestamp": "datetime",
}
_TYPE_NAMES: Final[dict[Kind, str]] = {
    "string": "String",
    "long": "Long",
    "decimal": "decimal",
    "boolean": "Bool",
    "datetime": "datetime",
}
_RESERVED: Final = "__"  # Cedar's JSON takes a key such as __extn as its own
_MAX_DOC_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a record, and where its value stands among those of its record."""

    name: str
    position: int
    kind: Kind
    required: bool
    doc: str = ""
    element: Kind | None = None  # of a set
    fields: tuple[Attribute, ...] = ()  # of a record

    def field(self, name: str) -> Attribute | None:
        """The attribute of this record that has a name."""
        return next((each for each in self.fields if each.name == name), None)


def answer_context(taken: Sequence[Property], given: Sequence[Property]) -> Attribute:
    """What policies may read of an answer: the properties of the input `taken` and of the output `given`, and more."""
    return Attribute(
        "context",
        0,
        "record",
        required=True,
        fields=(
            Attribute("input", 0, "record", required=True, doc="What the caller sent.", fields=_attributes(taken)),
            Attribute("output", 1, "record", required=True, doc="What would be answered.", fields=_attributes(given)),
            Attribute("confidence", 2, "decimal", required=False, doc="How sure the model is, calibrated, 0 to 1."),
            Attribute("novelty", 3, "decimal", required=False, doc="The conformal p-value of the input, 0 to 1."),
            Attribute("version", 4, "string", required=True, doc="The version that decided."),
            Attribute("canary", 5, "boolean", required=True, doc="Whether that version is on trial."),
        ),
    )


def schema_document(context: Attribute) -> dict[str, Any]:
    """The schema in Cedar's JSON form."""
    string, strings = _named("String"), {"type": "Set", "element": _named("String")}
    scopes = {"name": string, "capabilities": strings, "verbs": strings}
    owned = {"name": string, "team": string}
    actions: dict[str, Any] = {
        name: {
            **_doc(doc),
            **({"memberOf": [{"id": "change"}]} if name in CHANGES else {}),
            "appliesTo": {
                "principalTypes": ["Key", "Person"],
                "resourceTypes": ["Capability"],
                "context": _record(_circumstances(name)),
            },
        }
        for name, doc in ACTIONS.items()
    }
    actions[ANSWER] = {
        **_doc("Answer without a person."),
        "appliesTo": {
            "principalTypes": ["Capability"],
            "resourceTypes": ["Capability"],
            "context": _type_of(context),
        },
    }
    return {
        NAMESPACE: {
            "entityTypes": {
                "Key": {**_doc("An API key, by its id."), "shape": _record(scopes)},
                "Person": _doc("Who works at the command line, by account name."),
                "Capability": {**_doc("The capability of this folder, by its name."), "shape": _record(owned)},
            },
            "actions": actions,
        }
    }


def _circumstances(action: Action) -> dict[str, Any]:
    """What policies may read of what is done: of a move, which version is brought where, and who proposed it."""
    if action not in MOVES:
        return {}
    moved = {
        "stage": {**_named("String"), **_doc("Where to: shadow, canary or production.")},
        "version": {**_named("String"), **_doc("What is brought there.")},
    }
    proposed = {"type": "EntityOrCommon", "name": "Person", "required": False}
    return moved | ({"proposed_by": {**proposed, **_doc("Who asked for it.")}} if action == "approve" else {})


def schema_text(document: dict[str, Any]) -> str:
    """A schema as people read it, in Cedar's schema language."""
    return str(cedarpy.Schema.from_json_str(msgspec.json.encode(document).decode()))


def _attributes(properties: Iterable[Property], needed: Iterable[str] = ()) -> tuple[Attribute, ...]:
    required = frozenset(needed)
    made = (
        _attribute(each, position, required=each.required or each.name in required)
        for position, each in enumerate(properties)
    )
    return tuple(each for each in made if each is not None)


def _attribute(declared: Property, position: int, *, required: bool) -> Attribute | None:
    """A property as an attribute, or None where Cedar has no type for it."""
    name = declared.name
    if name.startswith(_RESERVED):
        return None
    doc = shorten(" ".join((declared.description or "").split()), _MAX_DOC_CHARACTERS)
    logical = declared.logical_type or ("object" if declared.properties else "array")
    if logical == "object":
        options = declared.logical_type_options
        fields = _attributes(declared.properties, (options and options.required) or ())
        return Attribute(name, position, "record", required, doc, fields=fields) if fields else None
    if logical == "array":
        element = None if declared.items is None else _KINDS.get(declared.items.logical_type or "")
        return None if element is None else Attribute(name, position, "set", required, doc, element)
    return Attribute(name, position, _KINDS[logical], required, doc)


def _type_of(attribute: Attribute) -> dict[str, Any]:
    if attribute.kind == "record":
        return _record(
            {
                each.name: {**_type_of(each), "required": each.required, **(_doc(each.doc) if each.doc else {})}
                for each in attribute.fields
            }
        )
    if attribute.kind == "set":
        assert attribute.element is not None
        return {"type": "Set", "element": _named(_TYPE_NAMES[attribute.element])}
    return _named(_TYPE_NAMES[attribute.kind])


def _record(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Record", "attributes": attributes}


def _named(name: str) -> dict[str, Any]:
    return {"type": "EntityOrCommon", "name": name}


def _doc(text: str) -> dict[str, Any]:
    return {"annotations": {"doc": text}}
