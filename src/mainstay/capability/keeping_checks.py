"""Whether what a declaration says of being kept in production fits together, and fits its contract.

Each check reports at the place of the key that is wrong, as those of `checks` do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mainstay.capability.checks import LABEL_TYPES, check_property, one_of
from mainstay.capability.classified import action_for
from mainstay.capability.keeping import METRICS, OF_A_CLASS_SAID, RANGES
from mainstay.capability.source_checks import object_of
from mainstay.capability.types import FILE_NAME
from mainstay.documents import describe, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.capability.keeping import Labels, Metric, Monitoring
    from mainstay.capability.types import Capability
    from mainstay.contract.types import Property, SchemaObject
    from mainstay.documents import Place

NEEDED_BY_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "score": ("binary",),
    "prediction": ("classes", "number", "ranking"),
}  # the kinds that need each key
ONLY_OF_LABELS: Final[Mapping[str, tuple[str, ...]]] = {"score": ("binary",), "positive": ("binary",)}
COSTS: Final = ("per_decision", "per_second", "per_review")
NEVER_RETRAINED: Final = ("remote",)  # kinds of models that are trained elsewhere

SEGMENT_TYPES: Final = ("string", "integer", "boolean")
TIME_TYPES: Final = ("date", "timestamp")
TRUTH_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "binary": LABEL_TYPES,
    "classes": LABEL_TYPES,
    "number": ("number", "integer"),
    "ranking": ("array",),
}
VALUE_TYPES: Final[Mapping[str, type]] = {"string": str, "integer": int, "boolean": bool}

_PIECE: Final = re.compile(
    r"""(?<![\w.])(?P<side>input|output|outcome)\s*(?:\.\s*(?P<word>[A-Za-z_]\w*)|\[\s*["'](?P<text>[^"']*)["']\s*\])
      | "[^"]*" | '[^']*' | (?P<sign>[()])""",
    re.ASCII | re.VERBOSE,
)  # what is looked at of an expression: fields, and parentheses that do not stand in a text


def check_keeping(place: Place, capability: Capability) -> None:
    """What holds whatever the contract says. `place` is that of the declaration."""
    _check_monitoring(place.at("monitoring"), capability.monitoring)
    _check_costs(place, capability)
    _check_rollout(place, capability)
    if capability.retraining is not None:
        _check_retraining(place, capability)


def check_keeping_objects(
    place: Place,
    capability: Capability,
    objects: Mapping[str, SchemaObject | None],
    *,
    taken: SchemaObject | None,
    given: SchemaObject | None,
    later: SchemaObject | None,
) -> None:
    """What is watched are properties of the input, the output and the outcome, of types that fit.

    `taken`, `given` and `later` are these three, None where the contract has none or a problem with it has been told.
    """
    watched, here = capability.monitoring, place.at("monitoring")
    if taken is not None:
        if watched.time is not None:
            check_property(here.at("time"), watched.time, taken, "input", TIME_TYPES)
        for i, name in enumerate(watched.segments):
            _check_segment(here.at("segments", i), name, taken)
    if taken is not None and given is not None:
        _check_ignored(here.at("ignore"), watched.ignore, taken, given)
    if watched.labels is not None:
        _check_label_objects(here.at("labels"), watched.labels, capability, given, later)
    named = {"input": taken, "output": given, "outcome": later}
    for i, number in enumerate(watched.business):
        _check_references(here.at("business", i, "expression"), number.expression, capability, named)
    _check_rows(place.at("retraining"), capability, objects)


# What is watched


def _check_monitoring(place: Place, watched: Monitoring) -> None:
    steps = watched.window_hours / watched.step_hours
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-9 * steps:
        expected = f"a whole number of steps of step_hours, which is {watched.step_hours:g}"
        place.add(expected, f"{watched.window_hours:g}", "window_hours")
    _check_once(place.at("segments"), watched.segments, "property")
    _check_once(place.at("ignore"), watched.ignore, "property")
    if watched.labels is not None:
        _check_labels(place.at("labels"), watched.labels)
    elif watched.metrics:
        place.add("labels beside them, which say what they are measured on", "nothing", "metrics")
    for i, metric in enumerate(watched.metrics):
        _check_metric(place.at("metrics", i), metric, watched.labels)
    _check_numbers(place, watched)


def _check_numbers(place: Place, watched: Monitoring) -> None:
    """Every number that is watched has a name of its own, and bounds that leave something between them."""
    lists: tuple[tuple[str, Sequence[Any]], ...] = (("metrics", watched.metrics), ("business", watched.business))
    seen: set[str] = set()
    for key, numbers in lists:
        for i, number in enumerate(numbers):
            here = place.at(key, i)
            if number.name in seen:
                here.add("a name that no other number has", describe(number.name), "name")
            seen.add(number.name)
            low, high = number.at_least, number.at_most
            if low is not None and high is not None and low > high:
                here.add(f"at least at_least, which is {low:g}", f"{high:g}", "at_most")


