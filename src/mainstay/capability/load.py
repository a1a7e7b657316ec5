"""Reading a capability folder: the declaration, its contract, and whether the two agree.

Every problem of both files is reported at once. Nothing outside the folder is read: a link that leaves it is a problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mainstay.capability.types import CONTRACT_NAME, FILE_NAME, Capability
from mainstay.contract.load import ReadContract, read_contract
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.documents import Document, Place, Problems, describe, nearest, read_bytes, read_document, shorten
from mainstay.errors import InvalidDocument, Misuse
from mainstay.structs import read_struct

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mainstay.contract.types import Contract, Property, SchemaObject

MAX_DECLARATION_BYTES: Final = 1 << 20
MAX_SAMPLES_BYTES: Final = 64 << 20
MAX_MODEL_BYTES: Final = 2 << 30  # what a protobuf message, and so an ONNX file, can hold

FEATURE_TYPES: Final = ("string", "integer", "number", "boolean")
TAKES: Final = {
    "probability": ("number",),
    "value": ("number",),
    "threshold": ("boolean",),
    "label": ("string", "integer", "boolean"),
}


@dataclass(frozen=True)
class Declared:
    """A capability folder that was read and agrees with itself."""

    folder: Path
    capability: Capability
    contract: Contract
    input: ObjectValidator
    output: ObjectValidator
    outcome: ObjectValidator | None  # None: what became true later is not described


def load_capability(folder: Path) -> Declared:
    """Read a capability folder.

    Raises Misuse when there is no such folder, and InvalidDocument with every problem of `capability.yaml` and of the
    contract.
    """
    if not folder.is_dir():
        raise Misuse(f"{folder}: expected a capability folder, found {'a file' if folder.exists() else 'nothing'}")
    problems = Problems()
    place, capability = _read_declaration(folder, problems)
    contract = _read_contract_of(folder, place, capability, problems)
    declared = None
    if place is not None and capability is not None:
        _check_file(folder, capability.model.file, MAX_MODEL_BYTES, place.at("model", "file"))
        _check_file(folder, capability.samples, MAX_SAMPLES_BYTES, place.at("samples"))
        if contract is not None:
            declared = _compare(folder, place, capability, contract)
    problems.raise_any()
    if declared is None:
        raise InvalidDocument(problems.found)
    return declared


def _read_declaration(folder: Path, problems: Problems) -> tuple[Place | None, Capability | None]:
    file = str(folder / FILE_NAME)
    path = _inside(folder, FILE_NAME)
    if path is None:
        problems.add(file, 1, "", "a file inside the folder", "a link that leaves it, or leads nowhere")
        return None, None
    content = read_bytes(path, file, problems, MAX_DECLARATION_BYTES)
    document: Document | None = None if content is None else read_document(content, file, problems)
    if document is None:
        return None, None
    return Place(file, document.root, "", problems), read_struct(document, Capability, problems)


def _read_contract_of(
    folder: Path, place: Place | None, capability: Capability | None, problems: Problems
) -> ReadContract | None:
    """The contract, also where the declaration has problems elsewhere and only says where the contract is."""
    if capability is not None:
        name = capability.contract
    elif place is not None and isinstance(place.at("contract").value.data, str):
        name = place.at("contract").value.data
    else:
        name = CONTRACT_NAME
    spot = place.at("contract") if place is not None else None
    path = _inside(folder, name)
    if path is None or not path.is_file():
        if spot is not None:
            spot.add("a file inside the folder", f"{describe(name)}, which is none")
        return None
    file = str(folder / name)
    content = read_bytes(path, file, problems)
    return None if content is None else read_contract(content, file, problems)


def _inside(folder: Path, name: str) -> Path | None:
    """The real path of a file of the folder, or None when it leads out of the folder or nowhere."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle; a name no file system takes
        return None


def _check_file(folder: Path, name: str, max_bytes: int, place: Place) -> None:
    path = _inside(folder, name)
    if path is None:
        place.add("a file inside the folder", f"{describe(name)}, which leads out of it or nowhere")
        return
    try:
        if not path.is_file():
            place.add("a file inside the folder", f"{describe(name)}, which is none")
        elif path.stat().st_size > max_bytes:
            place.add(f"a file of at most {max_bytes} bytes", f"{path.stat().st_size} bytes")
    except OSError as error:
        place.add("a readable file", error.strerror or type(error).__name__)


