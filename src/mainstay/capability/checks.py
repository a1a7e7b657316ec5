"""Whether the keys of a declaration fit each other, and the objects of its contract.

Each check reports at the place of the key that is wrong. The fallback ladder has its own: `ladder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mainstay.capability.classified import protect_problems, remote_problems
from mainstay.documents import describe, nearest, shorten

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mainstay.capability.types import Capability, ModelSource
    from mainstay.contract.types import Property, SchemaObject
    from mainstay.documents import Place

FEATURE_TYPES: Final = ("string", "integer", "number", "boolean")
LABEL_TYPES: Final = ("string", "integer", "boolean")
TAKES: Final = {
    "probability": ("number",),
    "value": ("number",),
    "threshold": ("boolean",),
    "label": LABEL_TYPES,
    "tensor": FEATURE_TYPES,
}
TENSOR_KEYS: Final = ("tensor", "column")  # of an output field; they say where in a tensor it stands

FILE_KINDS: Final = ("onnx", "sklearn", "xgboost", "lightgbm")
NEEDED_BY: Final = {"file": FILE_KINDS, "call": ("python",), "remote": ("remote",)}  # and forbidden with any other
ALLOWED_WITH: Final = {
    "features": (*FILE_KINDS, "remote"),
    "trusted_types": ("sklearn",),
    "confidence": ("python", "remote"),
}
NEVER_ISOLATED: Final = ("onnx", "remote")
STATED: Final = ("python", "remote")  # kinds whose confidence is a property of the output


def check_keys(place: Place, capability: Capability) -> None:
    """What holds whatever the contract says."""
    _check_model(place.at("model"), capability.model)
    if capability.min_confidence is not None and _states_no_confidence(capability.model):
        place.add(
            f"model.confidence beside it; without, a {capability.model.kind} model states none",
            describe(capability.min_confidence),
            "min_confidence",
        )
    run_ms = capability.limits.run_ms
    if run_ms is not None and run_ms > capability.deadline_ms:
        place.add(f"at most deadline_ms, which is {capability.deadline_ms}", f"{run_ms:g}", "limits", "run_ms")


def check_input(place: Place, capability: Capability, taken: SchemaObject) -> None:
    """Features are properties of the input, each once, of a type that models take; a python model takes any."""
    if capability.model.kind == "python":
        return
    properties = {each.name: each for each in taken.properties}
    listed = place.at("model", "features")
    seen: set[str] = set()
    for i, name in enumerate(capability.model.features):
        if name in seen:
            listed.at(i).add("each feature once", describe(name))
        elif name not in properties:
            listed.at(i).add(one_of("property", f"the input {taken.name}", name, properties), describe(name))
        else:
            _check_feature(listed.at(i), capability.model, properties[name])
        seen.add(name)
    if not capability.model.features:
        for each in taken.properties:
            _check_feature(place.at("model"), capability.model, each)
    if capability.model.kind == "remote":
        _check_leaving(place.at("model"), capability, taken)


def check_output(place: Place, capability: Capability, given: SchemaObject) -> None:
    """Every property of the output comes from the model, by a way that fits its type and the model's kind."""
    kind, listed = capability.model.kind, place.at("output")
    if capability.model.confidence is not None and kind in STATED:
        check_property(place.at("model", "confidence"), capability.model.confidence, given, "output", ("number",))
    if kind == "python":
        if capability.output:
            listed.add("no such key with kind python, whose call gives whole output objects", "a mapping")
        return
    if kind == "remote" and not capability.output:  # tensors named as the properties
        for each in given.properties:
            check_property(listed, each.name, given, "output", TAKES["tensor"])
        return
    properties = {each.name: each for each in given.properties}
    for name in capability.output:
        if name in properties:
            _check_taken(listed.at(name), capability, properties[name])
        else:
            listed.add(one_of("property", f"the output {given.name}", name, properties), describe(name), name)
    for name in properties:
        if name not in capability.output:
            listed.add("how this property of the output comes from the model", "nothing", name)


def check_outcome(place: Place, capability: Capability, given: SchemaObject | None, later: SchemaObject | None) -> None:
    """What is promised, and the label of the reference rows, are properties of the output and of the outcome."""
    promise, reference = capability.promise, capability.reference
    if promise.positive is not None:
        _check_of_outcome(place.at("promise", "positive"), promise.positive, capability, later, ("boolean",))
    if promise.score is not None and given is not None:
        check_property(place.at("promise", "score"), promise.score, given, "output", ("number",))
    if reference is not None and reference.label is not None:
        _check_of_outcome(place.at("reference", "label"), reference.label, capability, later, LABEL_TYPES)