def _check_labels(place: Place, labels: Labels) -> None:
    """Each kind has its own keys."""
    written = _written(place)
    for key, kinds in NEEDED_BY_LABELS.items():
        if labels.kind in kinds and getattr(labels, key) is None:
            place.add(f"this key, which kind {labels.kind} needs", "nothing", key)
    for key, kinds in ONLY_OF_LABELS.items():
        if labels.kind not in kinds and written.get(key) is not None:
            belongs = f"no such key with kind {labels.kind}; it belongs to {', '.join(kinds)}"
            place.add(belongs, describe(place.at(key).value.data), key)


def _check_metric(place: Place, metric: Metric, labels: Labels | None) -> None:
    if labels is not None:
        _check_metric_name(place.at("name"), metric.name, labels)
    if metric.name not in METRICS["ranking"] and "top" in _written(place):
        names = ", ".join(METRICS["ranking"])
        place.add(f"no such key with {metric.name}; it belongs to {names}", str(metric.top), "top")
    low, high = RANGES.get(metric.name, (0.0, 1.0))
    for key in ("at_least", "at_most"):
        bound = getattr(metric, key)
        if bound is not None and not low <= bound <= high:
            place.add(_range_words(metric.name, low, high), f"{bound:g}", key)


def _check_metric_name(place: Place, name: str, labels: Labels) -> None:
    if name not in METRICS[labels.kind]:
        place.add(f"a metric of labels of kind {labels.kind}: {', '.join(METRICS[labels.kind])}", name)
    elif name in OF_A_CLASS_SAID and labels.prediction is None:
        place.add("monitoring.labels.prediction beside it, the class said that it is of", name)


def _range_words(name: str, low: float, high: float) -> str:
    if low == 0 and high == 1:
        return f"a number from 0 to 1, as {name} is"
    return f"at least 0, as {name} is" if low == 0 else f"at most {high:g}, as {name} is"


def _check_segment(place: Place, name: str, taken: SchemaObject) -> None:
    check_property(place, name, taken, "input", SEGMENT_TYPES)
    declared = _property(taken, name)
    if declared is not None and action_for(declared, {}) is not None:
        found = f"{shorten(name, 40)}, which is {declared.classification}"
        place.add("a property that is not classified, as reports show its values", found)


def _check_ignored(place: Place, names: Sequence[str], taken: SchemaObject, given: SchemaObject) -> None:
    known = [each.name for owner in (taken, given) for each in owner.properties]
    for i, name in enumerate(names):
        if name not in known:
            place.add(one_of("property", f"the input {taken.name} or the output {given.name}", name, known), name, i)


def _check_label_objects(
    place: Place, labels: Labels, capability: Capability, given: SchemaObject | None, later: SchemaObject | None
) -> None:
    if given is not None:
        if labels.score is not None:
            check_property(place.at("score"), labels.score, given, "output", ("number",))
        if labels.prediction is not None:
            check_property(place.at("prediction"), labels.prediction, given, "output", TRUTH_TYPES[labels.kind])
    if capability.objects.outcome is None:
        place.add("objects.outcome beside it, whose property it names", describe(labels.truth), "truth")
        return
    if later is None:
        return
    check_property(place.at("truth"), labels.truth, later, "outcome", TRUTH_TYPES[labels.kind])
    truth = _property(later, labels.truth)
    said = _property(given, labels.prediction)
    _check_recorded(place, labels, capability, {"truth": truth, "prediction": said})
    kinds = TRUTH_TYPES[labels.kind]
    if truth is None or truth.logical_type not in kinds or kinds != LABEL_TYPES:
        return
    if said is not None and said.logical_type in kinds and said.logical_type != truth.logical_type:
        expected = f"a property of logicalType {truth.logical_type}, as the truth {shorten(labels.truth, 40)}"
        place.add(expected, f"{shorten(said.name, 40)}, of {said.logical_type}", "prediction")
    if labels.kind == "binary" and type(labels.positive) is not VALUE_TYPES[truth.logical_type]:
        expected = f"a value of the truth {shorten(labels.truth, 40)}, which is of logicalType {truth.logical_type}"
        place.add(expected, describe(labels.positive), "positive")


def _check_recorded(
    place: Place, labels: Labels, capability: Capability, declared: Mapping[str, Property | None]
) -> None:
    """What is compared is recorded as it is, or as the same pseudonym each time."""
    for key, each in declared.items():
        action = None if each is None else action_for(each, capability.protect)
        if each is not None and action is not None and (action != "pseudonym" or each.logical_type != "string"):
            found = f"{shorten(each.name, 40)}, which is {each.classification}, so {action} protects it"
            place.add(f"a property whose values are recorded, to be compared as kind {labels.kind}", found, key)