def _compare(folder: Path, place: Place, capability: Capability, read: ReadContract) -> Declared | None:
    """Check the declaration against the contract, and compile it where both are sound."""
    named = capability.objects
    taken = _object(place.at("objects", "input"), read.objects, named.input)
    given = _object(place.at("objects", "output"), read.objects, named.output)
    later = None if named.outcome is None else _object(place.at("objects", "outcome"), read.objects, named.outcome)
    if taken is not None:
        _check_features(place, capability, taken)
    if given is not None:
        _check_output(place.at("output"), capability, given)
    _check_promise(place.at("promise"), capability, given, later)
    if read.contract is None or given is None:
        return None
    output = compile_object(given)
    _check_fallback(place.at("fallback"), capability, output)
    if taken is None:
        return None
    outcome = None if later is None else compile_object(later)
    return Declared(folder, capability, read.contract, compile_object(taken), output, outcome)


def _object(place: Place, objects: dict[str, SchemaObject | None], name: str) -> SchemaObject | None:
    if name not in objects:
        place.add(_one_of("object", "the contract", name, objects), describe(name))
        return None
    found = objects[name]
    if found is not None and not found.properties:
        place.add("an object with properties", f"{describe(name)}, which has none")
        return None
    return found


def _one_of(noun: str, owner: str, name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    if near:
        return f'{"an" if noun[0] in "aeiou" else "a"} {noun} of {owner} (did you mean "{near}"?)'
    names = ", ".join(known)
    return (
        f"{'an' if noun[0] in 'aeiou' else 'a'} {noun} of {owner}: {names if len(names) <= 400 else names[:399] + '…'}"
    )


def _check_features(place: Place, capability: Capability, taken: SchemaObject) -> None:
    """Features are properties of the input, each once, of a type that models take."""
    properties = {each.name: each for each in taken.properties}
    listed = place.at("model", "features")
    seen: set[str] = set()
    for i, name in enumerate(capability.model.features):
        if name in seen:
            listed.at(i).add("each feature once", describe(name))
        elif name not in properties:
            listed.at(i).add(_one_of("property", f"the input {taken.name}", name, properties), describe(name))
        else:
            _check_feature(listed.at(i), properties[name])
        seen.add(name)
    if not capability.model.features:
        for each in taken.properties:
            _check_feature(place.at("model"), each)


def _check_feature(place: Place, declared: Property) -> None:
    if declared.logical_type not in FEATURE_TYPES:
        kind = f"logicalType {declared.logical_type}" if declared.logical_type else "no logicalType"
        place.add(
            f"features of logicalType {', '.join(FEATURE_TYPES)}; list those to use under features",
            f"{shorten(declared.name, 40)}, which has {kind}",
        )


def _check_output(place: Place, capability: Capability, given: SchemaObject) -> None:
    """Every property of the output comes from the model, by a way that fits its type."""
    properties = {each.name: each for each in given.properties}
    for name, field in capability.output.items():
        if name not in properties:
            place.add(_one_of("property", f"the output {given.name}", name, properties), describe(name), name)
        elif properties[name].logical_type not in TAKES[field.take]:
            kinds = " or ".join(TAKES[field.take])
            found = properties[name].logical_type or "no logicalType"
            place.add(f"{field.take} to fill a property of logicalType {kinds}", found, name, "take")
    for name in properties:
        if name not in capability.output:
            place.add("how this property of the output comes from the model", "nothing", name)


def _check_fallback(place: Place, capability: Capability, output: ObjectValidator) -> None:
    for i, rung in enumerate(capability.fallback):
        for broken in output.check(rung.constant):
            place.at(i, "constant").add(f"{broken.expected} ({broken.rule})", broken.found, broken.field)


def _check_promise(
    place: Place, capability: Capability, given: SchemaObject | None, later: SchemaObject | None
) -> None:
    promise = capability.promise
    if promise.positive is not None and capability.objects.outcome is None:
        place.add("objects.outcome beside it, whose field it names", describe(promise.positive), "positive")
    elif promise.positive is not None and later is not None:
        _check_promised(place.at("positive"), promise.positive, later, "outcome", "boolean")
    if promise.score is not None and given is not None:
        _check_promised(place.at("score"), promise.score, given, "output", "number")


def _check_promised(place: Place, name: str, owner: SchemaObject, role: str, kind: str) -> None:
    properties = {each.name: each for each in owner.properties}
    if name not in properties:
        place.add(_one_of("property", f"the {role} {owner.name}", name, properties), describe(name))
    elif properties[name].logical_type != kind:
        found = properties[name].logical_type or "no logicalType"
        place.add(f"a property of logicalType {kind}", f"{shorten(name, 40)}, of {found}")