def check_protect(place: Place, capability: Capability, objects: Iterable[SchemaObject]) -> None:
    """Every label of `protect` classifies a field; one that does not is taken for a slip of the pen."""
    listed = place.at("protect")
    properties = [each for described in objects for each in described.properties]
    for label, expected in protect_problems(capability.protect, properties).items():
        listed.add(expected, describe(label), label)


def check_property(place: Place, name: str, owner: SchemaObject, role: str, kinds: Collection[str]) -> None:
    """`name` is a property of the object `owner`, which plays `role`, and of one of these logicalTypes."""
    properties = {each.name: each for each in owner.properties}
    if name not in properties:
        place.add(one_of("property", f"the {role} {owner.name}", name, properties), describe(name))
    elif properties[name].logical_type not in kinds:
        place.add(f"a property of logicalType {' or '.join(kinds)}", f"{shorten(name, 40)}, {typed(properties[name])}")


def one_of(noun: str, owner: str, name: str, known: Collection[str]) -> str:
    """What was expected where `name` is none of the `known`: the one that was probably meant, else all of them."""
    article = "an" if noun[0] in "aeiou" else "a"
    near = nearest(name, known)
    if near:
        return f'{article} {noun} of {owner} (did you mean "{near}"?)'
    names = ", ".join(known) or "there is none"
    return f"{article} {noun} of {owner}: {names if len(names) <= 400 else names[:399] + '…'}"


def typed(declared: Property) -> str:
    """A property's logicalType as a problem shows it after the property's name."""
    return f"of {declared.logical_type}" if declared.logical_type else "without a logicalType"


# The model


def _check_model(place: Place, model: ModelSource) -> None:
    """Each kind has its own keys."""
    for key, kinds in NEEDED_BY.items():
        if model.kind in kinds and getattr(model, key) is None:
            place.add(f"this key, which kind {model.kind} needs", "nothing", key)
    for key, kinds in (NEEDED_BY | ALLOWED_WITH).items():
        if model.kind not in kinds and getattr(model, key) not in (None, ()):
            belongs = f"no such key with kind {model.kind}; it belongs to {', '.join(kinds)}"
            place.add(belongs, describe(place.at(key).value.data), key)
    if model.run == "isolated" and model.kind in NEVER_ISOLATED:
        place.add(f'"auto" with kind {model.kind}, which needs no isolated process', '"isolated"', "run")


def _states_no_confidence(model: ModelSource) -> bool:
    return model.kind in STATED and model.confidence is None


def _check_feature(place: Place, model: ModelSource, declared: Property) -> None:
    if declared.logical_type not in FEATURE_TYPES:
        kind = f"logicalType {declared.logical_type}" if declared.logical_type else "no logicalType"
        place.add(
            f"features of logicalType {', '.join(FEATURE_TYPES)}; list those to use under features",
            f"{shorten(declared.name, 40)}, which has {kind}",
        )
    elif declared.logical_type == "string" and _takes_one_tensor(model):
        place.add(
            "features of logicalType integer, number, boolean, as model.remote.input_tensor holds numbers",
            f"{shorten(declared.name, 40)}, which has logicalType string",
        )


def _check_leaving(place: Place, capability: Capability, taken: SchemaObject) -> None:
    """What is classified leaves protected, and is still what the remote model needs."""
    features = capability.model.features or tuple(each.name for each in taken.properties)
    problems = remote_problems(taken.properties, features, capability.protect)
    for name, expected in problems.items():
        listed = name in capability.model.features
        here = place.at("features", capability.model.features.index(name)) if listed else place
        here.add(expected, describe(name))


def _takes_one_tensor(model: ModelSource) -> bool:
    return model.kind == "remote" and model.remote is not None and model.remote.input_tensor is not None


def _check_taken(place: Place, capability: Capability, declared: Property) -> None:
    """One entry of `output`, for a property of the output object."""
    kind, field = capability.model.kind, capability.output[declared.name]
    if (field.take == "tensor") != (kind == "remote"):
        ways = ["tensor"] if kind == "remote" else [way for way in TAKES if way != "tensor"]
        place.add(f"{' or '.join(ways)} with kind {kind}", field.take, "take")
    elif declared.logical_type not in TAKES[field.take]:
        kinds = " or ".join(TAKES[field.take])
        place.add(
            f"{field.take} to fill a property of logicalType {kinds}",
            declared.logical_type or "no logicalType",
            "take",
        )
    written = place.value.data if isinstance(place.value.data, dict) else {}
    for key in TENSOR_KEYS:
        if field.take != "tensor" and key in written:
            place.add(f"no such key beside take: {field.take}", describe(place.at(key).value.data), key)


# The outcome


def _check_of_outcome(
    place: Place, name: str, capability: Capability, later: SchemaObject | None, kinds: Collection[str]
) -> None:
    if capability.objects.outcome is None:
        place.add("objects.outcome beside it, whose property it names", describe(name))
    elif later is not None:
        check_property(place, name, later, "outcome", kinds)