def _check_references(
    place: Place, expression: str, capability: Capability, named: Mapping[str, SchemaObject | None]
) -> None:
    """Parentheses are closed and names lead to properties; what the expression means is for monitoring to read."""
    pieces = list(_PIECE.finditer(expression))
    depth = 0
    for sign in (each["sign"] for each in pieces if each["sign"]):
        depth += 1 if sign == "(" else -1
        if depth < 0:
            break
    if depth:
        place.add("parentheses that are opened and closed", shorten(expression))
    found = [(each["side"], each["word"] or each["text"] or "") for each in pieces if each["side"]]
    if not found:
        place.add("a property of a decision in it, such as output.amount or outcome.paid", shorten(expression))
    for owner, name in dict.fromkeys(found):
        described = named[owner]
        if owner == "outcome" and capability.objects.outcome is None:
            place.add("objects.outcome beside it, whose property it names", f"outcome.{name}")
        elif described is not None and _property(described, name) is None:
            known = [each.name for each in described.properties]
            place.add(one_of("property", f"the {owner} {described.name}", name, known), f"{owner}.{name}")


# What it costs, and how it is changed


def _check_costs(place: Place, capability: Capability) -> None:
    levels = capability.service_levels
    if levels.latency_ms is None and "latency_share" in _written(place.at("service_levels")):
        place.add("latency_ms beside it, which it is the share of", "nothing", "service_levels", "latency_share")
    bounded = {
        ("service_levels", "cost_per_decision"): levels.cost_per_decision,
        ("rollout", "canary", "guards", "cost"): capability.rollout.canary.guards.cost,
    }
    if not any(getattr(capability.cost, name) for name in COSTS):
        for path, bound in bounded.items():
            if bound is not None:
                place.add("cost beside it, which says what a decision costs", f"{bound:g}", *path)


def _check_rollout(place: Place, capability: Capability) -> None:
    rollout, here = capability.rollout, place.at("rollout")
    _check_once(here.at("required"), rollout.required, "stage")
    _check_once(here.at("four_eyes"), rollout.four_eyes, "stage")
    canary, there = rollout.canary, here.at("canary")
    for i in range(1, len(canary.steps)):
        if canary.steps[i] <= canary.steps[i - 1]:
            there.add(f"more than the step before it, {canary.steps[i - 1]:g}", f"{canary.steps[i]:g}", "steps", i)
    if capability.monitoring.labels is None:
        if canary.min_labels:
            there.add("monitoring.labels beside it, which say what a label is", str(canary.min_labels), "min_labels")
        if _written(there.at("guards")).get("quality") is not None:
            expected = "monitoring.labels beside it, by which quality is measured"
            there.add(expected, describe(canary.guards.quality), "guards", "quality")


# Retraining


def _check_retraining(place: Place, capability: Capability) -> None:
    retraining, here = capability.retraining, place.at("retraining")
    if retraining is None:
        return
    labels = capability.monitoring.labels
    if capability.model.kind in NEVER_RETRAINED:
        here.add(f"no such key with kind {capability.model.kind}, whose model is trained elsewhere", "a mapping")
    if labels is None:
        here.add("monitoring.labels beside it, by which challenger and champion are compared", "nothing")
    elif retraining.metric is not None:
        _check_metric_name(here.at("metric"), retraining.metric, labels)
    for key, other in (("table", "time"), ("time", "table")):
        if getattr(retraining, key) is not None and getattr(retraining, other) is None:
            here.add(f"{other} beside it", "nothing", key)
    _check_once(here.at("files"), retraining.files, "file")
    kept = _never_trained(capability)
    for i, name in enumerate(retraining.files):
        if name in kept:
            here.add(f"a file that training may write; {kept[name]} is not one", describe(name), "files", i)


def _never_trained(capability: Capability) -> dict[str, str]:
    """What only people write, by the name of its file."""
    kept = {
        FILE_NAME: "the declaration",
        capability.contract: "the contract",
        capability.authority: "that of the policies",
    }
    if capability.retraining is not None:
        kept[capability.retraining.train.rpartition(":")[0]] = "the code that trains"
    return kept


def _check_rows(place: Place, capability: Capability, objects: Mapping[str, SchemaObject | None]) -> None:
    """Where the rows are those of a source of this declaration: it is there, and has the column."""
    table = None if capability.retraining is None else capability.retraining.table
    time = None if capability.retraining is None else capability.retraining.time
    if table is None or not table.startswith(f"intake/{capability.name}/"):
        return
    sources = {f"intake/{capability.name}/{each.name}": each for each in capability.sources}
    if table not in sources:
        place.add(one_of("table", "a source of this declaration", table, sources), describe(table), "table")
        return
    described = objects.get(object_of(sources[table], capability))
    if time is not None and described is not None and described.properties:
        check_property(place.at("time"), time, described, "object", TIME_TYPES)


# Shared


def _check_once(place: Place, names: Sequence[str], noun: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            place.at(i).add(f"each {noun} once", describe(name))


def _written(place: Place) -> Mapping[str, Any]:
    """The keys that the file has at a place, with their values: those left out have their defaults in the types."""
    below = place.value.data
    return {key: member.value.data for key, member in below.items()} if isinstance(below, dict) else {}


def _property(owner: SchemaObject | None, name: str | None) -> Property | None:
    return None if owner is None else next((each for each in owner.properties if each.name == name), None)
